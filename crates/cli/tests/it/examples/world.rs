//! The world outside, on this machine: a weather service, a language model, a phone, a page.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use serde_json::{Value, json};

/// What the language model says to everything.
pub const MODEL_SAYS: &str = "Good morning! Three degrees and rain: take the umbrella.";

/// Its servers, and what they were told so far. Clones share both.
#[derive(Clone)]
pub struct World {
    at: SocketAddr,
    told: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    weather: Vec<BTreeMap<String, String>>,
    model: Vec<Value>,
    phone: Vec<Message>,
    page: String,
}

/// What came to the phone.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub title: String,
    pub idempotency_key: String,
    pub text: String,
}

impl World {
    pub async fn begin() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = Self { at: listener.local_addr().unwrap(), told: Arc::default() };
        let routes = axum::Router::new()
            .route("/v1/forecast", get(weather))
            .route("/v1/chat/completions", post(model))
            .route("/phone", post(phone))
            .route("/page", get(page))
            .with_state(world.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        world
    }

    /// The address of `path`; where there is nothing, the answer is 404.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.at)
    }

    pub fn weather_asked(&self) -> Vec<BTreeMap<String, String>> {
        self.told.lock().unwrap().weather.clone()
    }

    pub fn model_asked(&self) -> Vec<Value> {
        self.told.lock().unwrap().model.clone()
    }

    pub fn phone_received(&self) -> Vec<Message> {
        self.told.lock().unwrap().phone.clone()
    }

    pub fn write_page(&self, text: &str) {
        text.clone_into(&mut self.told.lock().unwrap().page);
    }
}

/// As Open-Meteo answers to a question for the day's figures.
async fn weather(
    State(world): State<World>,
    Query(asked): Query<BTreeMap<String, String>>,
) -> Json<Value> {
    world.told.lock().unwrap().weather.push(asked);
    Json(json!({
        "timezone": "Europe/Chisinau",
        "daily_units": {"temperature_2m_min": "°C", "precipitation_probability_max": "%"},
        "daily": {
            "time": ["2026-03-30"], "temperature_2m_min": [-2.1], "temperature_2m_max": [3.4],
            "precipitation_probability_max": [80],
        },
    }))
}

/// As servers of the common chat protocol answer.
async fn model(State(world): State<World>, Json(asked): Json<Value>) -> Json<Value> {
    let model = asked["model"].clone();
    world.told.lock().unwrap().model.push(asked);
    Json(json!({
        "object": "chat.completion", "model": model,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": MODEL_SAYS},
        }],
        "usage": {"prompt_tokens": 60, "completion_tokens": 12, "total_tokens": 72},
    }))
}

/// As ntfy takes messages: the text as body, the rest as headers.
async fn phone(State(world): State<World>, headers: HeaderMap, body: Bytes) -> Json<Value> {
    let header = |name: &str| {
        headers.get(name).map_or("", |value| value.to_str().unwrap_or_default()).to_owned()
    };
    world.told.lock().unwrap().phone.push(Message {
        title: header("title"),
        idempotency_key: header("idempotency-key"),
        text: String::from_utf8_lossy(&body).into_owned(),
    });
    Json(json!({"event": "message"}))
}

async fn page(State(world): State<World>) -> String {
    world.told.lock().unwrap().page.clone()
}

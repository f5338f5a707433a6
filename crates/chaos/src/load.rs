//! Whoever uses the API: sends runs and events in, as often as it takes, each under an
//! `Idempotency-Key`.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use crate::tasks::{self, BY_EVENT, QUICK, TOPIC, Task};
use crate::{Outcome, Plan};

/// So many requests are on at once, at most.
const AT_ONCE: usize = 32;

/// How long an answer is waited for before the request is sent again.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Between two tries.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The administrator's key.
pub const KEY: &str = "orc_the_key_of_the_administrator_of_a_trial";

/// The API, by any of its replicas.
#[derive(Clone)]
pub struct Door {
    client: Client,
    urls: Arc<Vec<String>>,
}

/// What was accepted.
#[derive(Debug, Default)]
pub struct Accepted {
    /// Runs asked for by `run_now`: the task's name, the id.
    pub runs: Vec<(&'static str, Uuid)>,
    /// Events.
    pub events: HashSet<Uuid>,
    /// How many times a request had to be sent again.
    pub again: usize,
}

impl Accepted {
    /// Adds what another sender has sent in.
    pub fn add(&mut self, other: Self) {
        self.runs.extend(other.runs);
        self.events.extend(other.events);
        self.again += other.again;
    }
}

impl Door {
    /// The door to the replicas at `urls`.
    ///
    /// # Errors
    ///
    /// When the client cannot be made.
    pub fn to(urls: Vec<String>) -> Outcome<Self> {
        orchestrator_boot::install_crypto();
        let client = Client::builder().no_proxy().timeout(ANSWER_MAX).build()?;
        Ok(Self { client, urls: Arc::new(urls) })
    }

    /// Sends a request until it is answered with success; returns the answer, and how often it had to
    /// be sent again. `number` chooses the replica that is asked first.
    ///
    /// # Errors
    ///
    /// When the answer is one that no repetition changes.
    pub async fn ask(
        &self,
        number: usize,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Outcome<(Value, usize)> {
        let key = Uuid::new_v4().to_string();
        let mut tries = 0;
        loop {
            let url = &self.urls[(number + tries) % self.urls.len()];
            let mut request = self
                .client
                .request(method.clone(), format!("{url}{path}"))
                .bearer_auth(KEY)
                .header("idempotency-key", &key);
            if let Some(body) = body {
                request = request.json(body);
            }
            // Not answered, or not to the end: whether it was done is not known.
            let answer = async {
                let answer = request.send().await.ok()?;
                Some((answer.status(), answer.text().await.ok()?))
            };
            match answer.await {
                Some((status, text)) if status.is_success() => {
                    return Ok((serde_json::from_str(&text).unwrap_or_default(), tries));
                }
                Some((status, text))
                    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS =>
                {
                    return Err(format!("{method} {path} was refused: {status} {text}").into());
                }
                _ => tokio::time::sleep(AGAIN_AFTER).await,
            }
            tries += 1;
        }
    }

    /// GET, until it is answered.
    ///
    /// # Errors
    ///
    /// As [`Door::ask`].
    pub async fn get(&self, path: &str) -> Outcome<Value> {
        Ok(self.ask(0, Method::GET, path, None).await?.0)
    }

    /// POST, until it is answered.
    ///
    /// # Errors
    ///
    /// As [`Door::ask`].
    pub async fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        Ok(self.ask(0, Method::POST, path, Some(body)).await?.0)
    }

    /// Asks for a run of the task; returns its id, or the event's, and how often it was sent again.
    async fn send(&self, number: usize, task: &Task) -> Outcome<(Uuid, usize)> {
        let (path, body, field) = if task.name == BY_EVENT {
            ("/events".to_owned(), json!({"topic": TOPIC, "payload": {"n": number}}), "event_id")
        } else {
            (format!("/tasks/{}/run_now", task.name), json!({}), "run_id")
        };
        let (answer, again) = self.ask(number, Method::POST, &path, Some(&body)).await?;
        let id = answer[field].as_str().and_then(|id| id.parse().ok());
        Ok((id.ok_or_else(|| format!("{path} answered {answer}"))?, again))
    }
}

/// Sends in what `plan` says, evenly over its time; returns what was accepted, which is everything.
///
/// # Errors
///
/// When something is refused for good.
pub async fn send_all(door: Door, plan: Plan) -> Outcome<Accepted> {
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let chosen: Vec<&'static Task> =
        (0..plan.runs).map(|_| tasks::by_share(rng.random_range(0..100))).collect();
    let queue = Arc::new(Queue {
        door,
        chosen,
        next: AtomicUsize::new(0),
        began: Instant::now(),
        between: plan.load.div_f64(f64::from(u32::try_from(plan.runs.max(1))?)),
    });
    let mut senders = JoinSet::new();
    for _ in 0..AT_ONCE {
        senders.spawn(send_next(Arc::clone(&queue)));
    }
    let mut accepted = Accepted::default();
    while let Some(sender) = senders.join_next().await {
        accepted.add(sender??);
    }
    Ok(accepted)
}

/// Sends in the bursts of `plan`, evenly over its time; returns what was accepted, which is everything.
///
/// # Errors
///
/// When something is refused for good.
pub async fn send_bursts(door: Door, plan: Plan) -> Outcome<Accepted> {
    let (bursts, size) = plan.bursts;
    let body = json!({"runs": vec![json!({"task": QUICK}); size]});
    let began = Instant::now();
    let mut accepted = Accepted::default();
    for number in 0..bursts {
        tokio::time::sleep_until(began + plan.load / bursts * number).await;
        let asked = door.ask(number as usize, Method::POST, "/runs/batch", Some(&body));
        let (answer, again) = asked.await?;
        accepted.again += again;
        let ids = answer["items"].as_array().into_iter().flatten();
        let ids = ids.filter_map(|one| one["run_id"].as_str()?.parse().ok());
        accepted.runs.extend(ids.map(|id| (QUICK, id)));
    }
    if accepted.runs.len() != size * bursts as usize {
        return Err("a burst was answered with fewer runs than were sent in".into());
    }
    Ok(accepted)
}

/// What is to be sent, in order.
struct Queue {
    door: Door,
    chosen: Vec<&'static Task>,
    next: AtomicUsize,
    began: Instant,
    between: Duration,
}

/// One of those who send: takes the next, waits until it is due, sends it, until there is none.
async fn send_next(queue: Arc<Queue>) -> Outcome<Accepted> {
    let mut accepted = Accepted::default();
    loop {
        let number = queue.next.fetch_add(1, Ordering::Relaxed);
        let Some(task) = queue.chosen.get(number) else { return Ok(accepted) };
        let after = queue.between.mul_f64(f64::from(u32::try_from(number)?));
        tokio::time::sleep_until(queue.began + after).await;
        let (id, again) = queue.door.send(number, task).await?;
        accepted.again += again;
        if task.name == BY_EVENT {
            accepted.events.insert(id);
        } else {
            accepted.runs.push((task.name, id));
        }
    }
}

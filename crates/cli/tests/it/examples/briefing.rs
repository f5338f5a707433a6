//! `morning-briefing.yaml`: from Friday's `apply` to Monday's message on the phone.

use serde_json::{Value, json};

use super::world::{MODEL_SAYS, Message, World};
use super::{System, mcp_config};

/// Friday noon. The clocks of Chisinau go forward in the night to Sunday.
const FRIDAY: &str = "2026-03-27T12:00:00Z";
/// Monday 8:30 there.
const MONDAY: &str = "2026-03-30T05:30:00Z";

/// Applies it on Friday and moves the clock to Monday; returns the run that came of it.
async fn run_of_monday(system: &System, params: Value) -> Value {
    system.until_time_is_there().await;
    system.apply("morning-briefing", params).await;
    let task = system.get("tasks/morning-briefing").await;
    assert_eq!(task["next_fire_at"], MONDAY, "8:30 by the clocks of Monday");
    system.app.clock.set(MONDAY.parse().unwrap());
    system.runs(1).await.remove(0)
}

/// The record of a step that was tried once.
fn step<'a>(run: &'a Value, id: &str) -> &'a Value {
    let mut records = run["steps"].as_array().unwrap().iter().filter(|step| step["id"] == id);
    let record = records.next().unwrap();
    assert!(records.next().is_none(), "{id} was tried once");
    record
}

#[tokio::test]
async fn the_briefing_comes_on_monday_at_half_past_eight_in_the_models_words() {
    let (config, world) = (mcp_config(), World::begin().await);
    let base_url = world.url("/v1");
    let settings = [
        ("MCP_CONFIG", config.path().to_str().unwrap()),
        ("LLM_BASE_URL", &base_url[..]),
        ("LLM_MODEL", "small"),
    ];
    let system = System::with(FRIDAY, world, &settings).await;
    let params = json!({
        "weather_url": system.world.url("/v1/forecast"), "notify_url": system.world.url("/phone"),
    });

    let run = run_of_monday(&system, params).await;

    assert_eq!((&run["status"], &run["trigger"]), (&json!("succeeded"), &json!("schedule")));
    assert_eq!((&run["nominal_at"], &run["attempt"]), (&json!(MONDAY), &json!(1)));
    for id in ["time", "weather", "facts", "summary", "briefing", "notify"] {
        let step = step(&run, id);
        assert_eq!(step["status"], "succeeded", "{step}");
        for field in ["started_at", "finished_at", "input", "output"] {
            assert!(!step[field].is_null(), "{field} of {step}");
        }
    }
    let output = |id: &str| &step(&run, id)["output"];
    assert_eq!(output("time")["timezone"], "Europe/Chisinau", "the time server's own answer");
    assert_eq!(output("weather")["json"]["daily"]["temperature_2m_max"][0], 3.4);
    assert_eq!(output("summary")["text"], MODEL_SAYS);

    let asked = &system.world.weather_asked()[0];
    assert_eq!((&asked["latitude"][..], &asked["timezone"][..]), ("47.01", "Europe/Chisinau"));
    let prompt = system.world.model_asked()[0]["messages"][1]["content"].clone();
    let facts = output("facts")["text"].as_str().unwrap();
    assert!(
        facts.ends_with("Chisinau: -2.1 to 3.4 °C, rain with a probability of 80 %."),
        "{facts}"
    );
    assert!(prompt.as_str().unwrap().ends_with(facts), "{prompt}");
    let message = Message {
        title: "Good morning, Chisinau".to_owned(),
        idempotency_key: format!("{}/notify", run["id"].as_str().unwrap()),
        text: MODEL_SAYS.to_owned(),
    };
    assert_eq!(system.world.phone_received(), [message]);
    system.end().await;
}

#[tokio::test]
async fn without_weather_and_model_the_briefing_comes_in_plain_words() {
    let (config, world) = (mcp_config(), World::begin().await);
    let settings = [("MCP_CONFIG", config.path().to_str().unwrap())];
    let system = System::with(FRIDAY, world, &settings).await;
    let params = json!({
        "weather_url": system.world.url("/gone"), "notify_url": system.world.url("/phone"),
    });

    let run = run_of_monday(&system, params).await;

    assert_eq!(run["status"], "succeeded", "{run}");
    let received = system.world.phone_received();
    let text = &received[0].text;
    assert!(text.ends_with("Chisinau: the weather is not known today."), "{text}");
    system.end().await;
}

//! The tasks whose runs are enqueued: a kind for each promise.

use serde_json::{Value, json};

/// One task.
pub struct Task {
    /// Its name, and the path at which its steps call the receiver.
    pub name: &'static str,
    /// Of 100 requests, how many ask for a run of it. 0: its schedule makes its runs, or they come in bursts.
    pub share: u32,
    /// The steps of its pipeline.
    pub steps: u32,
    /// What else it declares.
    declared: fn() -> Value,
}

/// How many runs of the task with a concurrency key may be on at once.
pub const KEY_LIMIT: usize = 5;

/// The topic of the events that are published.
pub const TOPIC: &str = "chaos.happened";

/// The task that runs for each event.
pub const BY_EVENT: &str = "by-event";

/// Tasks with a schedule whose runs go one at a time.
pub const SERIAL: [&str; 2] = ["serial-one", "serial-two"];

/// The task whose runs share a concurrency key.
pub const KEYED: &str = "keyed";

/// The task whose step tries again by itself.
pub const STEP_RETRIED: &str = "step-retried";

/// The task whose runs call nobody, come many at a time, and are leased ahead of slots.
pub const QUICK: &str = "quick";

/// All of them.
pub const TASKS: &[Task] = &[
    Task { name: "plain", share: 45, steps: 1, declared: || json!({}) },
    Task { name: "several-steps", share: 20, steps: 3, declared: || json!({}) },
    Task {
        name: KEYED,
        share: 10,
        steps: 1,
        declared: || json!({"concurrency_key": "chaos", "concurrency_limit": KEY_LIMIT}),
    },
    Task { name: STEP_RETRIED, share: 10, steps: 1, declared: || json!({}) },
    Task { name: "run-retried", share: 10, steps: 1, declared: || json!({}) },
    Task {
        name: BY_EVENT,
        share: 5,
        steps: 1,
        declared: || json!({"schedule_kind": "event", "schedule_expr": TOPIC}),
    },
    Task { name: QUICK, share: 0, steps: 2, declared: || json!({}) },
    Task { name: SERIAL[0], share: 0, steps: 1, declared: every_second },
    Task { name: SERIAL[1], share: 0, steps: 1, declared: every_second },
];

fn every_second() -> Value {
    json!({"schedule_kind": "interval", "schedule_expr": "PT1S",
           "policy": {"overlap": "queue_all", "catch_up": "all"}})
}

impl Task {
    /// As `POST /tasks` takes it, with steps that call `receiver`.
    ///
    /// Runs may be tried as often as is allowed: how often a worker dies under a run is chance here,
    /// and not what is measured.
    pub fn declare(&self, receiver: &str) -> Value {
        let steps: Vec<Value> = (1..=self.steps)
            .map(|number| {
                let mut step = json!({
                    "id": format!("call-{number}"), "uses": "http.request",
                    "with": {"method": "POST", "url": format!("http://{receiver}/{}", self.name),
                             "json": {"attempt": "${run.attempt}"}},
                });
                if self.name == QUICK {
                    step["uses"] = json!("core.echo");
                    step["with"] = json!({"json": {"attempt": "${run.attempt}"}});
                }
                if self.name == STEP_RETRIED {
                    step["retry"] = json!({"max_attempts": 20, "backoff": "fixed"});
                }
                step
            })
            .collect();
        let mut task = json!({
            "name": self.name, "title": self.name, "schedule_kind": "manual",
            "max_retries": 100, "backoff_strategy": "fixed", "payload": {"pipeline": steps},
        });
        if let (Some(task), Value::Object(declared)) = (task.as_object_mut(), (self.declared)()) {
            task.extend(declared);
        }
        task
    }
}

/// How many steps a run of the task of this name has.
pub fn steps_of(name: &str) -> usize {
    TASKS.iter().find(|task| task.name == name).map_or(0, |task| task.steps as usize)
}

/// The task that a number below 100 stands for.
pub fn by_share(mut number: u32) -> &'static Task {
    for task in TASKS {
        if number < task.share {
            return task;
        }
        number -= task.share;
    }
    &TASKS[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_of_a_hundred() {
        assert_eq!(TASKS.iter().map(|task| task.share).sum::<u32>(), 100);
        assert_eq!(by_share(99).name, BY_EVENT);
    }
}

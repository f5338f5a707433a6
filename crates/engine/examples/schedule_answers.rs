//! Answers questions about schedules, one JSON line each, for `make fuzz-time`.
//!
//! A question is `{"kind", "expr", "zone", "gap", "fold", "from", "count"}`; the answer is
//! `{"fires": […]}` with at most `count` instants from `from` on, or `{"refused": "…"}`.

use std::io::{BufRead, Write};

use chrono::{DateTime, Utc};
use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
use orchestrator_engine::task::{DstFold, DstGap, Policy, ScheduleKind};
use serde_json::{Value, json};

#[derive(serde::Deserialize)]
struct Question {
    kind: ScheduleKind,
    expr: String,
    zone: String,
    gap: DstGap,
    fold: DstFold,
    from: DateTime<Utc>,
    count: usize,
}

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let question: Question = serde_json::from_str(&line?)?;
        writeln!(out, "{}", answer(question))?;
        out.flush()?;
    }
    Ok(())
}

fn answer(question: Question) -> Value {
    let policy = Policy { dst_gap: question.gap, dst_fold: question.fold, ..Policy::default() };
    let spec = ScheduleSpec {
        kind: question.kind,
        expr: question.expr,
        timezone: question.zone,
        starts_at: None,
        ends_at: None,
        max_fires: None,
        exclude: Vec::new(),
        policy,
    };
    match Schedule::compile(&spec, question.from) {
        Ok(schedule) => {
            let fires = schedule.preview(question.from, question.count, 0).fires;
            json!({"fires": fires.iter().map(|fire| fire.at).collect::<Vec<_>>()})
        }
        Err(problems) => {
            let said: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            json!({"refused": said.join("; ")})
        }
    }
}

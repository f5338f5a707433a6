//! The executor with tools and a journal that live in the test.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::FakeClock;
use crate::id::{RunId, rng};
use crate::run::{RunInfo, StepRecord, StepStatus, Trigger};
use crate::tool::{ToolCall, ToolCaller, ToolError, ToolSpec};

/// Tools by what they do: `t.echo` answers with its input, `t.fail` is refused, `t.busy` fails for
/// now, `t.script` does what the next entry of the script says, `t.hang` waits to be told to stop,
/// `t.slow` then answers.
#[derive(Default)]
struct Tools {
    calls: Mutex<Vec<(String, Value)>>,
    script: Mutex<VecDeque<Result<Value, ToolError>>>,
    /// Set when a tool has begun to hang.
    hanging: CancellationToken,
}

impl Tools {
    fn scripted(script: impl IntoIterator<Item = Result<Value, ToolError>>) -> Self {
        Self { script: Mutex::new(script.into_iter().collect()), ..Self::default() }
    }

    fn keys(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(key, _)| key.clone()).collect()
    }

    fn inputs(&self) -> Vec<Value> {
        self.calls.lock().unwrap().iter().map(|(_, input)| input.clone()).collect()
    }
}

fn busy() -> ToolError {
    ToolError::Busy { tool: "t.busy".into(), reason: "later".into(), retry_after: None }
}

impl ToolCaller for Tools {
    fn call(&self, call: ToolCall) -> BoxFuture<'_, Result<Value, ToolError>> {
        let path = call.idempotency_key.split_once('/').map_or("", |(_, path)| path).to_owned();
        self.calls.lock().unwrap().push((path, call.input.clone()));
        let tool = call.address.clone();
        match call.address.as_str() {
            "t.fail" => {
                let reason = format!("no: {}", call.input);
                async move { Err(ToolError::Refused { tool, reason }) }.boxed()
            }
            "t.busy" => async { Err(busy()) }.boxed(),
            "t.script" => {
                let next = self.script.lock().unwrap().pop_front().expect("a scripted answer");
                async move { next }.boxed()
            }
            "t.hang" | "t.slow" | "t.deaf" => {
                self.hanging.cancel();
                async move {
                    call.cancel.cancelled().await;
                    match tool.as_str() {
                        "t.slow" => Ok(json!("in time")),
                        "t.deaf" => std::future::pending().await,
                        _ => Err(ToolError::Canceled { tool }),
                    }
                }
                .boxed()
            }
            _ => async move { Ok(call.input) }.boxed(),
        }
    }
}

/// Keeps records as a database would; breaks at checkpoint number `breaks_at`, before or after it
/// has written.
#[derive(Default)]
struct Memory {
    kept: Mutex<BTreeMap<(String, i32), StepRecord>>,
    started: Mutex<Vec<StepRecord>>,
    checkpoints: Mutex<Vec<Vec<String>>>,
    breaks_at: Option<usize>,
}

impl Memory {
    fn keep(&self, records: Vec<StepRecord>) {
        let mut kept = self.kept.lock().unwrap();
        for record in records {
            kept.insert((record.path.clone(), record.attempt), record);
        }
    }

    fn records(&self) -> Vec<StepRecord> {
        self.kept.lock().unwrap().values().cloned().collect()
    }
}

impl Journal for Memory {
    fn checkpoint(&self, records: Vec<StepRecord>) -> BoxFuture<'_, Result<(), JournalError>> {
        let mut checkpoints = self.checkpoints.lock().unwrap();
        checkpoints.push(records.iter().map(|record| record.path.clone()).collect());
        let breaks = self.breaks_at == Some(checkpoints.len());
        if !breaks {
            self.keep(records);
        }
        async move { if breaks { Err(JournalError::LeaseLost) } else { Ok(()) } }.boxed()
    }

    fn ended(&self) {}

    fn started(&self, record: &Arc<StepRecord>) {
        self.started.lock().unwrap().push(StepRecord::clone(record));
    }
}

struct Vault(BTreeMap<String, String>);

impl Secrets for Vault {
    fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
}

const DATA_MAX: usize = 1024 * 1024;

fn context(records: Vec<StepRecord>) -> RunContext {
    let at = "2026-11-21T08:00:00Z".parse().expect("a time");
    RunContext {
        info: RunInfo {
            id: RunId::new(at, &mut rng()),
            task_id: None,
            attempt: 1,
            trigger: Trigger::RunNow,
            nominal_at: None,
            scheduled_at: at,
        },
        max_attempts: 1,
        params: Map::new(),
        event: None,
        last: None,
        secrets: Arc::new(Vault([("KEY".to_owned(), "s3cr3t".to_owned())].into())),
        records,
        data_max_bytes: DATA_MAX,
        jitter: 0.5,
    }
}

fn load(payload: &Value) -> Pipeline {
    Pipeline::load(payload).expect("a good pipeline")
}

async fn run(pipeline: &Pipeline, ctx: RunContext, tools: &Tools, journal: &Memory) -> Outcome {
    let clock = FakeClock::at("2026-11-21T08:00:00Z".parse().expect("a time"));
    execute(pipeline, ctx, tools, journal, &clock, CancellationToken::new()).await
}

async fn run_payload(payload: Value) -> (Outcome, Tools, Memory) {
    let (tools, journal) = (Tools::default(), Memory::default());
    let outcome = run(&load(&payload), context(Vec::new()), &tools, &journal).await;
    (outcome, tools, journal)
}

fn records(outcome: &Outcome) -> &[StepRecord] {
    match outcome {
        Outcome::Succeeded { records, .. }
        | Outcome::Failed { records, .. }
        | Outcome::Canceled { records } => records,
        Outcome::Stopped { .. } => &[],
    }
}

fn output(outcome: &Outcome) -> &Value {
    match outcome {
        Outcome::Succeeded { output, .. } => output,
        other => panic!("did not succeed: {other:?}"),
    }
}

fn failure(outcome: &Outcome) -> (&str, &str, Retry) {
    match outcome {
        Outcome::Failed { error, retry, .. } => (&error.kind, &error.message, *retry),
        other => panic!("did not fail: {other:?}"),
    }
}

#[tokio::test]
async fn a_run_of_one_step_needs_no_checkpoint() {
    let (outcome, _, journal) =
        run_payload(json!({"pipeline": [{"uses": "t.echo", "with": {"a": 1}}]})).await;
    assert_eq!(output(&outcome), &json!({"a": 1}));
    assert_eq!(records(&outcome).len(), 1);
    assert!(journal.checkpoints.lock().unwrap().is_empty());
    assert_eq!(journal.started.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn one_pipeline_is_shared_by_runs_on_many_threads() {
    let payload = json!({"params": {"n": 1}, "pipeline": [
        {"uses": "t.echo", "with": {"n": "${params.n}", "text": "{% if true %}${params.n}{% endif %}"}},
    ]});
    let pipeline = Arc::new(load(&payload));
    let runs = (0..8).map(|n| {
        let pipeline = Arc::clone(&pipeline);
        tokio::spawn(async move {
            let mut ctx = context(Vec::new());
            ctx.params.insert("n".into(), json!(n));
            run(&pipeline, ctx, &Tools::default(), &Memory::default()).await
        })
    });
    for (n, outcome) in futures::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!(output(&outcome.unwrap()), &json!({"n": n, "text": n.to_string()}));
    }
}

#[tokio::test]
async fn what_is_done_is_durable_before_the_next_tool_is_called() {
    let (outcome, _, journal) = run_payload(json!({"pipeline": [
        {"id": "a", "uses": "t.echo"},
        {"id": "b", "uses": "t.echo", "if": false},
        {"id": "c", "uses": "t.echo", "if": "${1 > 2}"},
        {"id": "d", "uses": "t.echo"},
        {"id": "e", "uses": "t.echo"},
    ]}))
    .await;
    assert_eq!(*journal.checkpoints.lock().unwrap(), [vec!["a", "b", "c"], vec!["d"]]);
    assert_eq!(records(&outcome)[0].path, "e");
}

#[tokio::test]
async fn later_steps_see_the_outputs_of_earlier_ones_with_their_types() {
    let (outcome, tools, _) = run_payload(json!({
        "params": {"n": 2},
        "pipeline": [
            {"id": "first-one", "uses": "t.echo", "with": {"n": "${params.n + 1}"}, "save_as": "first"},
            {"id": "off", "uses": "t.echo", "if": "${params.n > 2}"},
            {"uses": "t.echo", "with": {
                "n": "${steps.first.n}", "same": "${steps['first-one'].n}", "text": "n=${steps.first.n}",
                "off": "${steps.off is defined and steps.off is none}", "dollar": "$${x}",
                "now": "${now}", "attempt": "${run.attempt}",
            }},
        ],
    }))
    .await;
    let expected = json!({
        "n": 3, "same": 3, "text": "n=3", "off": true, "dollar": "${x}",
        "now": "2026-11-21T08:00:00Z", "attempt": 1,
    });
    assert_eq!(output(&outcome), &expected);
    assert_eq!(tools.inputs()[1], expected);
}

#[tokio::test]
async fn params_of_a_run_stand_before_the_defaults() {
    let pipeline = load(&json!({
        "params": {"a": 1, "b": 2},
        "pipeline": [{"uses": "t.echo", "with": {"sum": "${params.a + params.b}"}}],
    }));
    let mut ctx = context(Vec::new());
    ctx.params.insert("b".into(), json!(10));
    let outcome = run(&pipeline, ctx, &Tools::default(), &Memory::default()).await;
    assert_eq!(output(&outcome), &json!({"sum": 11}));
}

#[tokio::test]
async fn a_wrong_expression_fails_its_step_for_good_and_says_where() {
    let (outcome, tools, _) = run_payload(json!({"pipeline": [
        {"id": "a", "uses": "t.echo", "with": {"x": 1}},
        {"id": "b", "uses": "t.echo", "with": {"y": "${steps.a.z}"}},
    ]}))
    .await;
    let (kind, message, retry) = failure(&outcome);
    assert_eq!((kind, retry), ("expression", Retry::Never));
    assert_eq!(message, "${steps.a.z}: steps.a.z has no value");
    assert_eq!(records(&outcome)[1].error.as_ref().unwrap().step.as_deref(), Some("b"));
    assert_eq!(tools.keys(), ["a"]);
}

#[tokio::test]
async fn a_failure_that_may_pass_is_left_to_the_run_while_it_has_attempts() {
    let pipeline = load(&json!({"pipeline": [
        {"id": "a", "uses": "t.busy", "on_error": "continue"}, {"id": "b", "uses": "t.echo"},
    ]}));
    let (tools, journal) = (Tools::default(), Memory::default());
    let mut ctx = context(Vec::new());
    ctx.max_attempts = 2;
    let outcome = run(&pipeline, ctx, &tools, &journal).await;
    assert_eq!(failure(&outcome).2, Retry::Run { retry_after: None });
    journal.keep(records(&outcome).to_vec());

    // The last attempt: now `on_error` says what follows.
    let mut ctx = context(journal.records());
    (ctx.info.attempt, ctx.max_attempts) = (2, 2);
    let outcome = run(&pipeline, ctx, &tools, &journal).await;
    assert_eq!(output(&outcome), &json!({}));
    assert_eq!(tools.keys(), ["a", "a", "b"]);
    let kept: Vec<_> = journal.records().iter().map(|r| (r.attempt, r.output.is_some())).collect();
    assert_eq!(kept, [(1, false), (2, true)], "only the handled failure has an output");
}

#[tokio::test]
async fn a_failure_that_will_come_again_is_not_tried_again() {
    let pipeline = load(&json!({"pipeline": [
        {"uses": "t.fail", "retry": {"max_attempts": 5}},
    ]}));
    let mut ctx = context(Vec::new());
    ctx.max_attempts = 5;
    let outcome = run(&pipeline, ctx, &Tools::default(), &Memory::default()).await;
    let (kind, _, retry) = failure(&outcome);
    assert_eq!((kind, retry), ("refused", Retry::Never));
}

#[tokio::test]
async fn a_step_with_its_own_retry_uses_its_attempts_and_not_the_runs() {
    let pipeline = load(&json!({"pipeline": [
        {"uses": "t.busy", "retry": {"max_attempts": 3, "backoff": "linear"}},
    ]}));
    let journal = Memory::default();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let mut ctx = context(journal.records());
        ctx.max_attempts = 9;
        let outcome = run(&pipeline, ctx, &Tools::default(), &journal).await;
        seen.push((records(&outcome)[0].attempt, failure(&outcome).2));
        journal.keep(records(&outcome).to_vec());
    }
    let after = |seconds| Retry::Step { delay: Duration::from_secs(seconds) };
    assert_eq!(seen, [(1, after(1)), (2, after(2)), (3, Retry::Never)]);
}

#[tokio::test]
async fn a_tool_that_asks_for_time_gets_it() {
    let wait = Duration::from_secs(90);
    let error = ToolError::Busy { tool: "t".into(), reason: "429".into(), retry_after: Some(wait) };
    for (payload, expected) in [
        (json!({"uses": "t.script"}), Retry::Run { retry_after: Some(wait) }),
        (json!({"uses": "t.script", "retry": {"max_attempts": 2}}), Retry::Step { delay: wait }),
    ] {
        let mut ctx = context(Vec::new());
        ctx.max_attempts = 2;
        let tools = Tools::scripted([Err(error.clone())]);
        let outcome =
            run(&load(&json!({"pipeline": [payload]})), ctx, &tools, &Memory::default()).await;
        assert_eq!(failure(&outcome).2, expected);
    }
}

#[tokio::test]
async fn after_a_failure_that_is_allowed_the_run_goes_on_and_sees_the_error() {
    let (outcome, _, _) = run_payload(json!({"pipeline": [
        {"id": "a", "uses": "t.fail", "with": {"x": 1}, "on_error": "continue"},
        {"id": "b", "uses": "t.echo", "with": {"kind": "${steps.a.error.kind}",
            "out": "${steps.a.value | default('none')}"}},
        {"id": "c", "uses": "t.fail", "on_error": "continue"},
    ]}))
    .await;
    assert_eq!(output(&outcome), &json!({"kind": "refused", "out": "none"}), "the last success");
}

#[tokio::test]
async fn an_on_error_list_sees_the_error_and_then_the_run_goes_on() {
    let (outcome, tools, journal) = run_payload(json!({"pipeline": [
        {"id": "a", "uses": "t.fail", "on_error": [
            {"id": "tell", "uses": "t.echo", "with": {"text": "${error.step}: ${error.kind}"}},
            {"id": "log", "uses": "t.echo", "with": {"same": "${steps.tell.text}"}},
        ]},
        {"id": "b", "uses": "t.echo"},
    ]}))
    .await;
    assert_eq!(tools.keys(), ["a", "a/on_error/tell", "a/on_error/log", "b"]);
    assert_eq!(tools.inputs()[2], json!({"same": "a: refused"}));
    assert_eq!(output(&outcome), &json!({}));
    assert_eq!(journal.checkpoints.lock().unwrap()[0], ["a"], "durable before the list begins");
}

#[tokio::test]
async fn a_failure_inside_an_on_error_list_fails_the_run() {
    let (outcome, tools, _) = run_payload(json!({"pipeline": [
        {"id": "a", "uses": "t.fail", "on_error": [{"id": "tell", "uses": "t.fail"}]},
        {"id": "b", "uses": "t.echo"},
    ]}))
    .await;
    failure(&outcome);
    assert_eq!(tools.keys(), ["a", "a/on_error/tell"]);
}

#[tokio::test]
async fn secrets_reach_the_tool_and_nothing_else() {
    let payload = json!({
        "params": {"plain": "has s3cr3t inside"},
        "pipeline": [
            {"id": "a", "uses": "t.echo", "with": {
                "auth": "Bearer ${secrets.KEY}", "basic": "${('u:' ~ secrets.KEY) | b64}",
                "plain": "${params.plain}", "list": ["${secrets.KEY}", 1]}},
            {"id": "b", "uses": "t.fail", "with": {"x": "${secrets.KEY}"}},
        ],
    });
    let (outcome, tools, journal) = run_payload(payload).await;
    assert_eq!(tools.inputs()[0]["auth"], "Bearer s3cr3t");
    let kept = &journal.records()[0];
    assert_eq!(
        kept.input,
        Some(json!({
            "auth": "Bearer [secret KEY]", "basic": "dTpbc2VjcmV0IEtFWV0=",
            "plain": "has [secret KEY] inside", "list": ["[secret KEY]", 1]}))
    );
    assert_eq!(kept.output.as_ref().unwrap()["auth"], "Bearer [secret KEY]");
    assert_eq!(failure(&outcome).1, "tool t.fail refused: no: {\"x\":\"[secret KEY]\"}");
    let shown = format!("{outcome:?}{:?}", journal.started.lock().unwrap());
    assert!(!shown.contains("s3cr3t"), "{shown}");
}

#[tokio::test]
async fn a_secret_that_is_not_there_fails_the_step() {
    let (outcome, tools, _) =
        run_payload(json!({"pipeline": [{"uses": "t.echo", "with": {"x": "${secrets.GONE}"}}]}))
            .await;
    assert_eq!(failure(&outcome).1, "${secrets.GONE}: secrets.GONE has no value");
    assert!(tools.keys().is_empty());
}

#[tokio::test]
async fn an_output_at_the_limit_is_kept_and_one_above_fails() {
    for (bytes, fits) in [(DATA_MAX, true), (DATA_MAX + 1, false)] {
        let tools = Tools::scripted([Ok(json!("x".repeat(bytes - 2)))]);
        let pipeline = load(&json!({"pipeline": [{"uses": "t.script"}]}));
        let outcome = run(&pipeline, context(Vec::new()), &tools, &Memory::default()).await;
        assert_eq!(matches!(outcome, Outcome::Succeeded { .. }), fits, "{bytes}");
        if !fits {
            let told = "the tool's output is 1048577 bytes of JSON, more than RUN_DATA_MAX_BYTES \
                        (1048576)";
            let (kind, message, _) = failure(&outcome);
            assert_eq!((kind, message), ("output", told));
        }
    }
}

#[tokio::test]
async fn an_input_that_grows_too_large_fails() {
    let half = "${'x' * 600000}";
    let (outcome, tools, _) =
        run_payload(json!({"pipeline": [{"uses": "t.echo", "with": {"a": half, "b": half}}]}))
            .await;
    assert_eq!(failure(&outcome).0, "input");
    assert!(tools.keys().is_empty());
}

#[tokio::test]
async fn a_step_that_takes_too_long_is_told_to_stop_and_times_out() {
    for (tool, expected) in
        [("t.hang", Some("timeout")), ("t.deaf", Some("timeout")), ("t.slow", None)]
    {
        let mut pipeline = load(&json!({"pipeline": [{"uses": tool}]}));
        pipeline.steps[0].timeout = Duration::from_millis(1);
        let tools = Tools::default();
        let outcome = run(&pipeline, context(Vec::new()), &tools, &Memory::default()).await;
        match expected {
            Some(kind) => assert_eq!(failure(&outcome).0, kind, "{tool}"),
            None => assert_eq!(output(&outcome), "in time", "what is done counts"),
        }
    }
}

#[tokio::test]
async fn a_canceled_run_stops_its_tool_and_begins_no_step() {
    for (tool, status) in [
        ("t.hang", StepStatus::Canceled),
        ("t.deaf", StepStatus::Canceled),
        ("t.slow", StepStatus::Succeeded),
    ] {
        let pipeline = load(&json!({"pipeline": [{"uses": tool}, {"uses": "t.echo"}]}));
        let (tools, journal) = (Tools::default(), Memory::default());
        let clock = FakeClock::at("2026-11-21T08:00:00Z".parse().expect("a time"));
        let cancel = CancellationToken::new();
        let hanging = tools.hanging.clone();
        let (outcome, ()) = tokio::join!(
            execute(&pipeline, context(Vec::new()), &tools, &journal, &clock, cancel.clone()),
            async {
                hanging.cancelled().await;
                cancel.cancel();
            }
        );
        assert!(matches!(outcome, Outcome::Canceled { .. }), "{tool}");
        assert_eq!(records(&outcome)[0].status, status, "{tool}");
        assert_eq!(tools.keys(), ["step_1"]);
    }
}

#[tokio::test]
async fn a_step_whose_worker_died_is_tried_again_with_the_next_attempt_number() {
    let pipeline = load(&json!({"pipeline": [{"id": "a", "uses": "t.echo"}]}));
    let (outcome, _, journal) = run_payload(pipeline.normalised()).await;
    let died = journal.started.lock().unwrap()[0].clone();
    assert_eq!(died.status, StepStatus::Running);
    drop(outcome);

    let journal = Memory::default();
    let outcome = run(&pipeline, context(vec![died]), &Tools::default(), &journal).await;
    journal.keep(records(&outcome).to_vec());
    let ended: Vec<_> = journal.records().iter().map(|r| (r.attempt, r.status)).collect();
    assert_eq!(ended, [(1, StepStatus::Failed), (2, StepStatus::Succeeded)]);
}

#[tokio::test]
async fn a_step_that_kills_its_workers_fails_when_its_attempts_are_used() {
    let pipeline = load(&json!({"pipeline": [
        {"id": "a", "uses": "t.echo", "retry": {"max_attempts": 1}, "on_error": "continue"},
        {"id": "b", "uses": "t.echo", "with": {"kind": "${steps.a.error.kind}"}},
    ]}));
    let (_, _, journal) = run_payload(json!({"pipeline": [{"id": "a", "uses": "t.echo"}]})).await;
    let died = journal.started.lock().unwrap()[0].clone();
    let tools = Tools::default();
    let outcome = run(&pipeline, context(vec![died]), &tools, &Memory::default()).await;
    assert_eq!(output(&outcome), &json!({"kind": "lease_lost"}));
    assert_eq!(tools.keys(), ["b"]);
}

/// Pipelines with every kind of step, from a list of numbers.
fn pipeline_of(kinds: &[u8]) -> Value {
    let step = |(n, kind): (usize, &u8)| {
        let id = format!("s{n}");
        match kind % 5 {
            0 => json!({"id": id, "uses": "t.echo", "with": {"n": n}}),
            1 => json!({"id": id, "uses": "t.echo", "if": "${false}"}),
            2 => json!({"id": id, "uses": "t.fail", "on_error": "continue"}),
            3 => json!({"id": id, "uses": "t.fail", "on_error": [
                {"id": format!("{id}a"), "uses": "t.echo", "with": {"e": "${error.kind}"}},
                {"id": format!("{id}b"), "uses": "t.echo"},
            ]}),
            _ => json!({"id": id, "uses": "t.echo", "with": {"now": "${now}"}}),
        }
    };
    json!({"pipeline": kinds.iter().enumerate().map(step).collect::<Vec<_>>()})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_run_resumed_after_a_crash_at_any_checkpoint_calls_every_tool_as_often_as_one_that_never_crashed(
        kinds in prop::collection::vec(any::<u8>(), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let pipeline = load(&pipeline_of(&kinds));
        let (calm_tools, calm) = (Tools::default(), Memory::default());
        let calm_outcome = runtime.block_on(run(&pipeline, context(Vec::new()), &calm_tools, &calm));
        let checkpoints = calm.checkpoints.lock().unwrap().len();
        for breaks_at in 1..=checkpoints {
            let tools = Tools::default();
            let broken = Memory { breaks_at: Some(breaks_at), ..Memory::default() };
            let outcome = runtime.block_on(run(&pipeline, context(Vec::new()), &tools, &broken));
            prop_assert_eq!(outcome, Outcome::Stopped { error: JournalError::LeaseLost });

            let journal = Memory::default();
            journal.keep(broken.records());
            let kept = broken.records();
            let before = tools.keys();
            let outcome = runtime.block_on(run(&pipeline, context(kept.clone()), &tools, &journal));
            prop_assert_eq!(output(&outcome), output(&calm_outcome));

            // What was kept is not done again; what was not, is, once.
            let is_kept = |path: &String| kept.iter().any(|record| record.path == *path);
            let again: Vec<_> = calm_tools.keys().into_iter().filter(|path| !is_kept(path)).collect();
            let expected: Vec<_> = before.iter().cloned().chain(again).collect();
            prop_assert_eq!(tools.keys(), expected);
        }
    }
}

fn catalogue() -> Catalogue {
    let spec = |address: &str, scope: Option<&str>| ToolSpec {
        address: address.to_owned(),
        description: String::new(),
        input_schema: json!({
            "type": "object",
            "properties": {
                "url": {"type": "string", "pattern": "^https?://"},
                "count": {"type": "integer", "maximum": 10},
                "headers": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "required": ["url"],
            "additionalProperties": false,
        }),
        output_schema: None,
        timeout_seconds: 7,
        scope: scope.map(str::to_owned),
        source: "builtin".to_owned(),
    };
    [spec("http.request", Some("tool:http")), spec("http.head", None)]
        .map(|tool| (tool.address.clone(), tool))
        .into()
}

fn check(payload: &Value) -> Vec<String> {
    match Pipeline::check(payload, &catalogue()) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn mistakes_in_names_tools_and_inputs_are_found_before_the_first_run() {
    let found = check(&json!({
        "params": {"city": "Berlin"},
        "pipeline": [
            {"id": "get", "uses": "http.reqest", "with": {}},
            {"id": "two", "uses": "http.request", "with": {"urll": "${params.cty}", "count": "many"}},
            {"id": "three", "uses": "http.request", "save_as": "page", "with": {
                "url": "${steps.tow.body}", "headers": {"a/b": 5, "c": "${steps.four}", "d": "${secrets.KEY}"}},
                "if": "params.city == 'x'"},
            {"id": "four", "uses": "http.head", "with": {"url": "ftp://${params.city}", "count": "${12}"},
                "if": "${secrets.KEY == error.kind}"},
            {"id": "five", "uses": "http.head", "with": {"url": "ftp://x", "count": 11, "${a}": 1},
                "if": "yes ${true}", "on_error": [
                    {"id": "six", "uses": "http.head", "with": {"url": "${error.kind | uper}"}}]},
            {"id": "seven", "uses": "http.head",
                "with": {"url": "${steps.six} ${run.attmpt} ${item} ${secrets}"}},
        ],
    }));
    insta::assert_snapshot!(found.join("\n"));
}

#[test]
fn what_can_run_is_accepted() {
    let found = check(&json!({
        "params": {"city": "Berlin"},
        "pipeline": [
            {"id": "a", "uses": "http.request", "with": {
                "url": "https://x/${params.city}", "count": "${params.n | default(1)}",
                "headers": {"x": "${params.city}", "auth": "${secrets.KEY}"}}},
            {"id": "b", "uses": "http.head", "with": {"url": "${steps.a.url}"},
                "if": "${steps.a is defined and event is undefined and last is none}"},
        ],
    }));
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_pipeline_says_which_scopes_it_needs_and_pins_the_timeouts_of_its_tools() {
    let payload = json!({"pipeline": [
        {"uses": "http.request", "with": {"url": "https://x/${secrets.KEY}"}, "on_error": [
            {"uses": "http.head", "with": {"url": "${secrets.OTHER}"}, "timeout_seconds": 3}]},
    ]});
    let pipeline = Pipeline::check(&payload, &catalogue()).expect("a good pipeline");
    let scopes: Vec<_> = pipeline.required_scopes(&catalogue()).into_iter().collect();
    assert_eq!(scopes, ["secret:KEY", "secret:OTHER", "tool:http"]);

    let again = load(&pipeline.normalised());
    assert_eq!(again.normalised(), pipeline.normalised());
    assert_eq!(again.steps[0].timeout, Duration::from_secs(7));
    assert_eq!(pipeline.normalised()["pipeline"][0]["on_error"][0]["timeout_seconds"], 3);
}

#[test]
fn unknown_parameters_of_a_run_are_named() {
    let pipeline = load(&json!({"params": {"city": 1}, "pipeline": [{"uses": "t.echo"}]}));
    let given = json!({"cty": 1});
    let found = pipeline.params_problems(given.as_object().expect("an object"));
    assert_eq!(
        found[0].to_string(),
        "/cty: the pipeline declares no parameter \"cty\". Did you mean \"city\"?"
    );
}

const PAGE: &str = include_str!("../../../../docs/pipelines.md");

#[test]
fn every_example_of_the_page_for_users_is_a_good_pipeline() {
    let examples: Vec<_> =
        PAGE.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        load(&serde_json::from_str(example).expect("an example is JSON"));
    }
}

#[test]
fn the_page_for_users_names_every_filter_and_function() {
    for name in expr::vocabulary() {
        let is_named = PAGE.contains(&format!("`{name}`"))
            || PAGE.contains(&format!("`{name}("))
            || PAGE.contains(&format!("`is {name}("));
        assert!(is_named, "{name}");
    }
}

#[test]
fn it_is_known_what_expressions_read_and_words_in_texts_do_not_count() {
    let pipeline = load(&json!({"pipeline": [
        {"id": "one", "uses": "test.echo", "with": {"text": "the last steps", "of": "${run.id}"},
         "on_error": [{"id": "two", "uses": "test.echo", "if": "${last is none}"}]},
    ]}));

    let read: Vec<_> = expr::ROOTS.iter().filter(|root| pipeline.reads(root)).collect();

    assert_eq!(read, [&"run", &"last"]);
}

//! A year in the life of a few tasks, with everything that happens to schedulers: outages, pauses,
//! edits, snoozes, backfills, two schedulers at once, and a clock that jumps.
//!
//! An independent account is kept of which schedule was in force when. At the end every nominal time
//! of the year is in the ledger exactly once, and none has been fired twice.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use orchestrator_boot::Service;
use orchestrator_engine::clock::Clock as _;
use orchestrator_engine::id::TaskId;
use orchestrator_engine::schedule::{Schedule, ScheduleSpec};
use orchestrator_engine::store::{process, task};
use orchestrator_scheduler::fire::Firing;
use orchestrator_testkit::{ADMIN_KEY, FakeTools, Running, TestApp};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

const BEGIN: &str = "2026-01-15T10:20:30Z";
const END: &str = "2027-01-15T00:00:00Z";

const SCHEDULES: [(&str, &str); 9] = [
    ("cron", "15 * * * *"),
    ("cron", "30 2 * * *"),
    ("cron", "0 9,17 * * MON-FRI"),
    ("rrule", "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,SU;BYHOUR=2;BYMINUTE=15"),
    ("rrule", "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=18"),
    ("rrule", "FREQ=HOURLY;INTERVAL=5"),
    ("rrule", "FREQ=DAILY;BYHOUR=1,2,3;BYMINUTE=0,30"),
    ("interval", "PT7H"),
    ("interval", "P1D"),
];
const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];

/// What was in force from when on.
struct Known {
    id: TaskId,
    created_at: DateTime<Utc>,
    /// From after that instant on, this schedule.
    periods: Vec<(DateTime<Utc>, ScheduleSpec)>,
    paused: bool,
}

struct Year {
    app: TestApp,
    api: (Running, String),
    client: reqwest::Client,
    rng: SmallRng,
    tasks: Vec<Known>,
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_year_of_trouble_every_time_has_one_disposition_and_none_fires_twice() {
    for seed in [5545, 8601, 9457] {
        live_through(seed).await;
    }
}

/// The same at length, for `make fuzz-time`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn through_many_years_of_trouble() {
    for seed in 10_000..10_060 {
        println!("seed {seed}");
        live_through(seed).await;
    }
}

async fn live_through(seed: u64) {
    let mut year = Year::begin(seed).await;
    let schedulers = [(); 2].map(|()| Firing::new(year.app.context(Service::Scheduler)));
    let [mut one, mut other] = schedulers;
    let end: DateTime<Utc> = END.parse().unwrap();
    while year.app.clock.now() < end {
        year.advance();
        if year.rng.random_bool(0.8) {
            let (a, b) = tokio::join!(one.fire_due(), other.fire_due());
            a.unwrap();
            b.unwrap();
            year.note_runs().await;
        }
        year.meddle().await;
    }
    let end = year.settle(end).await;
    one.fire_due().await.unwrap();
    year.note_runs().await;
    year.check(seed, end).await;
    year.api.0.stop().await;
}

impl Year {
    async fn begin(seed: u64) -> Self {
        let app = TestApp::with(BEGIN, &[("API_RATE_LIMIT", "1000000")]).await;
        let mut conn = app.servers.pool.acquire().await.unwrap();
        process::offer_tools(&mut conn, &FakeTools::default().specs()).await.unwrap();
        sqlx::query("create table made (task_id uuid, nominal_at timestamptz, primary key (task_id, nominal_at))")
            .execute(&mut *conn)
            .await
            .unwrap();
        drop(conn);
        rustls::crypto::ring::default_provider().install_default().ok();
        let api = app.start_api().await;
        let rng = SmallRng::seed_from_u64(seed);
        let mut year = Self { app, api, client: reqwest::Client::new(), rng, tasks: Vec::new() };
        for _ in 0..8 {
            year.make().await;
        }
        year
    }

    /// Mostly hours, now and then weeks, now and then an hour back or forth.
    fn advance(&mut self) {
        let now = self.app.clock.now();
        let by = match self.rng.random_range(0..20) {
            0..3 => TimeDelta::hours(-1),
            3 => TimeDelta::hours(1),
            4 => TimeDelta::days(self.rng.random_range(1..20)),
            _ => TimeDelta::seconds(self.rng.random_range(1..100_000)),
        };
        self.app.clock.set(now + by);
    }

    async fn call(&self, method: reqwest::Method, path: &str, body: &Value) -> Value {
        let url = format!("{}/{path}", self.api.1);
        let request = self.client.request(method, url).bearer_auth(ADMIN_KEY);
        let answer = request
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path} {body}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    fn schedule(&mut self) -> Value {
        let (kind, expr) = self.any(&SCHEDULES);
        let excluded = self.app.clock.now().date_naive() + TimeDelta::days(9);
        json!({
            "schedule_kind": kind, "schedule_expr": expr, "timezone": self.any(&ZONES),
            "exclude": [excluded],
            "policy": {
                "overlap": self.any(&["skip", "allow", "queue_one", "queue_all", "cancel_running"]),
                "catch_up": self.any(&["none", "latest", "all"]),
                "catch_up_window_seconds": self.any(&[60, 3_600, 400_000]),
                "dst_gap": self.any(&["shift", "skip"]),
                "dst_fold": self.any(&["first", "last", "both"]),
            },
        })
    }

    fn any<T: Copy>(&mut self, among: &[T]) -> T {
        *among.choose(&mut self.rng).unwrap()
    }

    async fn make(&mut self) {
        let mut declared = self.schedule();
        declared["title"] = json!("a year");
        declared["payload"] = json!({"pipeline": [{"id": "one", "uses": "test.echo"}]});
        let made = self.call(reqwest::Method::POST, "tasks", &declared).await;
        let id: TaskId = made["id"].as_str().unwrap().parse().unwrap();
        let row = self.row(id).await;
        let periods = vec![(row.cursor_at, ScheduleSpec::from(&row.spec))];
        self.tasks.push(Known { id, created_at: row.created_at, periods, paused: false });
    }

    async fn row(&self, id: TaskId) -> task::TaskRow {
        let mut conn = self.app.servers.pool.acquire().await.unwrap();
        task::get(&mut conn, id).await.unwrap()
    }

    /// Does something to a task.
    async fn meddle(&mut self) {
        let index = self.rng.random_range(0..self.tasks.len());
        let (id, paused) = (self.tasks[index].id, self.tasks[index].paused);
        let now = self.app.clock.now();
        match self.rng.random_range(0..12) {
            0 | 1 if paused => {
                let body = json!({"skip_missed": self.rng.random_bool(0.3)});
                self.call(reqwest::Method::POST, &format!("tasks/{id}/resume"), &body).await;
                self.tasks[index].paused = false;
            }
            0 => {
                let body = json!({"reason": "a look"});
                self.call(reqwest::Method::POST, &format!("tasks/{id}/pause"), &body).await;
                self.tasks[index].paused = true;
            }
            2 => {
                let patch = self.schedule();
                self.call(reqwest::Method::PATCH, &format!("tasks/{id}"), &patch).await;
                let row = self.row(id).await;
                let spec = ScheduleSpec::from(&row.spec);
                // Only a change of the times starts them anew.
                if times(&spec) != times(&self.tasks[index].periods.last().unwrap().1) {
                    self.tasks[index].periods.push((row.cursor_at, spec));
                }
            }
            3 => {
                let title = json!({"title": format!("seen at {now}"), "priority": 3});
                self.call(reqwest::Method::PATCH, &format!("tasks/{id}"), &title).await;
            }
            4 if !paused => {
                let seconds = self.rng.random_range(60..100_000);
                let body = json!({"delay_seconds": seconds});
                self.call(reqwest::Method::POST, &format!("tasks/{id}/snooze"), &body).await;
            }
            5 => {
                let from = now - TimeDelta::seconds(self.rng.random_range(3_600..700_000));
                let body = json!({"from": from, "to": now});
                self.call(reqwest::Method::POST, &format!("tasks/{id}/backfill"), &body).await;
                self.note_runs().await;
            }
            _ => {}
        }
    }

    /// Notes which runs were made, each once, and lets most of them end.
    async fn note_runs(&mut self) {
        let mut conn = self.app.servers.pool.acquire().await.unwrap();
        let keep = i32::from(self.rng.random_bool(0.3));
        sqlx::query(
            "alter table due_work add column if not exists noted boolean not null default false",
        )
        .execute(&mut *conn)
        .await
        .unwrap();
        // The key refuses a second run of the same time.
        sqlx::query(
            "with new as (update due_work set noted = true where not noted returning task_id, nominal_at)
             insert into made select * from new",
        )
        .execute(&mut *conn)
        .await
        .unwrap();
        sqlx::query("delete from due_work where $1 = 0")
            .bind(keep)
            .execute(&mut *conn)
            .await
            .unwrap();
    }

    /// Everything goes its way at last.
    async fn settle(&mut self, end: DateTime<Utc>) -> DateTime<Utc> {
        let end = end.max(self.app.clock.now());
        self.app.clock.set(end);
        for index in 0..self.tasks.len() {
            let id = self.tasks[index].id;
            if self.tasks[index].paused {
                self.call(reqwest::Method::POST, &format!("tasks/{id}/resume"), &json!({})).await;
            }
        }
        sqlx::query("update task set snoozed_until = null, next_fire_at = cursor_at where status = 'active'")
            .execute(&self.app.servers.pool)
            .await
            .unwrap();
        end
    }

    async fn check(&self, seed: u64, end: DateTime<Utc>) {
        type Row = (DateTime<Utc>, String, Option<DateTime<Utc>>, i32);
        for known in &self.tasks {
            let what = format!("seed {seed}, task {}, {:?}", known.id, known.periods);
            let mut wanted = nominal_times(known, end);
            let rows: Vec<Row> = sqlx::query_as(
                "select nominal_at, disposition, until_at, count from occurrence
                 where task_id = $1 and nominal_at <= $2 order by nominal_at",
            )
            .bind(known.id)
            .bind(end)
            .fetch_all(&self.app.servers.pool)
            .await
            .unwrap();
            for (from, disposition, until, count) in rows {
                let until = until.unwrap_or(from);
                let held: Vec<_> =
                    wanted.range(from..=until).copied().filter(|at| *at <= end).collect();
                let whole = until <= end;
                // Made up for by a later schedule than that of the time.
                let foreign = disposition == "backfilled" && held.is_empty();
                assert!(
                    foreign
                        || !held.is_empty()
                            && (!whole || held.len() == usize::try_from(count).unwrap()),
                    "{disposition} from {from} to {until} counts {count}, but {held:?}: {what}"
                );
                for at in held {
                    wanted.remove(&at);
                }
            }
            assert!(wanted.is_empty(), "without disposition: {wanted:?}: {what}");
        }
        let unaccounted = "select count(*) from made m where not exists (
            select from occurrence o where o.task_id = m.task_id and o.nominal_at = m.nominal_at
              and o.disposition in ('fired', 'backfilled', 'skipped_overlap'))";
        assert_eq!(self.app.count(unaccounted).await, 0, "seed {seed}");
        assert!(self.app.count("select count(*) from made").await > 100, "seed {seed}");
    }
}

fn times(spec: &ScheduleSpec) -> Value {
    let mut spec = serde_json::to_value(spec).unwrap();
    for policy in ["overlap", "catch_up", "catch_up_window_seconds"] {
        spec["policy"][policy] = Value::Null;
    }
    spec
}

/// Every time that the schedules named while they were in force.
fn nominal_times(known: &Known, end: DateTime<Utc>) -> BTreeSet<DateTime<Utc>> {
    let ends = known.periods.iter().skip(1).map(|(from, _)| *from).chain([end]);
    let mut wanted = BTreeSet::new();
    for ((from, spec), to) in known.periods.iter().zip(ends) {
        let schedule = Schedule::compile(spec, known.created_at).unwrap();
        let first = schedule.next_after(*from);
        let all = std::iter::successors(first, |nominal| schedule.next_after(nominal.at));
        wanted.extend(all.take_while(|nominal| nominal.at <= to).map(|nominal| nominal.at));
    }
    wanted
}

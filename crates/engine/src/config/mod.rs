//! Settings: everything a person can set, read once at the start from the environment.
//!
//! There is no settings file: compose and Kubernetes speak environment. [`Env`] is the only door
//! (tests bring their own map); every section adds what is wrong to [`Problems`], so that a person
//! sees all mistakes at once. What a setting is called, what it means, its unit and its default
//! stand in [`SETTINGS`], from which `--help` and `.env.example` are made.
//!
//! To add a setting: a row in [`SETTINGS`] (`table.rs`), a field in its section (`sections.rs`) read
//! through [`Env`], and `make env-example` (a test compares). Reading a name that has no row panics
//! in tests.

mod allow;
mod env;
mod secret;
mod sections;
mod table;

use std::collections::BTreeMap;

pub use allow::{AllowList, AllowListError};
pub use env::{Env, Problems};
pub use secret::Secret;
pub use sections::{
    Api, Database, LlmSettings, Log, LogFormat, LogLevel, Redis, Scheduler, ToolSettings, Tracing,
    Worker,
};
pub use table::{SETTINGS, SettingDoc, env_example, help};

crate::text_enum! {
    /// The programs that read settings.
    Service {
        /// `orchestrator-api`.
        Api = "api",
        /// `orchestrator-scheduler`.
        Scheduler = "scheduler",
        /// `orchestrator-worker`.
        Worker = "worker",
        /// `orchestrator`, the command line, whose `dev` is all three in one process.
        Cli = "cli",
    }
}

impl Service {
    /// The name of its program.
    #[must_use]
    pub const fn binary(self) -> &'static str {
        match self {
            Self::Api => "orchestrator-api",
            Self::Scheduler => "orchestrator-scheduler",
            Self::Worker => "orchestrator-worker",
            Self::Cli => "orchestrator",
        }
    }
}

/// The largest request body, in bytes, where [`Settings::run_data_max_bytes`] asks for no more. A
/// pipeline of the greatest size allowed fits several times.
pub const BODY_MAX_BYTES: usize = 1024 * 1024;
/// What [`Settings::run_data_max_bytes`] can be. SQL relies on its least
/// (`check_new_params` in `migrations/`).
pub const RUN_DATA_RANGE: std::ops::RangeInclusive<usize> = 16 * 1024..=16 * 1024 * 1024;

/// All settings of a process. Every service reads all of them: a mistake in any is found by each.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where Postgres is.
    pub database: Database,
    /// Where Redis is, if anywhere.
    pub redis: Redis,
    /// What is logged, and how.
    pub log: Log,
    /// Where traces are sent; `None`: nowhere.
    pub tracing: Option<Tracing>,
    /// The REST service.
    pub api: Api,
    /// The scheduler.
    pub scheduler: Scheduler,
    /// The worker.
    pub worker: Worker,
    /// What the tools need.
    pub tools: ToolSettings,
    /// `DEFAULT_TIMEZONE`: the zone of tasks that name none.
    pub default_timezone: chrono_tz::Tz,
    /// `RETENTION_DAYS`: how long finished runs, events and skipped occurrences are kept. 1 to 3650.
    pub retention_days: u16,
    /// `RUN_DATA_MAX_BYTES`: the largest params, event, step input, step output or output of a run, in
    /// bytes of JSON. 16 KiB to 16 MiB, default 1 MiB.
    pub run_data_max_bytes: usize,
    /// `ENABLE_METRICS`: whether `/metrics` answers.
    pub enable_metrics: bool,
    /// `SECRET_<NAME>`: what pipelines may use as `secrets.<NAME>`.
    pub secrets: BTreeMap<String, Secret>,
    /// Names in the environment that look like a slip of a setting's name, and settings that nothing
    /// uses yet, each as a sentence.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads and checks every setting.
    ///
    /// # Errors
    ///
    /// All [`Problems`] at once, each a sentence that names the variable, what was given (never for
    /// secrets) and what would be right.
    pub fn read(env: &Env) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let settings = Self {
            database: Database::read(env, &mut problems),
            redis: Redis::read(env, &mut problems),
            log: Log::read(env, &mut problems),
            tracing: Tracing::read(env, &mut problems),
            api: Api::read(env, &mut problems),
            scheduler: Scheduler::read(env, &mut problems),
            worker: Worker::read(env, &mut problems),
            tools: ToolSettings::read(env, &mut problems),
            default_timezone: sections::default_timezone(env, &mut problems),
            retention_days: env.number("RETENTION_DAYS", 30, 1..=3650, &mut problems),
            run_data_max_bytes: env.number(
                "RUN_DATA_MAX_BYTES",
                1024 * 1024,
                RUN_DATA_RANGE,
                &mut problems,
            ),
            enable_metrics: env.flag("ENABLE_METRICS", true, &mut problems),
            secrets: env.pipeline_secrets(&mut problems),
            warnings: env.likely_slips().into_iter().chain(unused(env)).collect(),
        };
        env.refuse_unknown(&mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }
}

/// A sentence for each setting that is given although nothing uses it yet.
fn unused(env: &Env) -> impl Iterator<Item = String> + '_ {
    const UNUSED: &[&str] = &["TOOL_CATALOG", "SMTP_URL", "SMTP_URL_FILE"];
    UNUSED
        .iter()
        .filter(|name| env.raw(name).is_some_and(|value| !value.is_empty()))
        .map(|name| format!("{name} is set, but nothing uses it yet: there is no tool for it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://u:hunter2@localhost/db");

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, Problems> {
        Settings::read(&Env::from_pairs(pairs.iter().copied()))
    }

    #[test]
    fn nothing_but_the_database_must_be_set() {
        let settings = read(&[DATABASE]).unwrap();

        assert_eq!(settings.api.port, 8080);
        assert_eq!(settings.worker.concurrency, 5);
        assert_eq!((settings.scheduler.metrics_port, settings.worker.metrics_port), (9101, 9102));
        assert_eq!(settings.default_timezone, chrono_tz::UTC);
        assert_eq!(settings.redis.url, None);
    }

    #[test]
    fn all_problems_are_told_at_once_with_what_was_given() {
        let problems = read(&[
            ("WORKER_CONCURRENCY", "51"),
            ("LOG_LEVEL", "LOUD"),
            ("DEFAULT_TIMEZONE", "Europe/Berln"),
            ("ENABLE_METRICS", "maybe"),
            ("SECRET_lower", "x"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_TRACES_SAMPLER_ARG", "10"),
            ("ORCHESTRATOR_URI", "http://x"),
            ("SCHEDULER_INTERVAL", "soon"),
        ])
        .unwrap_err();

        insta::assert_snapshot!(problems, @r#"
        DATABASE_URL is not set; it is postgres://user:password@host:5432/database
        LOG_LEVEL: "LOUD" is not one of DEBUG, INFO, WARNING, ERROR
        OTEL_EXPORTER_OTLP_ENDPOINT: does not begin with http:// or https://
        OTEL_TRACES_SAMPLER_ARG: 10 is not a number from 0 to 1
        SCHEDULER_INTERVAL: "soon" is not a whole number from 1 to 300
        WORKER_CONCURRENCY: "51" is not a whole number from 1 to 50
        DEFAULT_TIMEZONE: "Europe/Berln" is not a zone of the IANA database, such as Europe/Berlin; did you mean Europe/Berlin?
        ENABLE_METRICS: "maybe" is not true or false
        SECRET_lower: the name of a secret is capital letters, digits and _, as in SECRET_MAIL_TOKEN
        ORCHESTRATOR_URI is not a setting; did you mean ORCHESTRATOR_URL?
        "#);
    }

    #[test]
    fn what_the_scripts_read_may_stand_in_the_environment() {
        let read =
            read(&[DATABASE, ("ORCHESTRATOR_VERSION", "1.4.0"), ("ORCHESTRATOR_MODE", "prod")]);

        assert!(read.is_ok());
    }

    #[test]
    fn proxies_are_named_one_by_one_and_never_everybody() {
        let trusted = |value| read(&[DATABASE, ("TRUSTED_PROXIES", value)]);
        let settings = trusted("10.1.2.3, 192.0.2.0/24,2001:db8::/32").unwrap();
        let private = trusted("private").unwrap().api.trusted_proxies;
        let problems = trusted("0.0.0.0/0, ::/0, nginx").unwrap_err().to_string();

        let nets: Vec<_> = settings.api.trusted_proxies.iter().map(ToString::to_string).collect();
        assert_eq!(nets, ["10.1.2.3/32", "192.0.2.0/24", "2001:db8::/32"]);
        assert_eq!(private.len(), 7);
        assert_eq!(problems.lines().count(), 3, "{problems}");
    }

    #[test]
    fn a_secret_is_never_quoted() {
        let problems =
            read(&[("DATABASE_URL", "mysql://u:hunter2@h/d"), ("SMTP_URL", "ftp://u:hunter2@h")])
                .unwrap_err();
        let settings = read(&[
            DATABASE,
            ("LLM_API_KEY", "hunter2"),
            ("ADMIN_API_KEY", "hunter2-hunter2-hunter2-hunter2-hunter2"),
            ("REDIS_URL", "redis://:hunter2@localhost"),
            ("SECRET_TOKEN", "hunter2"),
        ])
        .unwrap();

        assert!(!problems.to_string().contains("hunter2"), "{problems}");
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(settings.secrets["TOKEN"].expose(), "hunter2");
    }

    #[test]
    fn a_secret_may_stand_in_a_file_but_not_in_two_places() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "postgres://u@localhost/db\n").unwrap();
        let path = file.path().to_str().unwrap();

        let settings = read(&[("DATABASE_URL_FILE", path), ("SECRET_A_FILE", path)]).unwrap();
        let twice = read(&[DATABASE, ("DATABASE_URL_FILE", path)]).unwrap_err();
        let missing = read(&[("DATABASE_URL_FILE", "/nowhere/at/all")]).unwrap_err();

        assert_eq!(settings.database.url.expose(), "postgres://u@localhost/db");
        assert_eq!(settings.secrets["A"].expose(), "postgres://u@localhost/db");
        assert!(twice.to_string().contains("both set"), "{twice}");
        assert!(missing.to_string().contains("/nowhere/at/all"), "{missing}");
    }

    #[test]
    fn an_empty_value_counts_as_unset() {
        let settings = read(&[DATABASE, ("REDIS_URL", ""), ("API_PORT", " ")]).unwrap();

        assert_eq!((settings.redis.url, settings.api.port), (None, 8080));
    }

    #[test]
    fn debug_mode_logs_everything_unless_a_level_is_set() {
        let level = |pairs: &[(&str, &str)]| {
            read(&[&[DATABASE, ("DEBUG_MODE", "true")], pairs].concat()).unwrap().log.level
        };

        assert_eq!(level(&[]), LogLevel::Debug);
        assert_eq!(level(&[("LOG_LEVEL", "ERROR")]), LogLevel::Error);
    }

    #[test]
    fn a_slip_in_a_name_is_pointed_out() {
        let settings = read(&[DATABASE, ("WORKER_CONCURENCY", "9"), ("PATH", "/bin")]).unwrap();

        assert_eq!(
            settings.warnings,
            ["WORKER_CONCURENCY is not a setting; did you mean WORKER_CONCURRENCY?"]
        );
    }

    /// The table says a default; the code holds one; they are the same.
    #[test]
    fn every_documented_default_is_what_unset_means() {
        let unset = read(&[DATABASE]).unwrap();

        for setting in SETTINGS.iter().filter(|setting| !setting.default.is_empty()) {
            let given = read(&[DATABASE, (setting.name, setting.default)])
                .unwrap_or_else(|problems| panic!("{}: {problems}", setting.name));
            assert_eq!(given, unset, "{}", setting.name);
        }
    }

    #[test]
    fn every_documented_setting_is_read() {
        let env = Env::from_pairs([DATABASE]);
        drop(Settings::read(&env));

        let read = env.asked();
        let unread: Vec<_> = SETTINGS
            .iter()
            .map(|setting| setting.name)
            .filter(|name| !name.starts_with("ORCHESTRATOR_") && !read.contains(name))
            .collect();
        assert!(unread.is_empty(), "documented but never read: {unread:?}");
    }
}

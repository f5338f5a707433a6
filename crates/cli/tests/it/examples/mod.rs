//! The task files of `examples/` as they are: applied by the real command line, fired by their
//! schedules with a clock that the test moves, done with the real tools. Only addresses are changed.

mod briefing;
mod small;
mod world;

use std::path::{Path, PathBuf};

use orchestrator_testkit::{ADMIN_KEY, Running, TestApp};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use world::World;

/// The folder of the examples.
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");

/// Everything that runs a task, and the world outside.
struct System {
    app: TestApp,
    world: World,
    url: String,
    folder: TempDir,
    services: Vec<Running>,
}

impl System {
    /// Services at `now` with the built-in tools, which may reach the world.
    async fn at(now: &str) -> Self {
        Self::with(now, World::begin().await, &[]).await
    }

    /// The same with settings.
    async fn with(now: &str, world: World, settings: &[(&str, &str)]) -> Self {
        // The real tools speak TLS; a process of ours does this when it starts.
        drop(rustls::crypto::ring::default_provider().install_default());
        // By the database's clock, the days of these tests are long past: nothing is to be pruned.
        let mut all = vec![
            ("HTTP_ALLOW_PRIVATE", "127.0.0.1"),
            ("SCHEDULER_INTERVAL", "1"),
            ("RETENTION_DAYS", "3650"),
        ];
        all.extend_from_slice(settings);
        let app = TestApp::with(now, &all).await;
        let worker = app.start_worker_with_own_tools().await;
        let scheduler = app.start_scheduler();
        let (api, url) = app.start_api().await;
        let folder = tempfile::tempdir().unwrap();
        Self { app, world, url, folder, services: vec![scheduler, worker, api] }
    }

    /// What the command line prints, and its exit code.
    async fn command(&self, args: &[&str]) -> (String, Option<i32>) {
        let done = tokio::process::Command::new(env!("CARGO_BIN_EXE_orchestrator"))
            .args(args)
            .env("ORCHESTRATOR_URL", &self.url)
            .env("ORCHESTRATOR_API_KEY", ADMIN_KEY)
            .output()
            .await
            .unwrap();
        let said = [done.stdout, done.stderr].concat();
        (String::from_utf8_lossy(&said).into_owned(), done.status.code())
    }

    /// The same, where it must succeed.
    async fn say(&self, args: &[&str]) -> String {
        let (said, code) = self.command(args).await;
        assert_eq!(code, Some(0), "orchestrator {args:?}: {said}");
        said
    }

    /// Applies an example whose parameters have these values.
    async fn apply(&self, name: &str, params: Value) {
        let mut task = example(name);
        for (param, value) in params.as_object().unwrap() {
            let place = &mut task["payload"]["params"][param];
            assert!(!place.is_null(), "{name} declares no parameter {param}");
            *place = value.clone();
        }
        let file = self.folder.path().join(format!("{name}.json"));
        std::fs::write(&file, task.to_string()).unwrap();
        self.say(&["apply", "-f", file.to_str().unwrap()]).await;
    }

    async fn get(&self, path: &str) -> Value {
        let asked = reqwest::Client::new().get(format!("{}/{path}", self.url));
        let answer = asked.bearer_auth(ADMIN_KEY).send().await.unwrap();
        let (status, said) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{path}: {said}");
        serde_json::from_str(&said).unwrap()
    }

    /// The runs of a task, the newest first, with their steps; waits until `count` have ended.
    async fn runs(&self, count: i64) -> Vec<Value> {
        self.app.until("select count(*) from run where finished_at is not null", count).await;
        let listed = self.get("runs").await;
        let mut runs = Vec::new();
        for run in listed["items"].as_array().unwrap() {
            runs.push(self.get(&format!("runs/{}", run["id"].as_str().unwrap())).await);
        }
        runs
    }

    async fn end(self) {
        self.app.check_invariants().await;
        for service in self.services {
            service.stop().await;
        }
    }
}

/// An example as JSON.
fn example(name: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(EXAMPLES).join(format!("{name}.yaml"))).unwrap();
    let document = serde_norway::Deserializer::from_str(&text).next().unwrap();
    Value::deserialize(document).unwrap()
}

/// The names of all task files, sorted.
fn names() -> Vec<String> {
    let files = std::fs::read_dir(EXAMPLES).unwrap().map(|entry| entry.unwrap().path());
    let tasks = files.filter(|path| path.extension().is_some_and(|kind| kind == "yaml"));
    let mut names: Vec<_> =
        tasks.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

/// The Python of the environment with the MCP servers.
fn python() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.orchestrator/venv");
    #[expect(clippy::disallowed_methods, reason = "tests have no settings")]
    let venv = std::env::var_os("TEST_VENV").map_or_else(|| default.into(), PathBuf::from);
    let program = venv.join("bin/python");
    assert!(program.exists(), "run ops/scripts/tools-venv.sh first: it makes {}", venv.display());
    program
}

/// A file for `MCP_CONFIG`: the time server, as `make run` names it.
fn mcp_config() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let time = json!({"command": python(), "args": ["-m", "mcp_server_time"]});
    std::fs::write(file.path(), json!({"mcpServers": {"time": time}}).to_string()).unwrap();
    file
}

#[tokio::test]
async fn the_folder_is_applied_as_it_is_and_a_second_time_changes_nothing() {
    let config = mcp_config();
    let settings = [("MCP_CONFIG", config.path().to_str().unwrap())];
    let system = System::with("2026-03-27T12:01:00Z", World::begin().await, &settings).await;
    system.until_time_is_there().await;
    let count = names().len();

    let first = system.say(&["apply", "-f", EXAMPLES]).await;
    let second = system.say(&["apply", "-f", EXAMPLES]).await;

    assert!(first.ends_with(&format!("{count} created\n")), "{first}");
    assert!(second.ends_with(&format!("{count} unchanged\n")), "{second}");
    for name in names() {
        let task = system.get(&format!("tasks/{name}")).await;
        assert_eq!(task["name"], name, "the file and the task have one name");
    }
    system.end().await;
}

#[tokio::test]
async fn the_page_names_every_example_and_the_servers_file_is_read() {
    let page = std::fs::read_to_string(Path::new(EXAMPLES).join("README.md")).unwrap();
    for name in names() {
        assert!(page.contains(&format!("{name}.yaml")), "{name}");
    }

    let config = Path::new(EXAMPLES).join("mcp/mcp.json");
    let servers = orchestrator_tools::mcp::config::read(&config).await.unwrap();

    assert_eq!(servers.iter().map(|server| &server.name[..]).collect::<Vec<_>>(), ["time"]);
}

impl System {
    /// Waits for the MCP server, which may take longer than the worker waits for it.
    async fn until_time_is_there(&self) {
        let known = "select count(*) from tool where address = 'time.get_current_time'";
        self.app.until(known, 1).await;
    }
}

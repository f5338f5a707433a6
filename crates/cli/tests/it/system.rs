//! A folder to call the binary in, and a whole system of its own that runs in one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use orchestrator_engine::config::Env;
use orchestrator_testkit::TestServers;
use serde_json::Value;
use tempfile::TempDir;

/// The first administrator's key in every test.
pub const ADMIN_KEY: &str = "orc_the_key_of_the_administrator_of_a_test";

/// What a call came to.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// What was written to standard output.
    #[track_caller]
    pub fn expect(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.out
    }

    /// What was written to standard error.
    #[track_caller]
    pub fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }

    /// What was written to standard output, as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// A folder in which the binary is called.
pub struct Place {
    pub folder: TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder can be made"), settings: Vec::new() }
    }

    /// The same with a setting in the environment.
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.settings.push((name, value.to_owned()));
        self
    }

    /// Writes a file.
    pub fn file(&self, name: &str, content: &str) {
        let path = self.folder.path().join(name);
        let folder = path.parent().expect("it stands in the folder");
        std::fs::create_dir_all(folder).expect("folders can be made");
        std::fs::write(path, content).expect("files can be written");
    }

    /// The binary, to be started in the folder.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
        command.current_dir(self.folder.path()).env_clear().env("TZ", "UTC");
        if let Some(path) = Env::from_process().raw("PATH") {
            command.env("PATH", path);
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Calls the binary.
    pub fn call(&self, args: &[&str]) -> Said {
        self.call_with_input(args, "")
    }

    /// Calls the binary, writing to its standard input.
    pub fn call_with_input(&self, args: &[&str], input: &str) -> Said {
        let mut child = self
            .command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        // Whoever does not read its input closes it.
        drop(child.stdin.take().expect("it is piped").write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("it ends");
        Said {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).expect("it writes text"),
            err: String::from_utf8(output.stderr).expect("it writes text"),
        }
    }
}

/// Everything in one process, on databases of its own, and the folder it was started in.
pub struct System {
    pub place: Place,
    pub servers: TestServers,
    process: Child,
}

impl System {
    /// A system that is ready.
    pub async fn start() -> Self {
        let servers = TestServers::fresh().await;
        let place = Place::new();
        let port = free_port();
        let mut process = place
            .command()
            .args(["dev", "--port", &port.to_string()])
            .env("DATABASE_URL", &servers.database_url)
            .env("REDIS_URL", &servers.redis_url)
            .env("ADMIN_API_KEY", ADMIN_KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut ready = lines.map_while(Result::ok).skip_while(|line| line != "Ready.");
        assert!(ready.next().is_some(), "the system ended before it was ready");
        // What it says later must not fill the pipe.
        std::thread::spawn(move || ready.for_each(drop));
        Self { place, servers, process }
    }

    /// The folder, and in it everything that the system keeps there.
    pub fn data_dir(&self) -> std::path::PathBuf {
        self.place.folder.path().join(".orchestrator")
    }
}

impl Drop for System {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

/// The words of each line.
pub fn words(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

/// Whether only its owner may look into it.
pub fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = path.metadata().expect("it is there").permissions().mode();
    mode.is_multiple_of(0o100)
}

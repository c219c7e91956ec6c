//! One node: a process that runs `starfish up`, and the commands that are given to it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::http::Request;
use crate::leash::Leash;
use crate::process;
use crate::program::{starfish, starfish_within};
use crate::running::{Output, Running};
use crate::wait::{wait_for, wait_until};

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct Start {
    ticket: Option<String>,
    environment: Vec<(String, String)>,
    /// The network namespace that it runs in, if not this one.
    namespace: Option<String>,
}

/// One node, running or not. Its folder lasts as long as its swarm.
#[derive(Debug)]
pub struct Node {
    name: String,
    /// Where its data folder and its log are.
    home: PathBuf,
    start: Start,
    life: Mutex<Option<Life>>,
    /// What `status` said when it was ready for the last time; it is known by that while it is down, too.
    status: Mutex<Value>,
}

/// A node's process. Dropping it kills it and all that it started.
#[derive(Debug)]
struct Life {
    child: Child,
    leash: Option<Leash>,
}

impl Start {
    /// It becomes a member with this ticket.
    #[must_use]
    pub fn with_ticket(mut self, ticket: impl Into<String>) -> Self {
        self.ticket = Some(ticket.into());
        self
    }

    /// It has this variable in its environment.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// It runs in this network namespace. Commands reach it all the same: they go over a socket in its folder.
    #[must_use]
    pub fn with_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// It runs so many tasks at once; with 0 it only submits.
    #[must_use]
    pub fn with_slots(self, slots: u32) -> Self {
        self.with_env("STARFISH_SLOTS", &slots.to_string())
    }

    pub(crate) fn has_ticket(&self) -> bool {
        self.ticket.is_some()
    }
}

/// What is asked of it.
impl Node {
    /// Starts `starfish WORDS` on this node, and does not wait for its end.
    #[track_caller]
    pub fn spawn<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Running {
        let mut command = starfish(&self.home);
        command.arg("--data-dir").arg(self.data_dir());
        let mut what = format!("starfish@{}", self.name);
        for word in words {
            what = format!("{what} {}", word.as_ref().display());
            command.arg(word);
        }
        Running::start(command, what)
    }

    /// Runs `starfish WORDS` on this node to its end, its standard output going to the file (or device) at `path`; gives
    /// the exit code.
    #[track_caller]
    pub fn run_into(&self, path: &str, words: &[&str]) -> Option<i32> {
        let file = File::options().write(true).open(path).expect("the test names a file that is there");
        let mut command = starfish(&self.home);
        command.arg("--data-dir").arg(self.data_dir()).args(words);
        command.stdin(Stdio::null()).stdout(file).stderr(Stdio::null());
        command.status().expect("the program can be run").code()
    }

    /// Runs `starfish WORDS` on this node to its end.
    #[track_caller]
    pub fn run<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Output {
        self.spawn(words).finish()
    }

    /// The same with standard input.
    #[track_caller]
    pub fn feed<W>(&self, words: impl IntoIterator<Item = W>, input: impl Into<Vec<u8>>) -> Output
    where
        W: AsRef<OsStr>,
    {
        self.spawn(words).fed(input).finish()
    }

    /// The same as [`Node::run`], where only success will do; gives what was printed.
    #[track_caller]
    pub fn ok<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> String {
        self.run(words).ok()
    }

    /// The same with `--json`.
    #[track_caller]
    pub fn json<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Value {
        let words = words.into_iter().map(|word| word.as_ref().to_owned());
        let text = self.ok(words.chain(["--json".into()]));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
    }

    /// A request to its HTTP API, with all that the API asks of a friend.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str) -> Request {
        let token = fs::read_to_string(self.data_dir().join("api.token")).expect("a node has a token");
        let address = self.api_address();
        Request::new(method, address, path)
            .with("Host", &address.to_string())
            .with("Authorization", &format!("Bearer {}", token.trim()))
    }

    /// A ticket into its swarm.
    #[track_caller]
    pub fn invite(&self) -> String {
        self.ok(["invite", "--quiet"]).trim().to_owned()
    }

    /// Whether it has a connection to the member `id` now.
    #[track_caller]
    pub fn is_connected_to(&self, id: &str) -> bool {
        let peers = self.json(["peers"]);
        let mut peers = peers.as_array().expect("`peers --json` prints an array").iter();
        peers.any(|peer| peer["id"] == id && peer["connected"] == true)
    }
}

/// Its life.
impl Node {
    /// A node that has not been started, in the folder `home`.
    pub(crate) fn new(name: String, home: PathBuf, start: Start) -> Self {
        Self { name, home, start, life: Mutex::default(), status: Mutex::default() }
    }

    /// Starts it and waits until it is ready. Not for the first time, it has no ticket any more, and the port that
    /// it had.
    ///
    /// # Panics
    /// If it ends instead.
    #[track_caller]
    pub fn restart(&self) {
        let mut life = lock(&self.life);
        assert!(life.is_none(), "{} is running", self.name);
        let mut started = self.up();
        let pid = started.child.id();
        let ready = wait_for(&format!("{} is ready", self.name), || {
            let ended = started.child.try_wait().expect("a child can be waited for");
            assert!(ended.is_none(), "{} ended at its start ({ended:?}):\n{}", self.name, self.logs());
            let status = self.run(["status", "--json"]);
            let status: Value = serde_json::from_slice(&status.stdout).ok()?;
            (status["pid"] == pid).then_some(status)
        });
        *lock(&self.status) = ready;
        *life = Some(started);
    }

    fn up(&self) -> Life {
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.expect("a log can be written");
        let errors = log.try_clone().expect("a file has more than one descriptor");
        let mut command = match &self.start.namespace {
            None => starfish(&self.home),
            Some(namespace) => starfish_within(namespace, &self.home),
        };
        command.arg("--data-dir").arg(self.data_dir()).args(["up", "--api-port", "0", "--port"]);
        match (self.status_or_null("port"), &self.start.ticket) {
            (Value::Null, None) => command.arg("0"),
            (Value::Null, Some(ticket)) => command.args(["0", "--join", ticket]),
            (port, _) => command.arg(port.to_string()),
        };
        command.envs(self.start.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", self.name));
        let leash = Leash::tie(child.id()).expect("there is a shell that holds the leash");
        Life { child, leash: Some(leash) }
    }

    /// `kill -9`: the node has no time for anything. Waits until its workers, whom nobody kills, are gone as well.
    #[track_caller]
    pub fn kill9(&self) {
        let mut life = self.take_life();
        life.child.kill().expect("a child can be killed");
        life.child.wait().expect("a child can be waited for");
        life.wait_deserted();
    }

    /// SIGTERM: the node stops in order. Gives its exit code and how long that took.
    #[track_caller]
    pub fn terminate(&self) -> (i32, Duration) {
        let begun = Instant::now();
        if let Some(life) = &*lock(&self.life) {
            process::send(life.child.id(), Signal::TERM);
        }
        let code = self.ended();
        (code, begun.elapsed())
    }

    /// Waits for the end of a node that was told to end, and of all that it had started; gives its exit code.
    #[track_caller]
    pub fn ended(&self) -> i32 {
        let mut life = self.take_life();
        let status = wait_for(&format!("{} has ended", self.name), || {
            life.child.try_wait().expect("a child can be waited for")
        });
        life.wait_deserted();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
    }

    #[track_caller]
    fn take_life(&self) -> Life {
        lock(&self.life).take().unwrap_or_else(|| panic!("{} is not running", self.name))
    }

    /// Whether it was started and not ended by the test since.
    pub fn is_running(&self) -> bool {
        lock(&self.life).is_some()
    }
}

/// What is known about it.
impl Node {
    /// How it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who it is.
    #[track_caller]
    pub fn id(&self) -> String {
        self.status_or_null("peer").as_str().expect("a node says who it is").to_owned()
    }

    /// The swarm's port, UDP and TCP.
    #[track_caller]
    pub fn port(&self) -> u16 {
        let port = self.status_or_null("port").as_u64().and_then(|port| port.try_into().ok());
        port.expect("a node says its port")
    }

    /// Where its HTTP API listens.
    #[track_caller]
    pub fn api_address(&self) -> SocketAddr {
        let address = self.status_or_null("api");
        address.as_str().and_then(|address| address.parse().ok()).expect("a node says where its API is")
    }

    fn status_or_null(&self, field: &str) -> Value {
        lock(&self.status).get(field).cloned().unwrap_or_default()
    }

    /// Its data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.home.join("data")
    }

    /// All that it ever wrote to standard output and error.
    pub fn logs(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn log_path(&self) -> PathBuf {
        self.home.join("log")
    }

    /// The most memory that its process had resident so far, in bytes.
    #[track_caller]
    pub fn peak_memory(&self) -> u64 {
        let pid = lock(&self.life).as_ref().map(|life| life.child.id());
        pid.and_then(process::peak_resident_bytes).expect("the kernel knows the memory of a running node")
    }
}

impl Life {
    #[track_caller]
    fn wait_deserted(&self) {
        let group = self.child.id();
        wait_until("the workers of a node that has ended are gone", || process::members(group).is_empty());
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        drop(self.leash.take());
        // Dead by now.
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

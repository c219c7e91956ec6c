//! The port for Redis clients, with programs that people use: `redis-cli`, `redis-benchmark`, and the library `redis` for
//! Python. Where one is missing, its test says that it was skipped.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says why, in its helpers too"
)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use starfish_tests::{Node, Start, Swarm, wait_until};

/// What a program of the library does; it ends with an error if anything is not as it should be.
const PROGRAM: &str = r#"
import os, redis

for protocol in (2, 3):
    client = redis.Redis(
        port=int(os.environ["PORT"]), password=os.environ["PASSWORD"], protocol=protocol, client_name="worker"
    )
    assert client.ping() and client.client_getname() in ("worker", b"worker") and client.client_id() > 0
    assert client.set("text", "grün", ex=100, nx=True) and not client.set("text", "other", nx=True)
    assert client.get("text").decode() == "grün" and 0 < client.ttl("text") <= 100
    assert client.delete("text") == 1 and client.get("text") is None
    assert client.hset("hash", mapping={"a": 1, "b": 2}) == 2
    assert client.hgetall("hash") == {b"a": b"1", b"b": b"2"}, client.hgetall("hash")
    assert client.sadd("set", "x", "y") == 2 and client.smembers("set") == {b"x", b"y"}
    assert client.type("set") == b"set"
    pipeline = client.pipeline(transaction=False)
    for number in range(300):
        pipeline.set(f"key:{number}", number).incrby("sum", number).get(f"key:{number}")
    assert pipeline.execute()[-3:] == [True, 44850, b"299"]
    pipeline = client.pipeline(transaction=False)
    pipeline.set("a", "1").set("b", "2").set("a", "3").get("a").get("b").hset("h", "f", "1").set("h", "x").get("h")
    pipeline.get("nothing").set("c", "5").get("nothing").set("d", "6").get("nothing").delete("c", "d")
    pipeline.delete("a", "h").get("a").set("a", "4", ex=100).ttl("a").delete("a", "b")
    answers = pipeline.execute()
    assert answers[:3] == [True] * 3 and answers[3:8] == [b"3", b"2", 1, True, b"x"], answers
    assert answers[8:14] == [None, True, None, True, None, 2], "each answer has its place: " + str(answers)
    assert answers[14:17] == [2, None, True] and 0 < answers[17] <= 100, answers
    assert len(list(client.scan_iter("key:*", count=7))) == 300
    assert client.mget("key:7", "nothing") == [b"7", None]
    try:
        client.incr("hash")
        raise SystemExit("a hash was counted")
    except redis.ResponseError as error:
        assert "WRONGTYPE" in str(error) or "wrong kind" in str(error), error
    try:
        client.execute_command("FLUSHALL")
        raise SystemExit("all was deleted")
    except redis.ResponseError as error:
        assert "unknown command" in str(error), error
    listener = client.pubsub()
    listener.subscribe("channel")
    assert listener.get_message(timeout=30)["type"] == "subscribe"
    assert client.publish("channel", "hello") == 1
    assert listener.get_message(timeout=30)["data"] == b"hello"
    listener.close()
    big = bytes(range(256)) * 40960
    assert client.set("big", big) and client.get("big") == big and client.strlen("big") == len(big)
    assert client.append("big", "x") == len(big) + 1
    assert client.expire("big", 100) and client.persist("big") and client.ttl("big") == -1
    assert client.hset("hash", "big", big) == 1 and client.hget("hash", "big") == big
    assert client.hgetall("hash")[b"big"] == big
    pipeline = client.pipeline(transaction=False)
    for _ in range(3):
        pipeline.set("big", big).append("big", "x").get("big").set("big", "small").append("big", big[:17000])
    pipeline.strlen("big").set("big", "small").get("big")
    answers = pipeline.execute()
    assert answers[2] == big + b"x" and answers[-3:] == [17005, True, b"small"], [str(a)[:20] for a in answers]
    try:
        client.set("big", bytes((64 << 20) + 1))
        raise SystemExit("a value was too long")
    except redis.ResponseError as error:
        assert "67108864 are allowed" in str(error), error
    client.delete("hash", "set", "sum", "big", *client.keys("key:*"))
    assert client.dbsize() == 0
try:
    redis.Redis(port=int(os.environ["PORT"]), password="guess").ping()
    raise SystemExit("a guess was good enough")
except redis.AuthenticationError:
    pass
"#;

/// Two nodes, each with its port open.
struct Ports {
    swarm: Swarm,
    ports: [u16; 2],
}

impl Ports {
    fn open() -> Self {
        let ports = [free_port(), free_port()];
        // One of each kind.
        let start = |(port, sync): (u16, &str)| {
            let start = Start::default().with_env("STARFISH_MEMORY_REDIS", &port.to_string());
            start.with_env("STARFISH_MEMORY_REDIS_SYNC", sync)
        };
        let starts = [(ports[0], "always"), (ports[1], "everysec")].map(start);
        Self { swarm: Swarm::start_as(starts), ports }
    }

    fn node(&self, index: usize) -> &Node {
        self.swarm.node(index)
    }

    /// The program, at this node's port and with its password.
    fn program(&self, name: &str, node: usize) -> Command {
        let mut command = Command::new(name);
        command.args(["-h", "127.0.0.1", "-p", &self.ports[node].to_string()]);
        command.env("REDISCLI_AUTH", token(self.node(node)));
        command
    }

    /// What `redis-cli WORDS` says on this node.
    #[track_caller]
    fn ask(&self, node: usize, words: &[&str]) -> String {
        run(self.program("redis-cli", node).args(words)).trim_end().to_owned()
    }
}

/// A program that ends with its test.
struct Leashed(Child);

impl Drop for Leashed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nobody listens on, none of those that the system gives to connections: one of them might have it before the node.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let candidates = std::iter::repeat_with(|| {
        let number = std::process::id().wrapping_mul(7).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        20_000 + u16::try_from(number % 12_000).unwrap()
    });
    candidates.take(12_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

fn token(node: &Node) -> String {
    fs::read_to_string(node.data_dir().join("api.token")).unwrap().trim().to_owned()
}

/// Whether this works here; says so if it does not.
fn has(program: &str, words: &[&str]) -> bool {
    let found = Command::new(program).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        // Past the test runner, which keeps what passing tests print to itself.
        let _ = writeln!(io::stderr(), "skipped: `{program} {}` does not work here", words.join(" "));
    }
    found
}

/// Runs a program to its end, which must be a good one; gives what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    // Shown when the test fails.
    println!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn redis_cli_sees_what_others_wrote_elsewhere() {
    if !has("redis-cli", &["--version"]) {
        return;
    }
    let ports = Ports::open();
    assert_eq!(ports.ask(0, &["SET", "colour", "sea green"]), "OK");
    wait_until("the other node's port knows", || ports.ask(1, &["GET", "colour"]) == "sea green");
    assert_eq!(ports.node(0).ok(["mem", "get", "colour"]), "sea green\n");
    ports.node(1).ok(["mem", "set", "shape", "round"]);
    wait_until("the program's key is seen", || ports.ask(0, &["GET", "shape"]) == "round");

    assert_eq!(ports.ask(0, &["INCRBY", "visits", "3"]), "3");
    ports.ask(1, &["INCRBY", "visits", "4"]);
    for node in 0..2 {
        wait_until("what both counted adds up", || ports.ask(node, &["GET", "visits"]) == "7");
    }
    ports.ask(0, &["SADD", "friends", "ada"]);
    ports.ask(1, &["SADD", "friends", "bob"]);
    ports.ask(1, &["HSET", "user", "name", "ada"]);
    wait_until("members of both are there", || ports.ask(0, &["SMEMBERS", "friends"]) == "ada\nbob");
    wait_until("so are fields", || ports.ask(0, &["-3", "HGETALL", "user"]) == "name ada");
    assert!(ports.ask(0, &["NONSENSE"]).starts_with("ERR unknown command 'NONSENSE'"));
}

#[test]
fn a_subscriber_on_another_node_hears() {
    if !has("redis-cli", &["--version"]) {
        return;
    }
    let ports = Ports::open();
    let heard = ports.swarm.scratch().path("heard");
    fs::create_dir_all(ports.swarm.scratch().path(".")).unwrap();
    let mut listening = ports.program("redis-cli", 1);
    listening.args(["PSUBSCRIBE", "news.*"]).stdin(Stdio::null()).stdout(File::create(&heard).unwrap());
    let _listening = Leashed(listening.spawn().unwrap());
    let heard = || fs::read_to_string(&heard).unwrap();
    wait_until("it listens", || heard().contains("psubscribe"));
    // Gossip promises nothing, least of all before the nodes know who listens.
    wait_until("it hears", || {
        ports.ask(0, &["PUBLISH", "news.sea", "the tide is in"]);
        ports.ask(0, &["PUBLISH", "other", "noise"]);
        heard().contains("news.*\nnews.sea\nthe tide is in\n")
    });
    assert!(!heard().contains("noise"));
}

#[test]
fn redis_benchmark_finds_no_fault() {
    if !has("redis-benchmark", &["--version"]) {
        return;
    }
    let ports = Ports::open();
    for node in 0..2 {
        let password = token(ports.node(node));
        let mut benchmark = ports.program("redis-benchmark", node);
        benchmark.args(["-a", &password, "-n", "3000", "-r", "500", "-P", "16", "-e", "-q"]);
        benchmark.args(["-t", "ping,set,get,incr,sadd,hset,mset"]);
        let told = run(&mut benchmark);
        println!("{}", told.replace('\r', "\n"));
        assert!(told.contains("MSET") && !told.contains("Error"), "{told}");
    }
    wait_until("both nodes have all keys", || {
        let sizes = [0, 1].map(|node| ports.ask(node, &["DBSIZE"]));
        sizes[0] == sizes[1]
    });
}

#[test]
fn a_program_with_a_client_library_needs_no_change() {
    if !has("python3", &["-c", "import redis"]) {
        return;
    }
    let ports = Ports::open();
    let mut program = Command::new("python3");
    program.args(["-c", PROGRAM]).env("PORT", ports.ports[0].to_string());
    run(program.env("PASSWORD", token(ports.node(0))));
}

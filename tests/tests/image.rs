//! The container image: three locked-down containers on a private network are one swarm.
//!
//! The image is the target `prebuilt` of `docker/Dockerfile`, so nothing is pulled, and the containers find each other as
//! those of `docker/compose.yaml` do. Their network is internal: they reach each other and nothing else. This needs a
//! Docker engine and a static program, which `STARFISH_STATIC_BINARY` names (`.ci/run` builds it where there is an
//! engine); without the variable the test says that it was skipped.

#![expect(clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use starfish_tests::wait_until;

/// Names the program to put into the image.
const PROGRAM_ENV: &str = "STARFISH_STATIC_BINARY";
/// After this long `docker stop` kills; a node must not need it.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Where the founder leaves a ticket for the others.
const TICKET: &str = "/ticket/starfish";

#[test]
fn three_containers_without_root_or_capabilities_are_one_swarm() {
    let Some(program) = env::var_os(PROGRAM_ENV).map(PathBuf::from) else {
        // Past the test runner, which keeps what passing tests print to itself.
        let _ = writeln!(io::stderr(), "skipped: the image is not tested, {PROGRAM_ENV} names no program");
        return;
    };
    let engine = Engine::prepare(&program);
    // All at once: whoever joins waits for the ticket.
    let joining = format!("STARFISH_JOIN=@{TICKET}");
    let two = engine.start("two", &["--env", &joining], &[]);
    let three = engine.start("three", &["--env", &joining], &[]);
    let one = engine.start("one", &[], &["up", "--ticket-file", TICKET]);
    let all = [&one, &two, &three];

    for container in all {
        wait_until("each sees both others", || container.n_alive() == 2);
        wait_until("the engine finds it healthy", || container.is("{{.State.Health.Status}}", "healthy"));
    }

    one.starfish(&["put", "/starfish", "/program"], b"");
    assert!(
        three.starfish(&["cat", "/program"], b"") == fs::read(&program).expect("the program can be read"),
        "a file put in one container is not the same when read in another"
    );

    two.starfish(&["mem", "set", "colour", "orange"], b"");
    wait_until("a key set in one container is read in another", || {
        one.try_starfish(&["mem", "get", "colour"], b"").is_ok_and(|value| value == b"orange\n")
    });

    two.starfish(&["put", "-", "/upper.wasm"], &guest("upper"));
    let answer = one.starfish(&["run", "--on", &three.peer(), "/upper.wasm"], b"deep sea");
    assert_eq!(answer, b"DEEP SEA", "a task sent from one container runs in another's sandbox");

    one.stop();
    wait_until("the others notice", || two.n_alive() == 1 && three.n_alive() == 1);
    three.starfish(&["mem", "set", "colour", "violet"], b"");
    one.restart();
    wait_until("the founder is back and has heard", || {
        one.try_starfish(&["mem", "get", "colour"], b"").is_ok_and(|value| value == b"violet\n")
    });
    for container in all {
        container.stop();
    }

    // The ticket went with the last of them, and a member needs none.
    three.restart();
    wait_until("a member starts without a ticket", || three.is("{{.State.Health.Status}}", "healthy"));
    three.stop();
}

/// What a test has made in the engine, under one name. Dropping it removes all of it.
struct Engine {
    name: String,
}

/// One container.
struct Container {
    name: String,
}

impl Engine {
    /// Builds the image, and makes the private network and the volume for the ticket.
    fn prepare(program: &Path) -> Self {
        let engine = Self { name: format!("starfish-test-{}", id()) };
        let name = &engine.name;
        let context = tempfile::tempdir().expect("a folder can be made");
        fs::copy(program, context.path().join("starfish")).expect("the program can be copied");
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../docker/Dockerfile");
        let folder = context.path().to_str().expect("folders for temporary files have names in UTF-8");
        for command in [
            &["build", "--quiet", "--file", file, "--target", "prebuilt", "--tag", name, folder][..],
            &["network", "create", "--internal", name],
            &[
                "volume",
                "create",
                "--opt=type=tmpfs",
                "--opt=device=tmpfs",
                "--opt=o=uid=65532,mode=0700",
                name,
            ],
        ] {
            docker(command, b"").expect("the engine is ready");
        }
        engine
    }

    fn start(&self, name: &str, options: &[&str], command: &[&str]) -> Container {
        let container = Container { name: format!("{}-{name}", self.name) };
        let volume = format!("{}:/ticket", self.name);
        let mut words = vec!["run", "--detach", "--name", &container.name, "--network", &self.name];
        words.extend(["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]);
        // Found by the ticket alone, so that it is the ticket that is tested.
        words.extend(["--env", "STARFISH_MDNS=false", "--env", "STARFISH_UPNP=false"]);
        words.extend(["--health-interval", "1s", "--volume", &volume]);
        words.extend(options.iter().chain(&[self.name.as_str()]).chain(command));
        docker(&words, b"").expect("the container starts");
        container
    }

    fn containers(&self) -> [String; 3] {
        ["one", "two", "three"].map(|name| format!("{}-{name}", self.name))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let containers = self.containers();
        for container in containers.iter().filter(|_| thread::panicking()) {
            let logs = Command::new("docker").args(["logs", "--tail", "50", container]).output();
            let logs = logs.map(|logs| [logs.stdout, logs.stderr].concat()).unwrap_or_default();
            let _ = writeln!(io::stderr(), "--- {container}\n{}", String::from_utf8_lossy(&logs));
        }
        let [one, two, three] = &containers;
        for command in [
            &["rm", "--force", "--volumes", one, two, three][..],
            &["network", "rm", &self.name],
            &["volume", "rm", "--force", &self.name],
            &["image", "rm", "--force", &self.name],
        ] {
            // What was not made cannot be removed; the others still can.
            let _ = docker(command, b"");
        }
    }
}

impl Container {
    #[track_caller]
    fn starfish(&self, words: &[&str], input: &[u8]) -> Vec<u8> {
        self.try_starfish(words, input).unwrap_or_else(|error| panic!("in {}: {error}", self.name))
    }

    fn try_starfish(&self, words: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
        docker(&[&["exec", "--interactive", &self.name, "/starfish"], words].concat(), input)
    }

    /// How many other members it finds alive; none while it does not answer.
    fn n_alive(&self) -> usize {
        let peers = self.try_starfish(&["peers", "--json"], b"").unwrap_or_default();
        let peers: Vec<Value> = serde_json::from_slice(&peers).unwrap_or_default();
        peers.iter().filter(|peer| peer["alive"] == true).count()
    }

    fn peer(&self) -> String {
        String::from_utf8_lossy(&self.starfish(&["id"], b"")).trim().to_owned()
    }

    /// Whether the engine says this of it.
    fn is(&self, field: &str, value: &str) -> bool {
        docker(&["inspect", "--format", field, &self.name], b"")
            .is_ok_and(|answer| String::from_utf8_lossy(&answer).trim() == value)
    }

    #[track_caller]
    fn restart(&self) {
        docker(&["start", &self.name], b"").expect("a stopped container starts again");
    }

    /// Stops it as an engine does, and holds it to ending by itself, well.
    #[track_caller]
    fn stop(&self) {
        let start = Instant::now();
        docker(&["stop", &self.name], b"").expect("a container can be stopped");
        assert!(start.elapsed() < STOP_PATIENCE, "{} took {:?} to stop", self.name, start.elapsed());
        assert!(self.is("{{.State.ExitCode}}", "0"), "{} did not end well", self.name);
    }
}

/// A sample program of `compute`, in binary form.
fn guest(name: &str) -> Vec<u8> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../compute/samples").join(name).with_extension("wat");
    wat::parse_file(&path).unwrap_or_else(|error| panic!("{} is no program: {error}", path.display()))
}

/// Runs a command of the engine to its end, and gives what it printed, or what it said on failing.
fn docker(words: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let said = |error: io::Error| format!("docker {}: {error}", words.join(" "));
    let mut command = Command::new("docker");
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(said)?;
    // Who ends without reading is heard below.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input));
    let output = child.wait_with_output().map_err(said)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("docker {}: {}: {}", words.join(" "), output.status, String::from_utf8_lossy(&output.stderr)))
}

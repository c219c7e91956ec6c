//! Scripts over a tree in memory: what they print, what they come to, what they leave.

mod differential;
mod scripts;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fs::mem_vfs::MemVfs;
use super::fs::path::VfsPath;
use super::fs::vfs::Vfs;
use super::host::{ProgramCall, Programs, Verb, Verbs};
use super::io::{Input, Io, pipe};
use super::{Shell, ShellOptions, content};

/// What a script came to.
#[derive(Debug)]
struct Ran {
    stdout: String,
    stderr: String,
    status: i32,
}

/// A shell over a tree that lasts from script to script.
struct Fixture {
    vfs: Arc<dyn Vfs>,
    shell: Shell,
}

impl Fixture {
    /// A tree with `/bin/upper.wasm`, `/bin/env.wasm` and `/bin/exit.wasm`.
    async fn new() -> Self {
        let vfs: Arc<dyn Vfs> = Arc::new(MemVfs::new());
        let shell = Shell::new(ShellOptions {
            vfs: Arc::clone(&vfs),
            programs: Arc::new(FakePrograms),
            verbs: Arc::new(FakeVerbs(vec![Verb {
                name: "peers".into(),
                about: "List the other members".into(),
            }])),
            node_name: "test".into(),
            history: None,
        });
        let mut fixture = Self { vfs, shell };
        let made = fixture
            .run(r"mkdir /bin; for name in upper env exit; do printf '\x00asm' > /bin/$name.wasm; done")
            .await;
        assert_eq!(made.status, 0, "{made:?}");
        fixture
    }

    async fn run(&mut self, script: &str) -> Ran {
        self.run_with_input(script, "").await
    }

    async fn run_with_input(&mut self, script: &str, input: &str) -> Ran {
        self.run_over(script, input, false).await
    }

    /// Runs a script whose output somebody looks at.
    async fn run_at_terminal(&mut self, script: &str) -> Ran {
        self.run_over(script, "", true).await
    }

    /// Runs a script; one that does not end is a failure, not a hanging test.
    async fn run_over(&mut self, script: &str, input: &str, at_terminal: bool) -> Ran {
        let (stdout, mut read_stdout) = pipe();
        let (stderr, mut read_stderr) = pipe();
        let (stdout, stderr) = (stdout.at_terminal(at_terminal), stderr.at_terminal(at_terminal));
        let stdin = Input::new(std::io::Cursor::new(input.to_owned()));
        let (mut out, mut err) = (String::new(), String::new());
        let all = async {
            let io = Io { stdin, stdout, stderr };
            tokio::join!(
                self.shell.run_with(script, io),
                read_stdout.read_to_string(&mut out),
                read_stderr.read_to_string(&mut err)
            )
        };
        let (status, ..) = tokio::time::timeout(Duration::from_secs(20), all)
            .await
            .unwrap_or_else(|_| panic!("does not end: {script}"));
        Ran { stdout: out, stderr: err, status }
    }

    async fn content(&self, path: &str) -> String {
        let mut reader = content::open(&*self.vfs, &VfsPath::parse(path).unwrap()).await.unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        text
    }
}

/// Programs that do what their name says.
struct FakePrograms;

#[async_trait]
impl Programs for FakePrograms {
    async fn run(&self, mut call: ProgramCall) -> anyhow::Result<i32> {
        match call.program.name() {
            Some("upper.wasm") => {
                let mut buffer = [0; 4096];
                loop {
                    let read = call.stdin.read(&mut buffer).await?;
                    if read == 0 {
                        return Ok(0);
                    }
                    buffer[..read].make_ascii_uppercase();
                    call.stdout.write_all(&buffer[..read]).await?;
                }
            }
            Some("env.wasm") => {
                for (name, value) in call.env {
                    call.stdout.line(format!("{name}={value}")).await?;
                }
                Ok(0)
            }
            Some("exit.wasm") => {
                call.stderr.line(format!("leaving with {:?}", call.args)).await?;
                Ok(call.args[0].parse()?)
            }
            _ => anyhow::bail!("no node can run it"),
        }
    }
}

/// Verbs that say that they were called.
struct FakeVerbs(Vec<Verb>);

#[async_trait]
impl Verbs for FakeVerbs {
    fn list(&self) -> &[Verb] {
        &self.0
    }

    async fn run(&self, argv: Vec<String>, cwd: VfsPath, mut io: Io) -> i32 {
        io.stdout.line(format!("{argv:?} from {cwd}")).await.map_or(1, |()| 0)
    }
}

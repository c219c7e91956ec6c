//! A command of the program at work, and what is left of it at its end.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::process;
use crate::wait::PATIENCE;

/// Between two looks whether a command has ended; most take a few dozen milliseconds.
const PAUSE: Duration = Duration::from_millis(2);

/// What a command did.
#[derive(Clone, Debug)]
#[must_use]
pub struct Output {
    /// The words of the command.
    pub what: String,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
    /// Its exit code; of one that died of a signal 128 and the signal's number, as a shell has it.
    pub code: i32,
}

/// A command that has not ended yet, as far as is known. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    stdout: Collected,
    stderr: Collected,
    feeding: Option<JoinHandle<()>>,
}

/// What came out of one of its pipes so far.
#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reading: Option<JoinHandle<()>>,
}

impl Output {
    /// Standard output as text.
    #[track_caller]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.stdout).unwrap_or_else(|error| panic!("{}: {error} in the output", self.what))
    }

    /// Standard output, if the exit code is 0.
    ///
    /// # Panics
    /// If it is another, with what the command said.
    #[track_caller]
    pub fn ok(self) -> String {
        self.expect(0)
    }

    /// Standard output, if the exit code is this one.
    ///
    /// # Panics
    /// If it is another, with what the command said.
    #[track_caller]
    pub fn expect(self, code: i32) -> String {
        let Self { what, stderr, code: actual, .. } = &self;
        assert!(*actual == code, "`{what}` ended with {actual}, not with {code}; it said:\n{stderr}");
        self.text().to_owned()
    }
}

impl Running {
    /// Starts `command`, which is called `what` in messages.
    #[track_caller]
    pub(crate) fn start(mut command: Command, what: String) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start `{what}`: {error}"));
        let stdout = Collected::from(child.stdout.take());
        let stderr = Collected::from(child.stderr.take());
        Self { what, child, stdout, stderr, feeding: None }
    }

    /// Gives it `input` and the end of it, in the background.
    #[must_use]
    pub fn fed(mut self, input: impl Into<Vec<u8>>) -> Self {
        if let Some(mut stdin) = self.child.stdin.take() {
            let input = input.into();
            self.feeding = Some(thread::spawn(move || {
                // Who ends early need not read all of it.
                let _ = stdin.write_all(&input);
            }));
        }
        self
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Asks it to end, as ctrl-C does.
    pub fn interrupt(&mut self) {
        if !self.has_ended() {
            process::send(self.child.id(), Signal::INT);
        }
    }

    /// Ends its input, waits for its end and says what it did.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    #[track_caller]
    pub fn finish(self) -> Output {
        self.finish_within(PATIENCE)
    }

    /// The same, with another patience.
    ///
    /// # Panics
    /// If it does not end within that.
    #[track_caller]
    pub fn finish_within(mut self, patience: Duration) -> Output {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + patience;
        while !(self.has_ended() && self.stdout.is_whole() && self.stderr.is_whole()) {
            let (what, stderr) = (&self.what, || self.stderr());
            assert!(
                Instant::now() < deadline,
                "`{what}` did not end in {patience:?}; it said:\n{}",
                stderr()
            );
            thread::sleep(PAUSE);
        }
        let status = self.child.wait().expect("a child that has ended can be waited for");
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or_default();
        let stdout = self.stdout.whole();
        let stderr = String::from_utf8_lossy(&self.stderr.whole()).into_owned();
        Output { what: self.what.clone(), stdout, stderr, code: status.code().unwrap_or(128 + signal) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may well have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(feeding) = self.feeding.take() {
            let _ = feeding.join();
        }
    }
}

impl Collected {
    fn from(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let reading = pipe.map(|pipe| {
            let bytes = Arc::clone(&bytes);
            thread::spawn(move || collect(pipe, &bytes))
        });
        Self { bytes, reading }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Whether there is no more to come: the pipe ends with its last writer, which need not be the command itself.
    fn is_whole(&self) -> bool {
        self.reading.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// All of it.
    fn whole(&mut self) -> Vec<u8> {
        if let Some(reading) = self.reading.take() {
            reading.join().expect("reading a pipe does not panic");
        }
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn collect(mut pipe: impl Read, into: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = pipe.read(&mut buffer) {
        into.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..read]);
    }
}

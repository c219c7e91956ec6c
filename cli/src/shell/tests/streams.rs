//! Pipes, interruption, and what becomes visible when.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::super::io::{Input, Io, Output, pipe};
use super::Fixture;

#[tokio::test]
async fn a_reader_that_has_enough_ends_an_endless_writer() {
    let mut fixture = Fixture::new().await;
    let ran = fixture.run("while true; do echo y; done | head -n 2").await;
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str(), ran.status), ("y\ny\n", "", 0));
    let ran = fixture.run("seq 1000000 | upper | head -n 1").await;
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("1\n", ""));
}

#[tokio::test]
async fn more_than_a_pipe_holds_goes_through_all_stages() {
    let mut fixture = Fixture::new().await;
    let ran = fixture.run("seq 100000 | upper | cat > /f; wc -l < /f; sort -n /f | tail -n 1").await;
    assert_eq!(ran.stdout, "100000\n100000\n");
}

#[tokio::test]
async fn input_reaches_the_command_that_reads() {
    let mut fixture = Fixture::new().await;
    let ran = fixture.run_with_input("read first; upper", "one\ntwo\n").await;
    assert_eq!(ran.stdout, "TWO\n");
}

#[tokio::test]
async fn an_interrupted_command_leaves_files_as_they_were() {
    let mut fixture = Fixture::new().await;
    fixture.run("echo old > /f").await;
    let (mut keyboard, stdin) = pipe();
    let (stdout, mut seen) = pipe();
    let io = Io { stdin, stdout, stderr: Output::null() };
    let run = fixture.shell.run_with(
        "{ echo new; echo ready >&2; cat; } > /f 2>&1 | cat; echo x | tee /dev/null | cat; cat | tee /f",
        io,
    );
    keyboard.write_all(b"new\n").await.unwrap();
    let interrupted = tokio::time::timeout(Duration::from_millis(500), run).await;
    assert!(interrupted.is_err(), "it waits for the keyboard");
    drop(keyboard);
    let mut rest = String::new();
    seen.read_to_string(&mut rest).await.unwrap();
    assert_eq!(fixture.content("/f").await, "old\n");
}

#[tokio::test]
async fn output_of_a_redirected_group_is_visible_when_it_ends() {
    let mut fixture = Fixture::new().await;
    let ran = fixture.run("echo old > /f; { echo new; cat /f; } > /f; cat /f").await;
    assert_eq!(ran.stdout, "new\nold\n");
}

#[tokio::test]
async fn an_endless_loop_of_builtins_can_be_dropped() {
    let mut fixture = Fixture::new().await;
    let io = Io { stdin: Input::empty(), stdout: Output::null(), stderr: Output::null() };
    let run = fixture.shell.run_with("while true; do :; done", io);
    assert!(tokio::time::timeout(Duration::from_millis(200), run).await.is_err());
}

/// Takes everything, and finds at the flush that there is no room for it: what `/dev/full` is to a buffered stream.
struct Full;

impl AsyncWrite for Full {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::ErrorKind::StorageFull.into()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(context)
    }
}

#[tokio::test]
async fn output_that_did_not_get_out_is_a_failure() {
    for script in ["ls /", "stat /bin", "echo x", "ls --json /", "tree /"] {
        let mut fixture = Fixture::new().await;
        let io = Io { stdin: Input::empty(), stdout: Output::new(Full), stderr: Output::null() };
        assert_eq!(fixture.shell.run_with(script, io).await, 1, "{script}");
    }
}

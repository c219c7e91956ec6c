//! Batches from their submission to their end: real nodes over libp2p's memory transport, real worker processes, one
//! memory each. The tree is one `MemVfs` that all nodes share, as if every change reached everybody at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod nodes;

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use nodes::{Nodes, sample};
use starfish_compute::batch::{
    BatchError, BatchSpec, Ended, Ending, Input, Items, OutputStream, Progress, Results, Retries,
};
use starfish_compute::{Compute, JobId, Limit, Module, Outcome, Phase};
use starfish_dht::testing::{PATIENCE, wait_until};
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::Vfs;

fn batch(program: &str, items: Items) -> BatchSpec {
    BatchSpec { items, ..BatchSpec::new(program, Module::Bytes(sample(program))) }
}

fn lines(lines: &[&str]) -> Items {
    Items::Lines(lines.iter().map(|line| (*line).to_owned()).collect())
}

async fn said(results: &Results, ended: &Ended) -> String {
    let parts: Vec<Bytes> =
        results.said(ended, OutputStream::Stdout).await.unwrap().try_collect().await.unwrap();
    String::from_utf8(parts.concat()).unwrap()
}

/// What all tasks printed, and how they ended, once all have.
async fn all(compute: &Compute, job: JobId) -> (String, Vec<Outcome>) {
    let collecting = async {
        wait_until("the job is known here", PATIENCE, || async { compute.results(job).await.is_ok() }).await;
        let mut results = compute.results(job).await.unwrap();
        let (mut text, mut outcomes) = (String::new(), Vec::new());
        while let Some(ended) = results.next().await.unwrap() {
            text += &said(&results, &ended).await;
            outcomes.push(ended.result.outcome);
        }
        (text, outcomes)
    };
    tokio::time::timeout(PATIENCE, collecting).await.expect("the tasks do not end")
}

fn numbers(range: std::ops::Range<u64>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_number_of_a_range_has_its_task_and_all_nodes_read_the_same() {
    let nodes = Nodes::start(&[1, 2, 1]).await;
    let job = nodes.computes[0].submit_batch(batch("echo", Items::Range(5..905))).await.unwrap().0;
    for compute in &nodes.computes {
        let (text, outcomes) = all(compute, job).await;
        assert_eq!(text, numbers(5..905));
        assert_eq!(outcomes, vec![Outcome::Exited(0); 900]);
        let end = tokio::time::timeout(PATIENCE, compute.wait(job)).await.unwrap().unwrap();
        assert_eq!(end.ending, Ending::Complete { failed: 0 });
        let report = compute.job(&job.to_string()).await.unwrap();
        assert_eq!(report.phase, Phase::Done);
        assert_eq!(report.progress, Some(Progress { tasks: 900, done: 900, failed: 0 }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_outlives_its_submitter_and_half_of_the_nodes() {
    let mut nodes = Nodes::start(&[1; 4]).await;
    let job = nodes.computes[0].submit_batch(batch("slow", Items::Range(0..12))).await.unwrap().0;
    let compute = nodes.computes[2].clone();
    wait_until("the job is under way", PATIENCE, || async {
        compute.job(&job.to_string()).await.is_ok_and(|report| report.progress.unwrap().done >= 1)
    })
    .await;
    nodes.lose(0).await;
    nodes.lose(1).await;
    for compute in &nodes.computes[2..] {
        let (_, outcomes) = all(compute, job).await;
        assert_eq!(outcomes, vec![Outcome::Exited(0); 12]);
        let end = tokio::time::timeout(PATIENCE, compute.wait(job)).await.unwrap().unwrap();
        assert_eq!(end.ending, Ending::Complete { failed: 0 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_fail_are_told_from_those_that_do_not_and_can_be_run_again() {
    let nodes = Nodes::start(&[1, 1]).await;
    let spec = BatchSpec {
        retries: Retries { failed: 2, limit: 0 },
        ..batch("echo", lines(&["good", "ax", "bat", "also good"]))
    };
    let job = nodes.computes[0].submit_batch(spec).await.unwrap().0;
    let (text, outcomes) = all(&nodes.computes[1], job).await;
    assert_eq!(text, "good\nax\nbat\nalso good\n");
    assert_eq!((&outcomes[0], &outcomes[1]), (&Outcome::Exited(0), &Outcome::Exited(3)));
    assert!(matches!(outcomes[2], Outcome::Trapped { .. }));
    let end = nodes.computes[0].wait(job).await.unwrap();
    assert_eq!(end.ending, Ending::Complete { failed: 2 });
    let mut results = nodes.computes[0].results(job).await.unwrap();
    let tries: Vec<_> =
        [results.next().await, results.next().await].map(|ended| ended.unwrap().unwrap().result.tries).into();
    assert_eq!(tries, [1, 3]);

    let prefix = job.to_string();
    wait_until("the end is known", PATIENCE, || async {
        nodes.computes[1].job(&prefix).await.unwrap().phase == Phase::Failed
    })
    .await;
    nodes.computes[1].retry(&prefix).await.unwrap();
    wait_until("they have failed again", PATIENCE, || async {
        let report = nodes.computes[0].job(&prefix).await.unwrap();
        report.attempts == 2 && report.phase == Phase::Failed
    })
    .await;
    assert_eq!(all(&nodes.computes[0], job).await.0, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_file_has_its_task_which_can_read_it_and_nothing_else() {
    let nodes = Nodes::start(&[0, 2]).await;
    for (path, content) in
        [("/in/a/in.txt", "first"), ("/in/b/c/in.txt", "second"), ("/in/c/in.log", "not this")]
    {
        nodes.put(path, content).await;
    }
    let spec = BatchSpec {
        out: Some(VfsPath::parse("/out").unwrap()),
        ..batch("cat", Items::Files("/in/**/*.txt".to_owned()))
    };
    let job = nodes.computes[0].submit_batch(spec).await.unwrap().0;
    let (text, outcomes) = all(&nodes.computes[0], job).await;
    assert_eq!((text.as_str(), outcomes.len()), ("firstsecond", 2), "{outcomes:?}");
    assert_eq!(nodes.get("/out/a/in.txt").await, "first");
    assert_eq!(nodes.get("/out/b/c/in.txt").await, "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_batch_is_the_input_of_another() {
    let nodes = Nodes::start(&[1, 1]).await;
    let map = nodes.computes[0].submit_batch(batch("echo", lines(&["some", "words"]))).await.unwrap().0;
    let spec = BatchSpec { input: Input::OutputOf(map), ..batch("upper", Items::One) };
    let reduce = nodes.computes[0].submit_batch(spec).await.unwrap().0;
    assert_eq!(all(&nodes.computes[1], reduce).await.0, "SOME\nWORDS\n");

    let fails = nodes.computes[0].submit_batch(batch("echo", lines(&["x"]))).await.unwrap().0;
    let spec = BatchSpec { after: vec![fails], ..batch("echo", lines(&["never"])) };
    let never = nodes.computes[0].submit_batch(spec).await.unwrap().0;
    let end = tokio::time::timeout(PATIENCE, nodes.computes[0].wait(never)).await.unwrap().unwrap();
    assert!(matches!(end.ending, Ending::Failed { reason } if reason.contains(&fails.to_string())));
    let unknown = BatchSpec { after: vec![JobId([9; 16])], ..batch("echo", Items::One) };
    assert!(matches!(nodes.computes[0].submit_batch(unknown).await, Err(BatchError::NotFound(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_batch_is_not_run_again_unless_that_is_asked_for() {
    let nodes = Nodes::start(&[1, 1]).await;
    nodes.put("/in/a/in.txt", "first").await;
    let spec = || batch("cat", Items::Files("/in/**/*.txt".to_owned()));
    let submit = async |node: usize, spec| nodes.computes[node].submit_batch(spec).await.unwrap();
    let (job, cached) = submit(0, spec()).await;
    assert!(!cached);
    for compute in &nodes.computes {
        assert_eq!(all(compute, job).await.0, "first");
        tokio::time::timeout(PATIENCE, compute.wait(job)).await.unwrap().unwrap();
    }
    assert_eq!(submit(0, spec()).await, (job, true));
    assert_eq!(submit(1, spec()).await, (job, true), "it was run elsewhere");
    assert_ne!(submit(1, BatchSpec { cached: false, ..spec() }).await.0, job);
    assert_ne!(submit(1, BatchSpec { args: vec!["more".into()], ..spec() }).await.0, job);
    nodes.put("/in/a/in.txt", "second").await;
    let (changed, cached) = submit(1, spec()).await;
    assert!(!cached);
    assert_eq!(all(&nodes.computes[1], changed).await.0, "second");

    let (fails, _) = submit(0, batch("echo", lines(&["x"]))).await;
    nodes.computes[0].wait(fails).await.unwrap();
    assert_ne!(submit(0, batch("echo", lines(&["x"]))).await.0, fails, "what failed may go well now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_killed_stops_everywhere_and_frees_its_slots() {
    let nodes = Nodes::start(&[0, 1]).await;
    let job = nodes.computes[0].submit_batch(batch("loop", Items::Range(0..100))).await.unwrap().0;
    wait_until("it runs", PATIENCE, || async { nodes.computes[1].capacity().free == 0 }).await;
    nodes.computes[1].kill(&job.to_string()).await.unwrap();
    let end = tokio::time::timeout(PATIENCE, nodes.computes[0].wait(job)).await.unwrap().unwrap();
    assert_eq!(end.ending, Ending::Killed);
    wait_until("the slot is free", PATIENCE, || async { nodes.computes[1].capacity().free == 1 }).await;
    assert_eq!(all(&nodes.computes[0], job).await.1, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_each_task_and_long_outputs_come_back_whole() {
    let nodes = Nodes::start(&[1]).await;
    let mut spec = batch("print", Items::Range(0..2));
    spec.limits.output_bytes = 300 << 10;
    let job = nodes.computes[0].submit_batch(spec).await.unwrap().0;
    let (text, outcomes) = all(&nodes.computes[0], job).await;
    let limit = Outcome::LimitReached { limit: Limit::Output, value: 300 << 10 };
    assert_eq!(outcomes, [limit.clone(), limit]);
    assert!(text.len() > 500 << 10, "{} bytes", text.len());
    let mut spec = batch("loop", Items::One);
    spec.limits.timeout = Duration::from_millis(50);
    let job = nodes.computes[0].submit_batch(spec).await.unwrap().0;
    let late = Outcome::LimitReached { limit: Limit::Time, value: 50 };
    assert_eq!(all(&nodes.computes[0], job).await.1, [late]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_on_after_a_restart_of_the_only_node() {
    let mut nodes = Nodes::start(&[1]).await;
    let job = nodes.computes[0].submit_batch(batch("slow", Items::Range(0..4))).await.unwrap().0;
    let compute = nodes.computes[0].clone();
    wait_until("it is under way", PATIENCE, || async {
        compute.job(&job.to_string()).await.unwrap().progress.unwrap().done >= 1
    })
    .await;
    drop(compute);
    nodes.computes.remove(0).stop().await;
    let (memory, replication) = nodes.memories.remove(0);
    replication.stop().await;
    drop(memory);
    nodes.swarm.stop(0).await;
    // The same name again, so that the memory is its own.
    let number = nodes.swarm.add().await;
    std::fs::rename(nodes.dir.path().join("0"), nodes.dir.path().join(number.to_string())).unwrap();
    let (compute, _memory) = nodes.start_one(number, 1).await;
    assert_eq!(all(&compute, job).await.1, vec![Outcome::Exited(0); 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_freed_when_their_time_is_over() {
    let nodes = Nodes::start(&[1, 1]).await;
    let spec = BatchSpec { keep: Duration::from_millis(1), ..batch("echo", lines(&["a"])) };
    let job = nodes.computes[0].submit_batch(spec).await.unwrap().0;
    for compute in &nodes.computes {
        wait_until("it is forgotten", PATIENCE, || async { compute.job(&job.to_string()).await.is_err() })
            .await;
    }
    wait_until("its files are gone", PATIENCE, || async {
        nodes.files.stat(&VfsPath::parse(&format!("/.jobs/{job}")).unwrap()).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_another_batch_has_run_is_not_run_again() {
    let nodes = Nodes::start(&[1, 1]).await;
    // Random bytes differ with each run, so a result that was recalled can be told from one that was found again.
    let run = async |items| {
        let job = nodes.computes[0].submit_batch(batch("oracle", items)).await.unwrap().0;
        tokio::time::timeout(PATIENCE, nodes.computes[0].wait(job)).await.unwrap().unwrap();
        let mut results = nodes.computes[0].results(job).await.unwrap();
        let mut said = Vec::new();
        while let Some(ended) = results.next().await.unwrap() {
            let stdout = results.said(&ended, OutputStream::Stdout).await.unwrap();
            said.push(stdout.try_collect::<Vec<Bytes>>().await.unwrap().concat());
        }
        said
    };
    let first = run(Items::Range(10..40)).await;
    let more = run(Items::Range(0..50)).await;
    assert_eq!(more.len(), 50);
    assert_eq!(more[10..40], first);
    assert_eq!(run(Items::Range(20..25)).await, first[10..15]);
    let words = run(lines(&["a", "b", "c"])).await;
    let others = run(lines(&["c", "new", "a", "a"])).await;
    assert_eq!([&others[0], &others[2], &others[3]], [&words[2], &words[0], &words[0]]);
    let anew = BatchSpec { cached: false, ..batch("oracle", Items::Range(20..25)) };
    let job = nodes.computes[0].submit_batch(anew).await.unwrap().0;
    let mut results = nodes.computes[0].results(job).await.unwrap();
    let ended = results.next().await.unwrap().unwrap();
    let stdout = results.said(&ended, OutputStream::Stdout).await.unwrap();
    assert_ne!(stdout.try_collect::<Vec<Bytes>>().await.unwrap().concat(), first[10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_outputs_of_tasks_that_were_run_before_come_back_too() {
    let nodes = Nodes::start(&[1]).await;
    let long = "y".repeat(10_000);
    let first = nodes.computes[0].submit_batch(batch("echo", lines(&[&long, "b"]))).await.unwrap().0;
    assert_eq!(all(&nodes.computes[0], first).await.0, format!("{long}\nb\n"));
    tokio::time::timeout(PATIENCE, nodes.computes[0].wait(first)).await.unwrap().unwrap();
    let then = nodes.computes[0].submit_batch(batch("echo", lines(&["c", &long]))).await.unwrap().0;
    assert_ne!(first, then);
    assert_eq!(all(&nodes.computes[0], then).await.0, format!("c\n{long}\n"));
}

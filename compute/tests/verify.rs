//! Tasks that several nodes run to be held against each other: what counts, who is named, and who is remembered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod nodes;

use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use futures::TryStreamExt;
use nodes::{Nodes, sample};
use starfish_compute::batch::{BatchError, BatchSpec, Ended, Ending, Items, OutputStream};
use starfish_compute::{Compute, JobId, JobReport, Module, Outcome};
use starfish_dht::testing::{PATIENCE, wait_until};

fn verified(program: &str, items: Items, copies: u8) -> BatchSpec {
    BatchSpec { items, copies, ..BatchSpec::new(program, Module::Bytes(sample(program))) }
}

/// What the tasks of a job printed and how they ended, as a node reads it, once all have.
async fn all(compute: &Compute, job: JobId) -> Vec<(Ended, Vec<u8>)> {
    let collecting = async {
        wait_until("the job is known here", PATIENCE, || async { compute.results(job).await.is_ok() }).await;
        let mut results = compute.results(job).await.unwrap();
        let mut all = Vec::new();
        while let Some(ended) = results.next().await.unwrap() {
            let said = results.said(&ended, OutputStream::Stdout).await.unwrap();
            let said: Vec<Bytes> = said.try_collect().await.unwrap();
            all.push((ended, said.concat()));
        }
        all
    };
    tokio::time::timeout(PATIENCE, collecting).await.expect("the tasks do not end")
}

async fn run(nodes: &Nodes, spec: BatchSpec) -> (JobId, Ending) {
    let job = nodes.computes[0].submit_batch(spec).await.unwrap().0;
    let end =
        tokio::time::timeout(PATIENCE, nodes.computes[0].wait(job)).await.expect("the job does not end");
    (job, end.unwrap().ending)
}

async fn report(nodes: &Nodes, job: JobId) -> JobReport {
    nodes.computes[0].job(&job.to_string()).await.unwrap()
}

impl Nodes {
    /// From now on a node runs another program in place of one: its compiled form is not what it should be. Both have been
    /// run on it before, under the deterministic profile.
    fn corrupt(&self, node: usize, right: &str, wrong: &str) {
        let [right, wrong] = [right, wrong].map(|program| self.compiled(node, program));
        std::fs::copy(&wrong, &right).unwrap();
        // Workers that have loaded the right one would go on with it.
        let workers = self.dir.path().join(node.to_string()).join("workers").canonicalize().unwrap();
        for process in std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap()) {
            if std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&workers)) {
                let killed = Command::new("kill").arg("-9").arg(process.file_name()).status().unwrap();
                assert!(killed.success());
            }
        }
    }

    fn compiled(&self, node: usize, program: &str) -> PathBuf {
        let hash = blake3::hash(&sample(program)).to_hex();
        let folder = self.dir.path().join(node.to_string()).join("compiled");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut found = files.filter(|path| path.to_string_lossy().contains(&hash[..]));
        let only = found.next().expect("it was compiled");
        assert!(found.next().is_none(), "it was compiled in one way");
        only
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_find_the_same_whatever_a_program_asks_its_machine_for() {
    let nodes = Nodes::start(&[1, 2, 1]).await;
    let lines: Vec<_> = (0..60).map(|number| format!("line {number}")).collect();
    let (job, ending) = run(&nodes, verified("oracle", Items::Lines(lines), 3)).await;
    assert_eq!(ending, Ending::Complete { failed: 0 });
    let read = all(&nodes.computes[0], job).await;
    assert_eq!(read.len(), 60);
    assert_ne!(read[0].1[..16], read[1].1[..16], "random numbers follow from the arguments");
    for compute in &nodes.computes[1..] {
        let other = all(compute, job).await;
        assert!(other.iter().map(|(_, said)| said).eq(read.iter().map(|(_, said)| said)));
    }
    let verified = report(&nodes, job).await.verified.unwrap();
    assert_eq!((verified.copies, verified.enough), (3, 3));
    assert!(verified.outvoted.is_empty() && nodes.computes[0].suspects().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lies_is_outvoted_named_and_remembered_until_it_is_forgiven() {
    let nodes = Nodes::start(&[1, 1, 1]).await;
    for program in ["echo", "hello"] {
        assert_eq!(
            run(&nodes, verified(program, Items::Range(0..30), 3)).await.1,
            Ending::Complete { failed: 0 }
        );
    }
    nodes.corrupt(2, "echo", "hello");
    let (job, ending) = run(&nodes, verified("echo", Items::Range(100..130), 3)).await;
    assert_eq!(ending, Ending::Complete { failed: 0 });
    let expected: Vec<_> = (100..130).map(|number| format!("{number}\n").into_bytes()).collect();
    let said: Vec<_> = all(&nodes.computes[1], job).await.into_iter().map(|(_, said)| said).collect();
    assert_eq!(said, expected);
    let liar = nodes.swarm.network(2).local_peer();
    let outvoted = report(&nodes, job).await.verified.unwrap().outvoted;
    assert_eq!(outvoted.iter().map(|(node, how)| (*node, how.tasks)).collect::<Vec<_>>(), [(liar, 30)]);
    for compute in &nodes.computes {
        wait_until("the swarm remembers", PATIENCE, || async {
            compute.suspects().iter().any(|suspect| suspect.node == liar && suspect.job == job)
        })
        .await;
    }
    // It gets no tasks any more, and two of three are enough to agree.
    let (job, ending) = run(&nodes, verified("echo", Items::Range(200..210), 3)).await;
    assert_eq!(ending, Ending::Complete { failed: 0 });
    let verified = report(&nodes, job).await.verified.unwrap();
    assert_eq!(verified.enough, 2);
    assert!(verified.outvoted.is_empty());
    assert!(nodes.computes[1].forgive(&liar).await.unwrap());
    wait_until("all trust it again", PATIENCE, || async {
        nodes.computes.iter().all(|compute| compute.suspects().is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_agree_that_a_task_sleeps_for_too_long() {
    let nodes = Nodes::start(&[1, 1, 1]).await;
    let mut spec = verified("sleep", Items::Range(0..3), 3);
    spec.limits.timeout = std::time::Duration::from_secs(30);
    let (job, ending) = run(&nodes, spec).await;
    assert_eq!(ending, Ending::Complete { failed: 3 });
    let limit = Outcome::LimitReached { limit: starfish_compute::Limit::Time, value: 30_000 };
    for (ended, _) in all(&nodes.computes[1], job).await {
        assert_eq!(ended.result.outcome, limit);
    }
    assert!(report(&nodes, job).await.verified.unwrap().outvoted.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_two_disagree_a_third_decides() {
    let nodes = Nodes::start(&[1, 1, 1]).await;
    for program in ["echo", "hello"] {
        run(&nodes, verified(program, Items::Range(0..30), 3)).await;
    }
    nodes.corrupt(1, "echo", "hello");
    let (job, ending) = run(&nodes, verified("echo", Items::Range(100..140), 2)).await;
    assert_eq!(ending, Ending::Complete { failed: 0 });
    for (number, (_, said)) in (100..).zip(all(&nodes.computes[2], job).await) {
        assert_eq!(said, format!("{number}\n").into_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_on_which_nobody_agrees_fail_and_say_so() {
    let nodes = Nodes::start(&[1, 1]).await;
    for program in ["echo", "hello"] {
        run(&nodes, verified(program, Items::Range(0..10), 2)).await;
    }
    nodes.corrupt(1, "echo", "hello");
    let (job, ending) = run(&nodes, verified("echo", Items::Range(100..105), 2)).await;
    assert_eq!(ending, Ending::Complete { failed: 5 });
    for (ended, _) in all(&nodes.computes[1], job).await {
        let Outcome::Failed { reason } = ended.result.outcome else { panic!("{ended:?}") };
        assert!(
            reason.contains("fewer than 2")
                && reason.contains(&nodes.swarm.network(1).local_peer().to_string())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_outputs_come_back_whole_from_who_found_them() {
    let nodes = Nodes::start(&[1, 1, 1]).await;
    let long = "y".repeat(15_000);
    let (job, ending) =
        run(&nodes, verified("echo", Items::Lines(vec![long.clone(), "words".into()]), 3)).await;
    assert_eq!(ending, Ending::Complete { failed: 0 });
    let said: Vec<_> = all(&nodes.computes[2], job).await.into_iter().map(|(_, said)| said).collect();
    assert_eq!(said, [format!("{long}\n").into_bytes(), b"words\n".to_vec()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_lost_in_the_middle_is_done_without() {
    let mut nodes = Nodes::start(&[1, 1, 1]).await;
    let job = nodes.computes[0].submit_batch(verified("slow", Items::Range(0..3), 3)).await.unwrap().0;
    wait_until("the job is under way", PATIENCE, || async {
        nodes.computes[0].job(&job.to_string()).await.is_ok_and(|report| !report.workers.is_empty())
    })
    .await;
    nodes.lose(2).await;
    let end =
        tokio::time::timeout(PATIENCE, nodes.computes[0].wait(job)).await.expect("the job does not end");
    assert_eq!(end.unwrap().ending, Ending::Complete { failed: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_is_lost_in_the_middle_leaves_nobody_accused() {
    let mut nodes = Nodes::start(&[2, 2, 2]).await;
    let job = nodes.computes[0].submit_batch(verified("slow", Items::Range(0..5), 3)).await.unwrap().0;
    let next = nodes.computes[1].clone();
    wait_until("the job is under way", PATIENCE, || async {
        let report = nodes.computes[0].job(&job.to_string()).await;
        report.is_ok_and(|report| report.workers.len() == 3) && next.results(job).await.is_ok()
    })
    .await;
    nodes.lose(0).await;
    let end = tokio::time::timeout(PATIENCE * 2, next.wait(job)).await.expect("the job does not end");
    assert_eq!(end.unwrap().ending, Ending::Complete { failed: 0 });
    let verified = next.job(&job.to_string()).await.unwrap().verified.unwrap();
    assert!(verified.outvoted.is_empty(), "{verified:?}");
    assert_eq!(all(&nodes.computes[2], job).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_more_nodes_says_so() {
    let nodes = Nodes::start(&[1, 1]).await;
    let job = nodes.computes[0].submit_batch(verified("echo", Items::Range(0..3), 5)).await.unwrap().0;
    // The other node says of itself what it can, a moment later.
    wait_until("the reason", PATIENCE, || async {
        let why = report(&nodes, job).await.why.expect("a reason");
        assert!(why.contains("5 nodes") && why.contains("3 of them"), "{why}");
        why.contains("2 can")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_refused_with_the_reason() {
    let nodes = Nodes::start(&[1]).await;
    nodes.put("/data/file", "content").await;
    let spec = verified("echo", Items::Range(0..2), 3);
    let granted = BatchSpec { grants: vec!["/data:ro".parse().unwrap()], ..spec.clone() };
    let reaching = BatchSpec { reach: vec!["mem:space".parse().unwrap()], ..spec.clone() };
    let writing = BatchSpec { out: Some("/out".parse().unwrap()), ..spec.clone() };
    let bound = BatchSpec { on: Some(nodes.swarm.network(0).local_peer()), ..spec.clone() };
    let too_many = BatchSpec { copies: 10, ..spec };
    for refused in [granted, reaching, writing, bound, too_many] {
        let error = nodes.computes[0].submit_batch(refused).await.unwrap_err();
        assert!(matches!(error, BatchError::Verify(_)), "{error}");
    }
}

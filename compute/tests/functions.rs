//! Functions from their deployment to their last call: real nodes over libp2p's memory transport, real worker processes,
//! one memory each. The tree is one `MemVfs` that all nodes share, as if every change reached everybody at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod nodes;

use std::time::Duration;

use nodes::{Nodes, call, called, ended, heard, sample, spec};
use starfish_compute::batch::{BatchSpec, Items};
use starfish_compute::function::version::{FunctionName, MAX_VERSIONS};
use starfish_compute::function::{CallError, DeployError, FunctionError, FunctionSpec, Said};
use starfish_compute::{Limits, Module};
use starfish_dht::testing::{PATIENCE, wait_until};
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Attributes, Parents, Vfs, stream_of};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deployed_on_one_node_is_called_on_all_and_outlives_it() {
    let mut nodes = Nodes::start(&[1, 1, 1]).await;
    nodes.deploy("shout", "upper").await;
    nodes.deploy("exit", "exit").await;
    for compute in &nodes.computes {
        let said = called(compute, call("shout", &[]), &["some ", "words"]).await;
        assert_eq!(said, ("SOME WORDS".to_owned(), ended(0)));
        assert_eq!(called(compute, call("exit", &["a", "b"]), &[]).await.1, ended(2));
    }
    nodes.lose(0).await;
    for compute in &nodes.computes[1..] {
        assert_eq!(called(compute, call("shout", &[]), &["still"]).await.0, "STILL");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_slot_gives_a_call_to_another() {
    let nodes = Nodes::start(&[0, 1, 1]).await;
    nodes.deploy("shout", "upper").await;
    nodes.wait_known(&[1, 2]).await;
    let calls = (0..20).map(|_| called(&nodes.computes[0], call("shout", &[]), &["word"]));
    for (text, end) in futures::future::join_all(calls).await {
        assert_eq!((text.as_str(), end), ("WORD", ended(0)));
    }
    for node in [1, 2] {
        nodes.wait_idle(node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_node_is_lost_before_it_answers_is_run_by_another_from_its_beginning() {
    let mut nodes = Nodes::start(&[0, 1, 1]).await;
    nodes.deploy("shout", "upper").await;
    nodes.wait_known(&[1, 2]).await;
    // It reads first, and says nothing before there is something.
    let running = nodes.computes[0].call(call("shout", &[])).await.unwrap();
    let holder = if nodes.computes[1].capacity().free == 0 { 1 } else { 2 };
    assert_eq!(nodes.computes[holder].capacity().free, 0);
    nodes.lose(holder).await;
    running.stdin.send("again".into()).await.unwrap();
    assert_eq!(heard(running).await, ("AGAIN".to_owned(), ended(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_has_begun_to_answer_is_not_run_twice() {
    let mut nodes = Nodes::start(&[0, 1]).await;
    nodes.deploy("slow", "slow").await;
    nodes.wait_known(&[1]).await;
    let mut running = nodes.computes[0].call(call("slow", &[])).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, running.said.recv()).await.unwrap();
    assert!(matches!(first, Some(Said::Stdout(_))), "{first:?}");
    nodes.lose(1).await;
    assert!(matches!(heard(running).await.1, Said::Lost(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_for_a_slot_in_a_queue_that_has_an_end() {
    let nodes = Nodes::start(&[1]).await;
    nodes.deploy("shout", "upper").await;
    let compute = &nodes.computes[0];
    let first = compute.call(call("shout", &[])).await.unwrap();
    let calls: Vec<_> = (0..300)
        .map(|_| {
            let compute = compute.clone();
            tokio::spawn(async move { compute.call(call("shout", &[])).await.map(drop) })
        })
        .collect();
    wait_until("the queue is full", PATIENCE, || async {
        calls.iter().filter(|call| call.is_finished()).count() >= 300 - 256
    })
    .await;
    drop(first);
    let mut began = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => began += 1,
            Err(error) => assert!(matches!(error, CallError::Busy(_)), "{error}"),
        }
    }
    assert!((1..=256).contains(&began), "{began} of those that waited have begun");
    assert_eq!(called(compute, call("shout", &[]), &["last"]).await.0, "LAST");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gives_way_to_calls() {
    let nodes = Nodes::start(&[1]).await;
    nodes.deploy("shout", "upper").await;
    let items = Items::Range(0..100_000);
    let batch = BatchSpec { items, ..BatchSpec::new("echo", Module::Bytes(sample("echo"))) };
    let (job, _) = nodes.computes[0].submit_batch(batch).await.unwrap();
    wait_until("it runs", PATIENCE, || async { nodes.computes[0].capacity().free == 0 }).await;
    assert_eq!(called(&nodes.computes[0], call("shout", &[]), &["now"]).await.0, "NOW");
    let report = nodes.computes[0].job(&job.to_string()).await.unwrap();
    let progress = report.progress.unwrap();
    assert!(progress.done < progress.tasks, "the call did not wait for the end of the batch");
    nodes.computes[0].kill(&job.to_string()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_called_at_once_and_an_old_one_after_a_rollback() {
    let nodes = Nodes::start(&[1, 1]).await;
    let [here, there] = [&nodes.computes[0], &nodes.computes[1]];
    nodes.deploy("f", "upper").await;
    assert_eq!(called(there, call("f", &[]), &["one"]).await.0, "ONE");
    nodes.deploy("f", "echo").await;
    assert_eq!(called(here, call("f", &["two"]), &[]).await.0, "two\n");
    assert_eq!(called(there, call("f", &["two"]), &[]).await.0, "two\n");
    let name: FunctionName = "f".parse().unwrap();
    let back = there.rollback(&name, None).await.unwrap();
    assert_eq!(back.number, 1);
    assert_eq!(called(there, call("f", &[]), &["one"]).await.0, "ONE");
    wait_until("all know", PATIENCE, || async { here.functions().await.unwrap()[0].current == back }).await;
    assert_eq!(called(here, call("f", &[]), &["one"]).await.0, "ONE");
    assert!(matches!(there.rollback(&name, Some("7")).await, Err(FunctionError::Rollback(_))));
    for _ in 0..MAX_VERSIONS + 2 {
        nodes.deploy("f", "echo").await;
    }
    let all = here.functions().await.unwrap();
    assert_eq!(all[0].versions.len(), MAX_VERSIONS);
    let folder = VfsPath::parse("/.functions/f").unwrap();
    assert_eq!(nodes.files.list(&folder).await.unwrap().len(), MAX_VERSIONS, "old programs are freed");
    there.undeploy(&name).await.unwrap();
    assert!(matches!(there.call(call("f", &[])).await, Err(CallError::NotFound(_))));
    assert!(nodes.files.stat(&folder).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_not_deployed() {
    let nodes = Nodes::start(&[0]).await;
    let deploy = async |change: fn(&mut FunctionSpec)| {
        let mut spec = spec("f", "upper");
        change(&mut spec);
        nodes.computes[0].deploy(spec).await.unwrap_err()
    };
    let garbage = deploy(|spec| spec.module = Module::Bytes("garbage".into())).await;
    assert!(matches!(garbage, DeployError::Task(_)), "{garbage}");
    let garbage = deploy(|spec| spec.module = Module::Bytes("\0asm\x01\0\0\0garbage".into())).await;
    assert!(matches!(garbage, DeployError::Program(_)), "{garbage}");
    let foreign = deploy(|spec| spec.module = Module::Bytes(sample("foreign"))).await;
    assert!(matches!(foreign, DeployError::Program(_)), "{foreign}");
    let taken = deploy(|spec| spec.http = Some(VfsPath::parse("/api/v1").unwrap())).await;
    assert!(matches!(taken, DeployError::Path(_)), "{taken}");
    let long = deploy(|spec| spec.env = vec![("A".into(), "x".repeat(9000))]).await;
    assert!(matches!(long, DeployError::TooLong), "{long}");
    assert!(nodes.computes[0].functions().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_sees_the_folders_of_its_function_and_changes_them_when_it_ends_well() {
    let nodes = Nodes::start(&[1]).await;
    let (folder, file) = (VfsPath::parse("/out").unwrap(), VfsPath::parse("/out/in.txt").unwrap());
    nodes.files.mkdir(&folder, Parents::Create).await.unwrap();
    nodes.files.write(&file, stream_of("first"), Attributes::default()).await.unwrap();
    nodes.deploy_as(FunctionSpec { grants: vec!["/out:ro".parse().unwrap()], ..spec("show", "cat") }).await;
    assert_eq!(called(&nodes.computes[0], call("show", &["/out/in.txt"]), &[]).await.0, "first");
    nodes.files.write(&file, stream_of("second"), Attributes::default()).await.unwrap();
    assert_eq!(called(&nodes.computes[0], call("show", &["/out/in.txt"]), &[]).await.0, "second");
    nodes.deploy_as(FunctionSpec { grants: vec!["/out".parse().unwrap()], ..spec("write", "write") }).await;
    let written = VfsPath::parse("/out/out.txt").unwrap();
    assert_eq!(called(&nodes.computes[0], call("write", &["fails"]), &[]).await.1, ended(1));
    assert!(nodes.files.stat(&written).await.is_err());
    assert_eq!(called(&nodes.computes[0], call("write", &[]), &[]).await.1, ended(0));
    assert!(nodes.files.stat(&written).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_hears_any_more_ends() {
    let nodes = Nodes::start(&[0, 1]).await;
    let limits = Limits { timeout: Duration::from_secs(3600), ..Limits::default() };
    nodes.deploy_as(FunctionSpec { limits, ..spec("endless", "loop") }).await;
    wait_until("it runs", PATIENCE, || async {
        let Ok(running) = nodes.computes[0].call(call("endless", &[])).await else { return false };
        let is_busy = nodes.computes[1].capacity().free == 0;
        drop(running);
        is_busy
    })
    .await;
    nodes.wait_idle(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_calls_of_a_function_with_one_replica_run_on_one_node() {
    let nodes = Nodes::start(&[0, 1, 1]).await;
    nodes.deploy("shout", "upper").await;
    nodes.wait_known(&[1, 2]).await;
    nodes.deploy_as(FunctionSpec { replicas: Some(1), ..spec("single", "echo") }).await;
    let compiled = |node: usize| {
        let folder = nodes.dir.path().join(node.to_string()).join("compiled");
        std::fs::read_dir(folder).unwrap().count()
    };
    // The node that it is deployed on compiles it, to see whether it can be run.
    let before: Vec<_> = (0..3).map(compiled).collect();
    for _ in 0..10 {
        assert_eq!(called(&nodes.computes[0], call("single", &["x"]), &[]).await.0, "x\n");
    }
    let more = (0..3).filter(|node| compiled(*node) > before[*node]).count();
    assert!(more <= 1, "{more} nodes more have compiled it");
}

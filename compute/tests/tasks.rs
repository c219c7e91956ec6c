//! Tasks from their submission to their end: real nodes over libp2p's memory transport, real worker processes.
//! The tree is one `MemVfs` that all nodes share, as if every change reached everybody at once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use starfish_compute::{
    Compute, ComputeOptions, JobError, JobId, Limit, Module, Outcome, OutputFrame, Phase, SubmitError,
    TaskSpec,
};
use starfish_dht::PeerId;
use starfish_dht::testing::{PATIENCE, TestSwarm, wait_until};
use starfish_fs::mem_vfs::MemVfs;
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Attributes, Parents, Vfs};
use starfish_memory::{Memory, MemorySync};
use tokio::io::AsyncWriteExt;

/// Some nodes that compute.
struct Nodes {
    swarm: TestSwarm,
    computes: Vec<Compute>,
    _memories: Vec<(Memory, MemorySync)>,
    files: Arc<MemVfs>,
    _dir: tempfile::TempDir,
}

impl Nodes {
    /// Nodes with as many slots each as `slots` says.
    async fn start(slots: &[u32]) -> Self {
        let swarm = TestSwarm::start(slots.len()).await;
        let (dir, files) = (tempfile::tempdir().unwrap(), Arc::new(MemVfs::new()));
        let (mut computes, mut memories) = (Vec::new(), Vec::new());
        for (node, slots) in slots.iter().enumerate() {
            let worker = env!("CARGO_BIN_EXE_starfish-worker").into();
            let options = ComputeOptions { slots: *slots, ..ComputeOptions::new(worker, Vec::new()) };
            let folder = dir.path().join(node.to_string());
            let tree = Arc::clone(&files) as Arc<dyn Vfs>;
            let network = swarm.network(node).clone();
            let memory = Memory::open(&folder.join("memory"), &network.local_peer()).unwrap();
            let replication = memory.join(network.clone()).await.unwrap();
            computes.push(Compute::start(&folder, network, &memory, tree, options).await.unwrap());
            memories.push((memory, replication));
        }
        Self { swarm, computes, _memories: memories, files, _dir: dir }
    }

    fn peer(&self, node: usize) -> PeerId {
        self.swarm.network(node).local_peer()
    }

    async fn put(&self, path: &str, content: &'static str) {
        let path = VfsPath::parse(path).unwrap();
        self.files.mkdir(&path.parent().unwrap(), Parents::Create).await.unwrap();
        let content = futures::stream::iter([Ok(Bytes::from_static(content.as_bytes()))]);
        self.files.write(&path, Box::pin(content), Attributes::default()).await.unwrap();
    }

    async fn get(&self, path: &str) -> Option<String> {
        let content = self.files.read(&VfsPath::parse(path).unwrap(), 0..u64::MAX).await.ok()?;
        let parts: Vec<Bytes> = content.map(Result::unwrap).collect().await;
        Some(String::from_utf8(parts.concat()).unwrap())
    }
}

fn task(name: &str) -> TaskSpec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name).with_extension("wat");
    TaskSpec::new(name, Module::Bytes(wat::parse_file(path).unwrap().into()))
}

/// Gives a job its input and waits for its end.
async fn finish(compute: &Compute, job: JobId, input: &str) -> (Outcome, String) {
    let mut stdin = compute.feed(job).unwrap();
    let input = input.to_owned();
    let feeding = tokio::spawn(async move {
        // A program need not read all of it.
        let _ = stdin.write_all(input.as_bytes()).await;
        stdin.shutdown().await.unwrap();
    });
    let end = listen(compute, job).await;
    feeding.await.unwrap();
    end
}

async fn listen(compute: &Compute, job: JobId) -> (Outcome, String) {
    let mut output = compute.output(job).await.unwrap();
    let mut text = Vec::new();
    loop {
        match output.next().await.unwrap().unwrap() {
            OutputFrame::Stdout(bytes) | OutputFrame::Stderr(bytes) => text.extend_from_slice(&bytes),
            OutputFrame::Exit(outcome) => return (outcome, String::from_utf8(text).unwrap()),
        }
    }
}

async fn run(compute: &Compute, spec: TaskSpec, input: &str) -> (Outcome, String) {
    let job = compute.submit(spec).await.unwrap();
    finish(compute, job, input).await
}

async fn wait_for_phase(compute: &Compute, job: JobId, phase: Phase) {
    let what = format!("job {job} to be {phase:?}");
    wait_until(&what, PATIENCE, || async { compute.job(&job.to_string()).await.unwrap().phase == phase })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_here_with_its_streams_and_its_receipt() {
    let nodes = Nodes::start(&[2]).await;
    let compute = &nodes.computes[0];
    let job = compute.submit(task("upper")).await.unwrap();
    assert_eq!(finish(compute, job, "star\n").await, (Outcome::Exited(0), "STAR\n".into()));
    assert_eq!(listen(compute, job).await.1, "STAR\n", "a late reader sees all of it");
    let report = compute.job(&job.to_string()[..8]).await.unwrap();
    assert_eq!((report.phase, report.by, report.attempts), (Phase::Done, Some(nodes.peer(0)), 1));
    let receipt = report.receipt.unwrap();
    assert!(receipt.verify());
    assert_eq!(receipt.stdout, starfish_compute::task::Digest::of(b"STAR\n"));
    assert_eq!((receipt.stdin_bytes, receipt.task), (5, report.task));
    let mut forged = receipt.clone();
    forged.outcome = Outcome::Exited(1);
    assert!(!forged.verify());
    assert!(matches!(compute.feed(job), Err(JobError::AlreadyFed(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_runs_elsewhere_as_if_it_had_run_here() {
    let nodes = Nodes::start(&[0, 1]).await;
    let input = "x".repeat(3 << 20);
    let job = nodes.computes[0].submit(task("upper")).await.unwrap();
    let (outcome, text) = finish(&nodes.computes[0], job, &input).await;
    assert_eq!(outcome, Outcome::Exited(0));
    assert!(text == input.to_uppercase(), "{} bytes came back", text.len());
    let report = nodes.computes[0].job(&job.to_string()).await.unwrap();
    assert_eq!(report.by, Some(nodes.peer(1)));
    let elsewhere =
        || async { nodes.computes[1].jobs().iter().any(|seen| seen.id == job && seen.phase == Phase::Done) };
    wait_until("the news of its end", PATIENCE, elsewhere).await;
    let asked = nodes.computes[1].job(&job.to_string()).await.unwrap();
    assert_eq!((asked.keeper, asked.outcome), (nodes.peer(0), Some(Outcome::Exited(0))));
    assert!(matches!(nodes.computes[1].output(job).await, Err(JobError::KeptElsewhere { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_and_the_arguments_pass_through() {
    let nodes = Nodes::start(&[1]).await;
    let mut exit = task("exit");
    exit.args = vec!["a".into(), "b".into()];
    assert_eq!(run(&nodes.computes[0], exit, "").await.0, Outcome::Exited(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_granted_by_default_and_a_grant_is_exactly_that() {
    let nodes = Nodes::start(&[0, 1]).await;
    let compute = &nodes.computes[0];
    nodes.put("/data/in.txt", "from the tree").await;
    nodes.put("/data/old.txt", "old").await;
    nodes.put("/secret/in.txt", "secret").await;
    assert_eq!(run(compute, task("cat"), "").await.0, Outcome::Exited(1));
    let granted = |name, grant: &str| {
        let mut spec = task(name);
        spec.grants = vec![grant.parse().unwrap()];
        spec
    };
    assert_eq!(
        run(compute, granted("cat", "/data:ro"), "").await,
        (Outcome::Exited(0), "from the tree".into())
    );
    assert_eq!(run(compute, granted("write", "/data:ro"), "").await.0, Outcome::Exited(100));
    let mut failing = granted("write", "/data");
    failing.args.push("exit with 1".into());
    assert_eq!(run(compute, failing, "").await.0, Outcome::Exited(1));
    assert_eq!(nodes.get("/data/out.txt").await, None, "what a task that failed wrote is dropped");
    assert_eq!(run(compute, granted("write", "/data"), "").await.0, Outcome::Exited(0));
    assert_eq!(nodes.get("/data/out.txt").await.as_deref(), Some("written by a guest\n"));
    assert_eq!(nodes.get("/data/old.txt").await, None, "it was removed");
    assert_eq!(nodes.get("/data/in.txt").await.as_deref(), Some("from the tree"), "it was not touched");
    let refused = compute.submit(granted("cat", "/nowhere")).await;
    assert!(matches!(refused, Err(SubmitError::Grant { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_of_the_tree_is_fetched_by_the_node_that_runs_it() {
    let nodes = Nodes::start(&[0, 1]).await;
    let path = VfsPath::parse("/hello.wasm").unwrap();
    let Module::Bytes(wasm) = task("hello").module else { unreachable!() };
    let content = futures::stream::iter([Ok(wasm)]);
    nodes.files.write(&path, Box::pin(content), Attributes::default()).await.unwrap();
    let spec = TaskSpec::new("hello", Module::Path(path.clone()));
    assert_eq!(
        run(&nodes.computes[0], spec.clone(), "").await,
        (Outcome::Exited(0), "hello, swarm\n".into())
    );
    nodes.put("/hello.wasm", "(module)").await;
    assert!(matches!(nodes.computes[0].submit(spec).await, Err(SubmitError::NotWasm)));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_a_guest_and_the_node_goes_on() {
    let nodes = Nodes::start(&[1]).await;
    for (name, limit) in [("loop", Limit::Time), ("eat", Limit::Memory), ("print", Limit::Output)] {
        let mut spec = task(name);
        spec.limits.timeout = Duration::from_millis(if limit == Limit::Time { 300 } else { 10_000 });
        spec.limits.memory_bytes = 8 << 20;
        spec.limits.output_bytes = 1 << 20;
        let (outcome, text) = run(&nodes.computes[0], spec, "").await;
        assert!(
            matches!(outcome, Outcome::LimitReached { limit: reached, .. } if reached == limit),
            "{name}: {outcome}"
        );
        assert!(text.len() <= 1 << 20);
    }
    assert_eq!(run(&nodes.computes[0], task("hello"), "").await.0, Outcome::Exited(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_finishes_what_a_lost_one_began() {
    let mut nodes = Nodes::start(&[0, 1, 1]).await;
    let job = nodes.computes[0].submit(task("slow")).await.unwrap();
    let mut output = nodes.computes[0].output(job).await.unwrap();
    drop(tokio::spawn({
        let mut stdin = nodes.computes[0].feed(job).unwrap();
        async move { stdin.shutdown().await }
    }));
    let first = output.next().await.unwrap();
    assert_eq!(first, Some(OutputFrame::Stdout(Bytes::from_static(b"begun\n"))));
    let by = nodes.computes[0].job(&job.to_string()).await.unwrap().by.unwrap();
    let lost = (1..3).find(|node| nodes.peer(*node) == by).unwrap();
    nodes.computes[lost].stop().await;
    nodes.swarm.stop(lost).await;
    let rest: Vec<_> = output.into_stream().map(Result::unwrap).collect().await;
    assert_eq!(
        rest,
        [OutputFrame::Stdout(Bytes::from_static(b"ended\n")), OutputFrame::Exit(Outcome::Exited(0))]
    );
    let report = nodes.computes[0].job(&job.to_string()).await.unwrap();
    assert_eq!((report.attempts, report.lost.len()), (2, 1));
    assert_eq!(report.by, Some(nodes.peer(3 - lost)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_job_says_why_and_runs_when_its_node_comes() {
    let nodes = Nodes::start(&[1, 1]).await;
    nodes.swarm.partition(&[0], &[1]).await;
    let mut spec = task("hello");
    spec.on = Some(nodes.peer(1));
    let job = nodes.computes[0].submit(spec).await.unwrap();
    let said = || async {
        let report = nodes.computes[0].job(&job.to_string()).await.unwrap();
        report.why.is_some_and(|why| why.contains("not connected"))
    };
    wait_until("the reason", PATIENCE, said).await;
    nodes.swarm.heal().await;
    assert_eq!(finish(&nodes.computes[0], job, "").await.0, Outcome::Exited(0));
    assert_eq!(nodes.computes[0].job(&job.to_string()).await.unwrap().by, Some(nodes.peer(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_needs_more_memory_than_there_is_says_so() {
    let nodes = Nodes::start(&[1]).await;
    let mut spec = task("hello");
    spec.limits.memory_bytes = 2 << 30;
    let job = nodes.computes[0].submit(spec).await.unwrap();
    let why = nodes.computes[0].job(&job.to_string()).await.unwrap().why.unwrap();
    assert!(why.contains("at most 1024 MiB, and 2048 MiB are needed"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_ends_a_job_wherever_it_runs_and_frees_the_slot() {
    let nodes = Nodes::start(&[0, 1]).await;
    let job = nodes.computes[0].submit(task("loop")).await.unwrap();
    wait_for_phase(&nodes.computes[0], job, Phase::Running).await;
    wait_until("the news of it", PATIENCE, || async { !nodes.computes[1].jobs().is_empty() }).await;
    nodes.computes[1].kill(&job.to_string()).await.unwrap();
    assert_eq!(listen(&nodes.computes[0], job).await.0, Outcome::Killed);
    let since = Instant::now();
    assert_eq!(run(&nodes.computes[0], task("hello"), "").await.0, Outcome::Exited(0));
    assert!(since.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_breaks_off_is_not_taken_for_its_end() {
    let nodes = Nodes::start(&[1]).await;
    let job = nodes.computes[0].submit(task("upper")).await.unwrap();
    let mut stdin = nodes.computes[0].feed(job).unwrap();
    stdin.write_all(b"half of").await.unwrap();
    drop(stdin);
    let (outcome, _) = listen(&nodes.computes[0], job).await;
    assert!(matches!(outcome, Outcome::Failed { reason } if reason.contains("broke off")));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_are_shared_by_the_nodes_that_have_slots() {
    let nodes = Nodes::start(&[0, 2, 2]).await;
    let compute = &nodes.computes[0];
    let mut jobs = Vec::new();
    for _ in 0..24 {
        let job = compute.submit(task("hello")).await.unwrap();
        compute.feed(job).unwrap().shutdown().await.unwrap();
        jobs.push(job);
    }
    for job in jobs {
        assert_eq!(listen(compute, job).await, (Outcome::Exited(0), "hello, swarm\n".into()));
    }
    assert!(compute.jobs().iter().all(|job| job.phase == Phase::Done));
}

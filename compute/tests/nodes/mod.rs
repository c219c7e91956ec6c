//! Nodes that compute, with one tree and a memory each, for the tests of this crate.

#![allow(dead_code, reason = "each test uses some of it")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use starfish_compute::function::version::FunctionName;
use starfish_compute::function::{CallSpec, FunctionSpec, Running, Said};
use starfish_compute::{Compute, ComputeOptions, Limits, Module, Outcome};
use starfish_dht::testing::{PATIENCE, TestSwarm, wait_until};
use starfish_fs::mem_vfs::MemVfs;
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Attributes, Parents, Vfs, collect, stream_of};
use starfish_memory::{Memory, MemorySync};

/// Some nodes that compute.
pub(crate) struct Nodes {
    pub(crate) swarm: TestSwarm,
    pub(crate) computes: Vec<Compute>,
    pub(crate) memories: Vec<(Memory, MemorySync)>,
    pub(crate) files: Arc<MemVfs>,
    pub(crate) dir: tempfile::TempDir,
}

impl Nodes {
    /// Nodes with as many slots each as `slots` says.
    pub(crate) async fn start(slots: &[u32]) -> Self {
        let swarm = TestSwarm::start(slots.len()).await;
        let (dir, files) = (tempfile::tempdir().unwrap(), Arc::new(MemVfs::new()));
        let mut nodes = Self { swarm, computes: Vec::new(), memories: Vec::new(), files, dir };
        for (node, slots) in slots.iter().enumerate() {
            let (compute, memory) = nodes.start_one(node, *slots).await;
            nodes.computes.push(compute);
            nodes.memories.push(memory);
        }
        nodes.swarm.wait_connected().await;
        nodes
    }

    pub(crate) async fn start_one(&self, node: usize, slots: u32) -> (Compute, (Memory, MemorySync)) {
        let worker = env!("CARGO_BIN_EXE_starfish-worker").into();
        let options = ComputeOptions { slots, ..ComputeOptions::new(worker, Vec::new()) };
        let folder = self.dir.path().join(node.to_string());
        let network = self.swarm.network(node).clone();
        let memory = Memory::open(&folder.join("memory"), &network.local_peer()).unwrap();
        let replication = memory.join(network.clone()).await.unwrap();
        let tree = Arc::clone(&self.files) as Arc<dyn Vfs>;
        let compute = Compute::start(&folder, network, &memory, tree, options).await.unwrap();
        (compute, (memory, replication))
    }

    pub(crate) async fn put(&self, path: &str, content: &str) {
        let path = VfsPath::parse(path).unwrap();
        self.files.mkdir(&path.parent().unwrap(), Parents::Create).await.unwrap();
        self.files.write(&path, stream_of(content.to_owned()), Attributes::default()).await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let content = self.files.read(&VfsPath::parse(path).unwrap(), 0..u64::MAX).await.unwrap();
        String::from_utf8(collect(content, 1 << 20).await.unwrap().to_vec()).unwrap()
    }

    /// Deploys a sample on the first node, and waits until all know it.
    pub(crate) async fn deploy(&self, name: &str, program: &str) -> String {
        self.deploy_as(spec(name, program)).await
    }

    pub(crate) async fn deploy_as(&self, spec: FunctionSpec) -> String {
        let name = spec.name.clone();
        let version = self.computes[0].deploy(spec).await.unwrap();
        for compute in &self.computes {
            wait_until("the version is known", PATIENCE, || async {
                let functions = compute.functions().await.unwrap();
                functions.iter().any(|function| function.name == name && function.current == version)
            })
            .await;
        }
        version.to_string()
    }

    /// A node is gone, as if it had been killed: it says nothing to anybody.
    pub(crate) async fn lose(&mut self, node: usize) {
        self.swarm.stop(node).await;
        self.computes[node].stop().await;
    }

    pub(crate) async fn wait_idle(&self, node: usize) {
        wait_until("all slots are free", PATIENCE, || async {
            let capacity = self.computes[node].capacity();
            capacity.free == capacity.slots
        })
        .await;
    }
}

impl Nodes {
    /// Waits until the first node knows that these have free slots.
    pub(crate) async fn wait_known(&self, nodes: &[usize]) {
        for node in nodes {
            self.wait_idle(*node).await;
            wait_until("a node takes calls", PATIENCE, || async {
                // Whoever asks at random asks everybody in the end.
                let running = self.computes[0].call(call(self.any().await.as_str(), &[])).await;
                let is_it = self.computes[*node].capacity().free == 0;
                drop(running);
                self.wait_idle(*node).await;
                is_it
            })
            .await;
        }
        for node in nodes {
            self.wait_idle(*node).await;
        }
    }

    async fn any(&self) -> FunctionName {
        self.computes[0].functions().await.unwrap()[0].name.clone()
    }
}

pub(crate) fn sample(program: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(program).with_extension("wat");
    wat::parse_file(path).unwrap().into()
}

pub(crate) fn spec(name: &str, program: &str) -> FunctionSpec {
    FunctionSpec {
        name: name.parse().unwrap(),
        module: Module::Bytes(sample(program)),
        env: Vec::new(),
        grants: Vec::new(),
        reach: Vec::new(),
        limits: Limits::default(),
        http: None,
        replicas: None,
    }
}

pub(crate) fn call(name: &str, args: &[&str]) -> CallSpec {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    CallSpec { name: name.parse().unwrap(), args, handler: None, request: None }
}

/// What a call prints, and how it ends.
pub(crate) async fn heard(running: Running) -> (String, Said) {
    let Running { stdin, mut said } = running;
    drop(stdin);
    let mut text = String::new();
    loop {
        let next = tokio::time::timeout(PATIENCE, said.recv()).await.expect("the call does not end");
        match next.expect("a call has an end") {
            Said::Stdout(bytes) => text += std::str::from_utf8(&bytes).unwrap(),
            Said::Stderr(_) | Said::Head(_) => {}
            last => return (text, last),
        }
    }
}

pub(crate) async fn called(compute: &Compute, spec: CallSpec, input: &[&'static str]) -> (String, Said) {
    let running = compute.call(spec).await.unwrap();
    for part in input {
        running.stdin.send(Bytes::from_static(part.as_bytes())).await.unwrap();
    }
    heard(running).await
}

pub(crate) fn ended(code: i32) -> Said {
    Said::Ended(Outcome::Exited(code))
}

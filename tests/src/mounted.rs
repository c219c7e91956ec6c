//! A swarm whose tree is a folder of this machine.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use crate::running::Running;
use crate::swarm::Swarm;
use crate::wait::wait_until;

/// A swarm, one node of which has the tree mounted.
#[derive(Debug)]
pub struct Mounted {
    // Goes first: a mount without its node would hold up whoever looks at it.
    mount: Option<Running>,
    point: String,
    swarm: Swarm,
}

impl Mounted {
    /// Mounts on the last of so many nodes, if this machine can.
    #[track_caller]
    pub fn new(nodes: usize) -> Option<Self> {
        if File::options().read(true).write(true).open("/dev/fuse").is_err() {
            eprintln!("there is no /dev/fuse: nothing is tested");
            return None;
        }
        let swarm = Swarm::start(nodes);
        let point = swarm.scratch().path("mounted");
        fs::create_dir(&point).expect("there is room for a folder");
        let mut mounted = Self { mount: None, point, swarm };
        match mounted.try_mount() {
            Ok(()) => Some(mounted),
            // A container may have the device and not the right.
            Err(said) if said.contains("refused to mount") => {
                eprintln!("nothing is tested: {said}");
                None
            }
            Err(said) => panic!("{said}"),
        }
    }

    /// Mounts the tree again.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[track_caller]
    pub fn mount(&mut self) {
        self.try_mount().unwrap_or_else(|said| panic!("{said}"));
    }

    fn try_mount(&mut self) -> Result<(), String> {
        let node = self.swarm.nodes().last().expect("a swarm has a node");
        let mut mount = node.spawn(["mount", &self.point]);
        wait_until("the tree is mounted", || mount.has_ended() || mount.stderr().contains("is mounted on"));
        if mount.has_ended() {
            return Err(mount.finish().stderr);
        }
        self.mount = Some(mount);
        Ok(())
    }

    /// The path of a file of the tree in the mounted folder; of the folder itself without a name.
    pub fn path(&self, name: &str) -> String {
        if name.is_empty() { self.point.clone() } else { format!("{}/{name}", self.point) }
    }

    /// The swarm.
    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// Whether anything is mounted on the folder.
    pub fn is_there(&self) -> bool {
        is_mounted(&self.point)
    }

    /// The process that serves the mount. Dropping it kills it.
    ///
    /// # Panics
    /// If it was taken before.
    #[track_caller]
    pub fn process(&mut self) -> Running {
        self.mount.take().expect("the tree is mounted")
    }

    /// Runs a program in the mounted folder, where only success will do; gives what it printed. `None` where it is not
    /// installed.
    #[track_caller]
    pub fn run(&self, program: &str, words: &[&str]) -> Option<String> {
        let mut command = Command::new(program);
        command.args(words).current_dir(&self.point).stdin(Stdio::null());
        // Nothing of the user's own settings.
        command.env("HOME", self.swarm.scratch().path("")).env("GIT_CONFIG_NOSYSTEM", "1");
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => {
                eprintln!("{program} cannot be run, its part is not tested: {error}");
                return None;
            }
        };
        let (stdout, stderr) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
        assert!(output.status.success(), "{program} {words:?} ended with {}:\n{stderr}", output.status);
        Some(String::from_utf8(stdout).expect("programs print UTF-8"))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The folder is removed next, and that must not reach through a mount.
        drop(self.mount.take());
        if is_mounted(&self.point) {
            let _ = self.swarm.nodes()[0].run(["umount", "--force", &self.point]);
        }
    }
}

fn is_mounted(point: &str) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("Linux lists its mounts");
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(point))
}

//! A network of its own for some nodes: namespaces joined by a cable, which nothing can leave.

use std::process::{Command, id};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Several LANs of one process at the same time need names of their own.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Two machines on one LAN, as far as their networks go: two namespaces, and a cable between them. Needs Linux,
/// iproute2 and root.
#[derive(Debug)]
pub struct Lan {
    namespaces: [String; 2],
}

impl Lan {
    /// Lays the cable; an error says what is missing on this machine.
    pub fn lay() -> Result<Self, String> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("starfish-{}-{number}-{end}", id());
        let lan = Self { namespaces: [name("a"), name("b")] };
        let [a, b] = &lan.namespaces;
        ip(&["netns", "add", a])?;
        ip(&["netns", "add", b])?;
        ip(&["link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b])?;
        for (namespace, address) in [(a, "10.77.0.1/24"), (b, "10.77.0.2/24")] {
            ip(&["-n", namespace, "addr", "add", address, "dev", "eth0"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
        }
        Ok(lan)
    }

    /// The namespaces' names, for [`crate::Start::with_namespace`].
    pub fn namespaces(&self) -> [&str; 2] {
        let [a, b] = &self.namespaces;
        [a, b]
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in &self.namespaces {
            // The cable goes with its ends. What was never made cannot be removed.
            let _ = ip(&["netns", "delete", namespace]);
        }
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let what = format!("ip {}", words.join(" "));
    let output = Command::new("ip").args(words).output().map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

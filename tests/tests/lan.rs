//! Members of one swarm find each other on a LAN, with nobody to tell them where.
//!
//! The LAN is two network namespaces with a cable between them, so no multicast gets out. That needs root and
//! iproute2; without them the test says that it was skipped.

use std::fs;
use std::io::{self, Write};

use starfish_tests::{Lan, Start, Swarm};

#[test]
fn members_that_lost_every_address_find_each_other_on_the_lan() {
    let lan = match Lan::lay() {
        Ok(lan) => lan,
        Err(missing) => {
            // Past the test runner, which keeps what passing tests print to itself.
            let _ = writeln!(io::stderr(), "skipped: no LAN can be laid here ({missing})");
            return;
        }
    };
    let on = |namespace: &str| {
        let start = Start::default().with_namespace(namespace);
        start.with_env("STARFISH_LISTEN", "0.0.0.0").with_env("STARFISH_MDNS", "true")
    };
    let swarm = Swarm::start_as(lan.namespaces().map(on));

    for node in swarm.nodes() {
        node.terminate();
        fs::remove_file(node.data_dir().join("swarm/network/peers")).unwrap();
    }
    for node in swarm.nodes() {
        node.restart();
    }
    swarm.wait_connected();
}

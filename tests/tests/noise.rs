//! Garbage and silence on the swarm's port, while the swarm goes on.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};

use starfish_tests::{Chance, Swarm, wait_until};

/// Connections that say nothing at all, and stay.
const SILENT: usize = 500;
/// Connections that say something that nobody understands.
const LOUD: usize = 50;
/// Datagrams that nobody understands.
const DATAGRAMS: usize = 5_000;

#[test]
fn garbage_and_silence_on_the_swarms_port_disturb_nobody() {
    let mut swarm = Swarm::start(2);
    let port = (Ipv4Addr::LOCALHOST, swarm.node(0).port());
    let silent: Vec<TcpStream> = (0..SILENT).filter_map(|_| TcpStream::connect(port).ok()).collect();
    let mut chance = Chance::new("noise");
    for _ in 0..LOUD {
        if let Ok(mut stream) = TcpStream::connect(port) {
            let length = chance.below(64 << 10);
            let _ = stream.write_all(&chance.bytes(length));
        }
    }
    let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for number in 0..DATAGRAMS {
        let length = chance.below(1400);
        let mut datagram = chance.bytes(length);
        // Every other one pretends to be the first of a QUIC connection.
        if number % 2 == 0 && length > 5 {
            datagram[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        let _ = udp.send_to(&datagram, port);
    }

    swarm.node(1).ok(["mem", "set", "in the noise", "a word"]);
    wait_until("members hear each other", || {
        swarm.node(0).run(["mem", "get", "in the noise"]).stdout == b"a word\n"
    });
    let newcomer = swarm.add();
    let (node, newcomer) = (swarm.node(0), swarm.node(newcomer));
    wait_until("newcomers are let in", || node.is_connected_to(&newcomer.id()));
    assert!(node.is_connected_to(&swarm.node(1).id()));
    drop(silent);
}

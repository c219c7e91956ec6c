//! The swarm's port: one number for UDP and TCP.

use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::Path;

use starfish_dht::Multiaddr;

/// How often a port that is free for TCP may turn out to be taken for UDP.
const TRIES: usize = 32;

/// `wanted`, or for 0 a port that is free for UDP and TCP: the one of the last start, which `file` remembers, if that is
/// free, so that members who were down as well find this node again.
pub(super) fn choose(wanted: u16, listen: &[IpAddr], file: &Path) -> io::Result<u16> {
    let ip = listen.first().copied().unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let last = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
    let port = match (wanted, last) {
        (0, Some(last)) if is_free(ip, last) => last,
        (0, _) => free(ip)?,
        (wanted, _) => wanted,
    };
    // Not to know it next time is no reason not to start.
    let _ = std::fs::write(file, format!("{port}\n"));
    Ok(port)
}

fn is_free(ip: IpAddr, port: u16) -> bool {
    port != 0 && TcpListener::bind((ip, port)).is_ok() && UdpSocket::bind((ip, port)).is_ok()
}

fn free(ip: IpAddr) -> io::Result<u16> {
    let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        let tcp = TcpListener::bind((ip, 0))?;
        let port = tcp.local_addr()?.port();
        match UdpSocket::bind((ip, port)) {
            Ok(_) => return Ok(port),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Where to listen: QUIC first, then TCP, on each address that this machine has.
pub(super) fn addresses(port: u16, listen: &[IpAddr]) -> Vec<Multiaddr> {
    let usable = listen.iter().filter(|ip| is_usable(ip));
    let texts = usable.flat_map(|ip| {
        let family = if ip.is_ipv4() { "ip4" } else { "ip6" };
        [format!("/{family}/{ip}/udp/{port}/quic-v1"), format!("/{family}/{ip}/tcp/{port}")]
    });
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// The default asks for IPv6, and a machine without it is no fault; any other address must work or be an error.
fn is_usable(ip: &IpAddr) -> bool {
    !(ip.is_ipv6() && ip.is_unspecified()) || UdpSocket::bind((*ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_free_for_both() {
        let (local, folder) = ([IpAddr::from([127, 0, 0, 1])], tempfile::tempdir().unwrap());
        let file = folder.path().join("port");
        let port = choose(0, &local, &file).unwrap();
        assert_ne!(port, 0);
        assert_eq!(choose(0, &local, &file).unwrap(), port, "the same again");
        let taken = TcpListener::bind((local[0], port)).unwrap();
        assert_ne!(choose(0, &local, &file).unwrap(), port);
        drop(taken);
        assert_eq!(choose(7, &local, &file).unwrap(), 7);
    }

    #[test]
    fn each_address_is_listened_on_in_both_ways() {
        let texts: Vec<String> =
            addresses(7, &[IpAddr::from([127, 0, 0, 1])]).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["/ip4/127.0.0.1/udp/7/quic-v1", "/ip4/127.0.0.1/tcp/7"]);
    }
}

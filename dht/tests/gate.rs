//! Nobody gets in without a valid token: on QUIC, on TCP and over a relay.
//!
//! Strangers are of two kinds. Some speak libp2p as well as we do and lack a good token; they run the real
//! [`Network`]. Others stop after encryption and send nothing, or garbage; they are bare transports.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

use std::future::poll_fn;
use std::io::Write;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use futures::{AsyncReadExt, AsyncWriteExt, Future};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use libp2p::core::transport::{Boxed, DialOpts, PortUse};
use libp2p::core::upgrade::Version;
use libp2p::core::{Endpoint, Transport};
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, noise, quic, tcp, yamux};
use starfish_dht::config::NetworkConfig;
use starfish_dht::membership::{Credentials, Revocations, Role};
use starfish_dht::testing::{PATIENCE, dialable, wait_until};
use starfish_dht::{Identity, Network};

const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
const TCP: &str = "/ip4/127.0.0.1/tcp/0";

struct Founder {
    network: Network,
    credentials: Credentials,
}

fn start(identity: Identity, credentials: &Credentials, listen: &str) -> Network {
    let config = NetworkConfig { listen: vec![listen.parse().unwrap()], ..NetworkConfig::default() };
    Network::start(identity, credentials, Revocations::default(), &config).unwrap()
}

fn found(listen: &str) -> Founder {
    let identity = Identity::generate();
    let credentials = Credentials::found(identity.peer_id()).unwrap();
    Founder { network: start(identity, &credentials, listen), credentials }
}

fn soon() -> SystemTime {
    SystemTime::now() + Duration::from_secs(600)
}

/// Dials the founder with these credentials, and says whether it was let in.
async fn is_let_in(founder: &Founder, identity: Identity, credentials: &Credentials, listen: &str) -> bool {
    let guest = start(identity, credentials, listen);
    let host = founder.network.local_peer();
    guest.dial(vec![dialable(&founder.network).await]).await;
    wait_until("an answer of the gate", PATIENCE, || async {
        guest.is_connected(&host) || guest.dial_failure(&host).is_some()
    })
    .await;
    let let_in = guest.is_connected(&host) && founder.network.is_connected(&guest.local_peer());
    // A connection may die right after it came up on the side that dialled: refused is refused.
    guest.stop().await;
    let_in
}

#[tokio::test(flavor = "multi_thread")]
async fn only_valid_tokens_open_the_gate_on_quic_and_tcp() {
    keep_log();
    for listen in [QUIC, TCP] {
        let founder = found(listen);
        let rights = Role::Peer.rights();
        let from = |token, peer| Credentials::from_invite(founder.credentials.swarm(), &token, peer).unwrap();
        let ticket = || founder.credentials.invite(rights, soon(), None).unwrap();

        let guest = Identity::generate();
        let good = from(ticket(), guest.peer_id());
        assert!(is_let_in(&founder, guest, &good, listen).await, "a good ticket on {listen}");

        let guest = Identity::generate();
        let stolen = from(ticket(), PeerId::random());
        let peer = guest.peer_id();
        assert!(!is_let_in(&founder, guest, &stolen, listen).await, "made for another peer, on {listen}");
        refused(peer, "made for another peer").await;

        let guest = Identity::generate();
        let peer = guest.peer_id();
        let stranger = Credentials::found(peer).unwrap();
        assert!(!is_let_in(&founder, guest, &stranger, listen).await, "another swarm, on {listen}");
        refused(peer, "token of another swarm").await;

        let guest = Identity::generate();
        let peer = guest.peer_id();
        let end = SystemTime::now() + Duration::from_secs(2);
        let brief = from(founder.credentials.invite(rights, end, None).unwrap(), peer);
        wait_until("the end of the ticket", PATIENCE, || async { SystemTime::now() > end }).await;
        assert!(!is_let_in(&founder, guest, &brief, listen).await, "expired, on {listen}");
        refused(peer, "expired").await;

        let guest = Identity::generate();
        let peer = guest.peer_id();
        let leaked = ticket();
        let late = from(leaked.clone(), peer);
        let id = leaked.revocation_id(founder.credentials.swarm()).unwrap();
        founder.network.revocations().revoke_token(id);
        assert!(!is_let_in(&founder, guest, &late, listen).await, "revoked, on {listen}");
        refused(peer, "revoked").await;
    }
}

/// Members on different machines use the same port, so a ticket's loopback address leads a newcomer to itself, or to a
/// third member, and sooner than the address that is right.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_lead_elsewhere_do_not_keep_a_guest_out() {
    for listen in [QUIC, TCP] {
        let founder = found(listen);
        let host = founder.network.local_peer();
        let member = || {
            let identity = Identity::generate();
            let ticket = founder.credentials.invite(Role::Peer.rights(), soon(), None).unwrap();
            let credentials =
                Credentials::from_invite(founder.credentials.swarm(), &ticket, identity.peer_id()).unwrap();
            start(identity, &credentials, listen)
        };
        let (guest, third) = (member(), member());
        let mut addresses = Vec::new();
        for network in [&guest, &third] {
            let mut address = dialable(network).await;
            address.pop();
            addresses.push(address.with_p2p(host).unwrap());
        }
        addresses.push(far_away(&dialable(&founder.network).await).await);
        guest.dial(addresses).await;
        wait_until("the first answer", PATIENCE, || async {
            guest.is_connected(&host) || guest.dial_failure(&host).is_some()
        })
        .await;
        assert_eq!(guest.dial_failure(&host), None, "on {listen}");
        assert!(!guest.is_connected(&third.local_peer()));
    }
}

/// The same node at an address that takes a tenth of a second to reach.
async fn far_away(address: &Multiaddr) -> Multiaddr {
    const DELAY: Duration = Duration::from_millis(100);
    let mut parts = address.iter();
    let (_, port) = (parts.next(), parts.next().unwrap());
    match port {
        Protocol::Tcp(port) => {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let here = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                let (mut near, _) = listener.accept().await.unwrap();
                tokio::time::sleep(DELAY).await;
                let mut far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
            with_port(address, Protocol::Tcp(here))
        }
        Protocol::Udp(port) => {
            let near = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let far = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            far.connect(("127.0.0.1", port)).await.unwrap();
            let here = near.local_addr().unwrap().port();
            tokio::spawn(async move {
                let (mut out, mut back) = ([0; 2048], [0; 2048]);
                let mut guest = None;
                loop {
                    tokio::select! {
                        Ok((length, from)) = near.recv_from(&mut out) => {
                            if guest.replace(from).is_none() {
                                tokio::time::sleep(DELAY).await;
                            }
                            far.send(&out[..length]).await.unwrap();
                        }
                        Ok(length) = far.recv(&mut back), if guest.is_some() => {
                            near.send_to(&back[..length], guest.unwrap()).await.unwrap();
                        }
                    }
                }
            });
            with_port(address, Protocol::Udp(here))
        }
        other => panic!("{other} has no port"),
    }
}

fn with_port(address: &Multiaddr, port: Protocol<'_>) -> Multiaddr {
    address.replace(1, |_| Some(port.acquire())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_learns_nothing_whatever_it_sends() {
    keep_log();
    for listen in [QUIC, TCP] {
        let founder = found(listen);
        let address = dialable(&founder.network).await;
        let tampered = {
            let token = founder.credentials.invite(Role::Peer.rights(), soon(), None).unwrap();
            let mut bytes = token.as_bytes().to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            frame(&bytes)
        };
        let openings: [(&str, Vec<u8>, &str); 6] = [
            ("no token", frame(&[]), "no valid token"),
            ("garbage in a frame", frame(&[0xAB; 300]), "no valid token"),
            ("a tampered token", tampered, "token"),
            ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec(), "does not speak this protocol"),
            ("a length too long", vec![1, 0xFF, 0xFF], "too long"),
            ("half a frame, then the end", vec![1, 1], "closed the connection"),
        ];
        for (what, opening, reason) in openings {
            let (peer, shown) = knock(&address, &opening).await;
            assert_eq!(shown, b"", "{what} on {listen} was answered");
            refused(peer, reason).await;
        }
        assert!(founder.network.connected().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_stays_silent_keeps_nobody_out() {
    keep_log();
    let founder = found(TCP);
    let address = dialable(&founder.network).await;
    let Some(Protocol::Tcp(port)) = address.iter().nth(1) else { panic!("{address} is no TCP address") };
    let mut sockets = Vec::new();
    for _ in 0..450 {
        sockets.push(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let mut encrypted = Vec::new();
    for _ in 0..50 {
        encrypted.push(encrypt(&address).await);
    }
    let crowd = Instant::now();
    let guest = Identity::generate();
    let token = founder.credentials.invite(Role::Peer.rights(), soon(), None).unwrap();
    let good = Credentials::from_invite(founder.credentials.swarm(), &token, guest.peer_id()).unwrap();
    assert!(is_let_in(&founder, guest, &good, TCP).await, "a member among 500 silent strangers");
    for (peer, mut muxer) in encrypted {
        let closed = poll_fn(|context| muxer.poll_inbound_unpin(context).map(|stream| stream.is_err()));
        let closed = tokio::time::timeout(PATIENCE, closed).await;
        assert_eq!(closed, Ok(true), "a silent connection was left open");
        refused(peer, "nothing valid was shown within 5 s").await;
    }
    println!("500 silent connections were gone after {:?}", crowd.elapsed());
    drop(sockets);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_stands_at_the_end_of_a_relayed_connection_too() {
    keep_log();
    let rights = Role::Peer.rights();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let relay_address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let identity = Identity::generate();
    let credentials = Credentials::found(identity.peer_id()).unwrap();
    let config = NetworkConfig {
        listen: vec![relay_address.clone()],
        external: vec![relay_address.clone()],
        ..NetworkConfig::default()
    };
    let relay = Network::start(identity, &credentials, Revocations::default(), &config).unwrap();
    let via = relay_address.with(Protocol::P2p(relay.local_peer()));
    let member = || {
        let identity = Identity::generate();
        let token = credentials.invite(rights, soon(), None).unwrap();
        let own = Credentials::from_invite(credentials.swarm(), &token, identity.peer_id()).unwrap();
        (identity, own)
    };

    let (identity, own) = member();
    let config = NetworkConfig { relays: vec![via.clone()], ..NetworkConfig::default() };
    let hidden = Network::start(identity, &own, Revocations::default(), &config).unwrap();
    wait_until("a place at the relay", PATIENCE, || async { !hidden.addresses().is_empty() }).await;
    let circuit = via.with(Protocol::P2pCircuit).with(Protocol::P2p(hidden.local_peer()));

    let (identity, own) = member();
    let welcome = start(identity, &own, TCP);
    welcome.dial(vec![circuit.clone()]).await;
    wait_until("a relayed connection", PATIENCE, || async { welcome.is_connected(&hidden.local_peer()) })
        .await;

    let (identity, own) = member();
    let outcast = start(identity, &own, TCP);
    hidden.revocations().revoke_peer(outcast.local_peer());
    outcast.dial(vec![circuit]).await;
    refused(outcast.local_peer(), "revoked").await;
    assert!(!hidden.is_connected(&outcast.local_peer()));
}

/// Encrypts and multiplexes like a member, and goes no further.
async fn encrypt(address: &Multiaddr) -> (PeerId, StreamMuxerBox) {
    let keypair = Keypair::generate_ed25519();
    let peer = keypair.public().to_peer_id();
    let is_quic = address.iter().any(|part| part == Protocol::QuicV1);
    let mut transport: Boxed<(PeerId, StreamMuxerBox)> = if is_quic {
        quic::tokio::Transport::new(quic::Config::new(&keypair))
            .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
            .boxed()
    } else {
        tcp::tokio::Transport::default()
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&keypair).unwrap())
            .multiplex(yamux::Config::default())
            .boxed()
    };
    let address: Multiaddr = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let mut dialling = pin!(transport.dial(address, options).unwrap());
    let (_, muxer) = poll_fn(|context| {
        let _ = std::pin::Pin::new(&mut transport).poll(context);
        dialling.as_mut().poll(context)
    })
    .await
    .unwrap();
    // QUIC's endpoint lives as long as its transport.
    tokio::spawn(async move {
        poll_fn(|context| {
            let _ = std::pin::Pin::new(&mut transport).poll(context);
            Poll::<()>::Pending
        })
        .await;
    });
    (peer, muxer)
}

/// Sends `opening` on the first stream and returns all that comes back until the other side closes.
async fn knock(address: &Multiaddr, opening: &[u8]) -> (PeerId, Vec<u8>) {
    let (peer, mut muxer) = encrypt(address).await;
    let mut stream = poll_fn(|context| muxer.poll_outbound_unpin(context)).await.unwrap();
    let talk = async {
        let mut shown = Vec::new();
        let _ = stream.write_all(opening).await;
        let _ = stream.flush().await;
        let _ = stream.close().await;
        let _ = stream.read_to_end(&mut shown).await;
        shown
    };
    let mut talk = pin!(talk);
    let talking = poll_fn(|context| {
        if let Poll::Ready(shown) = talk.as_mut().poll(context) {
            return Poll::Ready(shown);
        }
        while let Poll::Ready(Ok(_)) = muxer.poll_unpin(context) {}
        Poll::Pending
    });
    (peer, tokio::time::timeout(PATIENCE, talking).await.expect("the gate closes in time"))
}

fn frame(token: &[u8]) -> Vec<u8> {
    let length = u16::try_from(token.len()).unwrap();
    [&[1], &length.to_be_bytes()[..], token].concat()
}

/// Waits for the line in the log that says why `peer` was refused.
async fn refused(peer: PeerId, reason: &str) {
    let peer = peer.to_string();
    wait_until(&format!("a log line about {peer} with {reason:?}"), PATIENCE, || async {
        let log = log().lock().unwrap();
        String::from_utf8_lossy(&log).lines().any(|line| {
            line.contains("refused a connection") && line.contains(&peer) && line.contains(reason)
        })
    })
    .await;
}

/// Everything logged so far in this process.
fn log() -> &'static Arc<Mutex<Vec<u8>>> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    LOG.get_or_init(Arc::default)
}

/// Sends this process's log to [`log`]; every test that reads it begins with this.
fn keep_log() {
    let _ = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).try_init();
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        log().lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

//! What crates above rely on: members find each other, calls, streams and gossip arrive, partitions heal.

use std::time::Duration;

use futures::StreamExt;

use starfish_dht::gossip::MAX_MESSAGE;
use starfish_dht::testing::{PATIENCE, TestSwarm, dialable, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread")]
async fn members_find_each_other_through_one() {
    let swarm = TestSwarm::start(5).await;
    for index in 0..5 {
        assert_eq!(swarm.network(index).members().iter().filter(|member| member.alive).count(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_answered_and_unknown_ones_refused() {
    let swarm = TestSwarm::start(2).await;
    let (near, far) = (swarm.network(0), swarm.network(1));
    far.serve("/test/double/1", |_, number: u64| async move { number * 2 }).unwrap();
    assert_eq!(near.call::<u64, u64>(far.local_peer(), "/test/double/1", &21).await.unwrap(), 42);
    assert!(near.call::<u64, u64>(far.local_peer(), "/test/nothing/1", &21).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_streams_arrives_whole() {
    let swarm = TestSwarm::start(2).await;
    let (near, far) = (swarm.network(0).clone(), swarm.network(1));
    let mut incoming = far.accept("/test/burst/1").unwrap();
    let peer = far.local_peer();
    let opened = futures::future::try_join_all((0..200_u8).map(|number| {
        let near = near.clone();
        async move {
            let mut stream = near.open(peer, "/test/burst/1").await?;
            stream.write_all(&[number]).await?;
            stream.shutdown().await?;
            anyhow::Ok(stream)
        }
    }));
    let received = async {
        let mut sum = 0;
        for _ in 0..200 {
            let (_, mut stream) = incoming.next().await.expect("the network runs");
            sum += u32::from(stream.read_u8().await.expect("one byte each"));
        }
        sum
    };
    let (opened, sum) = tokio::join!(opened, received);
    opened.unwrap();
    assert_eq!(sum, (0..200).sum::<u32>());
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_reaches_everybody() {
    let swarm = TestSwarm::start(4).await;
    let mut subscriptions = Vec::new();
    for index in 0..4 {
        subscriptions.push(swarm.network(index).subscribe("news").await.unwrap());
    }
    let author = swarm.network(0).local_peer();
    for subscription in &mut subscriptions[1..] {
        // Gossip promises no delivery, least of all to one that has just subscribed: so it is said until heard.
        let heard = async {
            loop {
                swarm.network(0).publish("news", b"tide is in".to_vec()).await.unwrap();
                if let Ok(gossip) =
                    tokio::time::timeout(Duration::from_millis(200), subscription.next()).await
                {
                    break gossip;
                }
            }
        };
        let gossip = tokio::time::timeout(PATIENCE, heard).await.unwrap().unwrap();
        assert_eq!((gossip.author, &gossip.data[..]), (author, &b"tide is in"[..]));
    }
}

/// Says something until everybody else has heard it.
async fn say_until_heard(swarm: &TestSwarm, by: usize, heard: &[watch::Receiver<u64>]) {
    let before: Vec<u64> = heard.iter().map(|heard| *heard.borrow()).collect();
    wait_until("a word to be heard", PATIENCE, || async {
        let _ = swarm.network(by).publish("news", format!("calm {by}").into_bytes()).await;
        let others = heard.iter().zip(&before).enumerate().filter(|(node, _)| *node != by);
        others.into_iter().all(|(_, (heard, before))| *heard.borrow() > *before)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_goes_on_after_a_flood_that_was_too_much() {
    flood(40_000, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gossip_goes_on_after_a_flood_of_the_longest_messages() {
    flood(2000, MAX_MESSAGE - 4).await;
}

/// Says much, and then something that all must hear.
#[expect(clippy::unwrap_used, reason = "part of two tests")]
async fn flood(messages: u32, padding: usize) {
    let swarm = TestSwarm::start(3).await;
    let (mut heard, mut listening) = (Vec::new(), JoinSet::new());
    for index in 0..3 {
        let mut subscription = swarm.network(index).subscribe("news").await.unwrap();
        let (count, calm_words) = watch::channel(0);
        heard.push(calm_words);
        listening.spawn(async move {
            while let Some(gossip) = subscription.next().await {
                if gossip.data.starts_with(b"calm") {
                    count.send_modify(|count| *count += 1);
                }
            }
        });
    }
    say_until_heard(&swarm, 0, &heard).await;
    let flood = (0..messages).map(|number| {
        let network = swarm.network(usize::from(number % 2 == 1)).clone();
        async move {
            // What does not get through is lost, as gossip is.
            let _ = network.publish("news", [&number.to_le_bytes()[..], &vec![0; padding]].concat()).await;
        }
    });
    futures::stream::iter(flood).buffer_unordered(256).collect::<()>().await;
    for by in [2, 1, 0] {
        say_until_heard(&swarm, by, &heard).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_heals_without_a_ticket() {
    let swarm = TestSwarm::start(4).await;
    swarm.partition(&[0, 1], &[2, 3]).await;
    assert!(swarm.network(0).is_connected(&swarm.network(1).local_peer()));
    assert!(swarm.network(2).is_connected(&swarm.network(3).local_peer()));
    swarm.heal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_are_found_by_their_providers() {
    let swarm = TestSwarm::start(3).await;
    let key = [7; 32];
    swarm.network(1).provide(key).await.unwrap();
    let provider = swarm.network(1).local_peer();
    wait_until("the provider record", PATIENCE, || async {
        swarm.network(2).providers(key).await.unwrap() == [provider]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_member_is_noticed_and_missed() {
    let mut swarm = TestSwarm::start(3).await;
    let gone = swarm.network(2).local_peer();
    swarm.stop(2).await;
    wait_until("its absence", PATIENCE, || async {
        let members = swarm.network(0).members();
        members.iter().any(|member| member.peer == gone && !member.alive)
    })
    .await;
    assert!(swarm.network(0).open(gone, "/test/nothing/1").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomer_becomes_a_lasting_member() {
    let swarm = TestSwarm::start(2).await;
    let credentials = swarm.credentials(1);
    assert!(credentials.read().unwrap().is_provisional());
    starfish_dht::enrol::ask(swarm.network(1), swarm.network(0).local_peer(), credentials).await.unwrap();
    assert!(!credentials.read().unwrap().is_provisional());
    let end = std::time::SystemTime::now() + Duration::from_secs(60);
    let rights = starfish_dht::membership::Role::Peer.rights();
    assert!(credentials.read().unwrap().invite(rights, end, None).is_ok(), "a full member may invite");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_member_is_cut_off() {
    let swarm = TestSwarm::start(2).await;
    let (near, far) = (swarm.network(0), swarm.network(1));
    near.revocations().revoke_peer(far.local_peer());
    near.enforce_revocations().await;
    wait_until("the cut", PATIENCE, || async { !near.is_connected(&far.local_peer()) }).await;
    far.dial(vec![dialable(near).await]).await;
    wait_until("the refusal", PATIENCE, || async { far.dial_failure(&near.local_peer()).is_some() }).await;
    assert!(!near.is_connected(&far.local_peer()));
}

//! Share links: what they open, at which nodes, and what they do not.

use std::time::Duration;

use starfish_node::dht::testing::wait_until;
use starfish_node::fs::Vfs;
use starfish_node::wire::{InviteRequest, RevokeRequest, ShareRequest};

use crate::browser::Browser;
use crate::common::TestNode;

const PATIENCE: Duration = Duration::from_secs(30);

/// The path of a link to `path`, without host and port.
async fn share(node: &TestNode, path: &str, expires_s: Option<u64>) -> String {
    let request = ShareRequest { path: path.parse().unwrap(), expires_s };
    let share = node.client().share(&request).await.unwrap();
    let here = format!("http://{}", node.node.api_address());
    share.url.strip_prefix(&here).unwrap().to_owned()
}

/// Status and code of a refusal, which must say nothing of what is there.
async fn refused(browser: &Browser, path: &str) -> (u16, String) {
    let answer = browser.get(path).await;
    for secret in ["docs", "secret", "report", "the tide", "/fs"] {
        assert!(!answer.text().contains(secret), "{path} learned of {secret:?}: {}", answer.text());
    }
    answer.refusal()
}

async fn with_files() -> TestNode {
    let node = TestNode::start().await;
    let files = node.client().files();
    let browser = Browser::of(&node);
    for path in ["/fs/docs/report.txt", "/fs/docs/sub/deep", "/fs/docs-secret/f", "/fs/secret.txt"] {
        assert_eq!(browser.put(path, "the tide is in").await.status, 201);
    }
    for (link, target) in [
        ("/docs/inside", "report.txt"),
        ("/docs/outside", "../secret.txt"),
        ("/docs/above", "/"),
        ("/docs/lost", "/nowhere"),
    ] {
        files.symlink(&link.parse().unwrap(), target).await.unwrap();
    }
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_shows_one_folder_to_whoever_has_it() {
    let node = with_files().await;
    let stranger = Browser::stranger(&node);
    let link = share(&node, "/docs", None).await;
    assert!(link.ends_with("/docs/") && link.len() < 700, "{link}");
    let page = stranger.get(&link).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("href=\"report.txt\"") && page.text().contains("href=\"sub/\""));
    assert!(!page.text().contains("../"), "nothing leads out of it");
    assert!(stranger.get(&format!("{link}sub/")).await.text().contains("href=\"../\""));
    assert_eq!(stranger.get(&format!("{link}report.txt")).await.text(), "the tide is in");
    assert_eq!(stranger.get(&format!("{link}inside")).await.text(), "the tide is in");
    let part = stranger.with("range", "bytes=4-7").get(&format!("{link}sub/deep")).await;
    assert_eq!((part.status, part.text()), (206, "tide"));
    assert_eq!(stranger.ask("HEAD", &format!("{link}report.txt"), "").await.header("content-length"), "14");
    let listed = stranger.get(&format!("{link}?json")).await;
    assert!(!listed.text().contains("target") && !listed.text().contains("nowhere"), "{}", listed.text());

    let file = share(&node, "/docs/report.txt", None).await;
    assert_eq!(stranger.get(&file).await.text(), "the tide is in");
    let all = share(&node, "/", None).await;
    assert_eq!(stranger.get(&format!("{all}secret.txt")).await.text(), "the tide is in");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_nothing_else() {
    let node = with_files().await;
    let stranger = Browser::stranger(&node);
    let link = share(&node, "/docs", None).await;
    let voucher = link.trim_end_matches("/docs/");
    let elsewhere = (403, "link-elsewhere".to_owned());
    for path in ["", "/", "/secret.txt", "/docs-secret/f", "/docs-secret/", "/none", "/etc", "/doc"] {
        assert_eq!(refused(&stranger, &format!("{voucher}{path}")).await, elsewhere, "{path}");
    }
    for path in ["outside", "above/", "above/secret.txt", "above/docs-secret/f", "lost"] {
        assert_eq!(refused(&stranger, &format!("{link}{path}")).await, elsewhere, "{path}");
    }
    for path in
        ["../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "sub/../../secret.txt", "%2fsecret.txt"]
    {
        let answer = stranger.get(&format!("{link}{path}")).await;
        assert_eq!(answer.refusal(), (400, "bad-path".into()), "{path}");
    }
    assert_eq!(stranger.get(&format!("{link}none")).await.refusal(), (404, "not-found".into()));

    for method in ["PUT", "DELETE", "POST", "PROPFIND", "MKCOL", "MOVE", "OPTIONS"] {
        let answer = stranger.ask(method, &format!("{link}report.txt"), "x").await;
        assert_eq!(answer.refusal(), (401, "no-token".into()), "{method}");
        let answer = Browser::of(&node).ask(method, &format!("{link}report.txt"), "x").await;
        assert_eq!(answer.status, 405, "{method}");
    }
    let token = voucher.trim_start_matches("/s/");
    let bearer = stranger.with("authorization", &format!("Bearer {token}"));
    assert_eq!(bearer.get("/fs/docs/report.txt").await.status, 401, "it is no token of the API");
    let foreign = stranger.with("origin", "http://evil.example");
    assert_eq!(refused(&foreign, &link).await, (403, "foreign-origin".into()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_expired_or_was_changed_or_revoked_opens_nothing() {
    let node = with_files().await;
    let stranger = Browser::stranger(&node);
    let for_no_time = ShareRequest { path: "/docs".parse().unwrap(), expires_s: Some(0) };
    assert!(node.client().share(&for_no_time).await.is_err());
    let gone = share(&node, "/docs", Some(1)).await;
    wait_until("the link to expire", PATIENCE, || async { stranger.get(&gone).await.status == 403 }).await;
    assert_eq!(refused(&stranger, &gone).await, (403, "link-expired".into()));

    let link = share(&node, "/docs", None).await;
    let bad = (403, "bad-link".to_owned());
    for position in [3, 10, 60, 100, 200, link.len() - 12] {
        let mut changed = link.clone().into_bytes();
        changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
        assert_eq!(refused(&stranger, str::from_utf8(&changed).unwrap()).await, bad, "{position}");
    }
    for nonsense in ["/s/x/docs/", "/s//docs/", "/s/../docs/", "/s/%00/docs/"] {
        assert_eq!(refused(&stranger, nonsense).await, bad, "{nonsense}");
    }

    let elsewhere = with_files().await;
    let theirs = share(&elsewhere, "/docs", None).await;
    assert_eq!(refused(&stranger, &theirs).await, bad, "of another swarm");
    elsewhere.stop().await;

    let other = share(&node, "/docs", None).await;
    node.client().revoke(&RevokeRequest::Link(link.clone())).await.unwrap();
    assert_eq!(refused(&stranger, &link).await, (403, "link-revoked".into()));
    assert_eq!(stranger.get(&other).await.status, 200, "others stay");
    assert!(node.client().revoke(&RevokeRequest::Link("/s/nonsense/".into())).await.is_err());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_answers_a_link_until_its_maker_is_revoked() {
    let first = with_files().await;
    let second = TestNode::start_in(tempfile::tempdir().unwrap(), Some(first.ticket().await)).await;
    wait_until("the membership lasts", PATIENCE, async || {
        second.client().workers().await.unwrap().iter().all(|worker| worker.name != "enrol" || !worker.alive)
    })
    .await;
    wait_until("the files are there", PATIENCE, async || {
        second.client().files().stat(&"/docs/report.txt".parse().unwrap()).await.is_ok()
    })
    .await;
    let link = share(&second, "/docs", None).await;
    assert_eq!(Browser::stranger(&second).get(&link).await.status, 200);
    let stranger = Browser::stranger(&first);
    wait_until("the first knows who made the link", PATIENCE, async || {
        stranger.get(&format!("{link}report.txt")).await.status == 200
    })
    .await;

    first.client().revoke(&RevokeRequest::Peer(second.node.peer())).await.unwrap();
    assert_eq!(refused(&stranger, &link).await, (403, "bad-link".into()));
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_invite_may_not_share() {
    let first = with_files().await;
    let invitation = InviteRequest { role: Some("worker".into()), ..InviteRequest::default() };
    let ticket = first.client().invite(&invitation).await.unwrap().ticket.parse().unwrap();
    let worker = TestNode::start_in(tempfile::tempdir().unwrap(), Some(ticket)).await;
    let request = ShareRequest { path: "/docs".parse().unwrap(), expires_s: None };
    wait_until("the worker is a lasting member, with files", PATIENCE, async || {
        let refused = worker.client().share(&request).await.unwrap_err();
        let starfish_node::ClientError::Refused(problem) = refused else { panic!("{refused:?}") };
        assert!(["not-allowed", "provisional", "not-found"].contains(&&*problem.body.code), "{problem:?}");
        problem.body.code == "not-allowed"
    })
    .await;
    worker.stop().await;
    first.stop().await;
}

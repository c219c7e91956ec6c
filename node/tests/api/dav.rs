//! WebDAV, as file managers and `rclone` speak it.

use crate::browser::Browser;
use crate::common::TestNode;

const LOCK: &str = r#"<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype></D:lockinfo>"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_finds_out_what_there_is() {
    let node = TestNode::start().await;
    let dav = Browser::of(&node);
    let options = dav.ask("OPTIONS", "/dav/", "").await;
    assert_eq!((options.status, options.header("dav")), (200, "1, 2"));
    assert!(options.header("allow").contains("PROPFIND"), "{options:?}");

    assert_eq!(dav.ask("MKCOL", "/dav/a%20b", "").await.status, 201);
    assert_eq!(dav.ask("MKCOL", "/dav/a%20b", "").await.status, 405, "it is there");
    assert_eq!(dav.ask("MKCOL", "/dav/none/below", "").await.status, 409);
    let tag = dav.put("/dav/a%20b/f.txt", "content").await.header("etag").to_owned();
    let files = node.client().files();
    starfish_node::fs::Vfs::symlink(&files, &"/a b/link".parse().unwrap(), "f.txt").await.unwrap();
    starfish_node::fs::Vfs::symlink(&files, &"/a b/lost".parse().unwrap(), "nowhere").await.unwrap();

    let found = dav.with("depth", "1").ask("PROPFIND", "/dav/a%20b", "").await;
    assert_eq!(found.status, 207);
    let xml = found.text();
    assert!(xml.contains("/dav/a%20b/</D:href>") && xml.contains("/dav/a%20b/f.txt</D:href>"), "{xml}");
    assert!(xml.contains("/dav/a%20b/link</D:href>") && !xml.contains("lost"), "{xml}");
    assert!(xml.contains("<D:getcontentlength>7</D:getcontentlength>"), "{xml}");
    assert!(xml.contains(tag.trim_matches('"')), "{tag} in {xml}");
    let endless = dav.with("depth", "infinity").ask("PROPFIND", "/dav/", "").await;
    assert_eq!(endless.refusal(), (403, "propfind-finite-depth".into()));
    assert_eq!(dav.with("depth", "0").ask("PROPFIND", "/dav/none", "").await.status, 404);
    assert_eq!(dav.with("depth", "0").ask("PROPFIND", "/dav", "").await.status, 207);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_of_ones_own_are_refused_one_by_one() {
    let node = TestNode::start().await;
    let dav = Browser::of(&node);
    dav.put("/dav/f", "1").await;
    let patch = r#"<propertyupdate xmlns="DAV:"><set><prop><mood xmlns="urn:x">good</mood></prop></set></propertyupdate>"#;
    let answer = dav.ask("PROPPATCH", "/dav/f", patch).await;
    assert_eq!(answer.status, 207);
    assert!(answer.text().contains("mood") && answer.text().contains("403 Forbidden"), "{}", answer.text());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_read_and_removed() {
    let node = TestNode::start().await;
    let dav = Browser::of(&node);
    assert_eq!(dav.put("/dav/none/f", "x").await.refusal(), (409, "no-parent".into()));
    let content = vec![7; 5 << 20];
    assert_eq!(dav.with("x-oc-mtime", "1500000000").put("/dav/f", content).await.status, 201);
    let part = dav.with("range", "bytes=-3").get("/dav/f").await;
    assert_eq!((part.status, &part.body[..]), (206, &[7, 7, 7][..]));
    assert_eq!(part.header("last-modified"), "Fri, 14 Jul 2017 02:40:00 GMT");
    assert_eq!(dav.put("/dav/f", "").await.status, 204);
    assert_eq!(dav.get("/dav/f").await.body.len(), 0);
    dav.ask("MKCOL", "/dav/d", "").await;
    dav.put("/dav/d/f", "1").await;
    assert_eq!(dav.ask("DELETE", "/dav/d", "").await.status, 204, "with all below, as the protocol has it");
    assert_eq!(dav.get("/dav/d").await.status, 404);
    assert_eq!(dav.ask("PATCH", "/dav/f", "x").await.status, 405);
    assert_eq!(dav.put("/dav/a%2fb", "x").await.refusal(), (400, "bad-path".into()));
    assert_eq!(dav.ask("MKCOL", "/dav/../x", "").await.refusal(), (400, "bad-path".into()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_moved_or_copied_arrives_whole_or_stays() {
    let node = TestNode::start().await;
    let dav = Browser::of(&node);
    for folder in ["/dav/d", "/dav/d/sub", "/dav/e"] {
        dav.ask("MKCOL", folder, "").await;
    }
    for (path, content) in [("/dav/d/sub/f", "1"), ("/dav/e/old", "2"), ("/dav/g", "3")] {
        dav.put(path, content).await;
    }
    let to = |destination: &str| dav.with("destination", destination);
    let host = dav.address;
    assert_eq!(to(&format!("http://{host}/dav/h")).ask("COPY", "/dav/g", "").await.status, 201);
    assert_eq!(
        to("/dav/d/sub/f").ask("MOVE", "/dav/h", "").await.status,
        204,
        "a file takes another's place"
    );
    assert_eq!(dav.get("/dav/d/sub/f").await.text(), "3");
    assert_eq!(dav.get("/dav/h").await.status, 404);

    assert_eq!(to("/dav/e").with("overwrite", "F").ask("COPY", "/dav/d", "").await.status, 412);
    assert_eq!(to("/dav/e").ask("COPY", "/dav/d", "").await.status, 204);
    assert_eq!(dav.get("/dav/e/sub/f").await.text(), "3");
    assert_eq!(dav.get("/dav/e/old").await.status, 404, "a folder replaces and does not merge");
    assert_eq!(dav.get("/dav?json").await.json().as_array().unwrap().len(), 3, "nothing is left aside");
    assert_eq!(to("/dav/shell").with("depth", "0").ask("COPY", "/dav/d", "").await.status, 201);
    assert_eq!(dav.get("/dav/shell?json").await.json(), serde_json::json!([]));

    for (from, into) in [("/dav/d", "/dav/d/sub"), ("/dav/d/sub", "/dav/d"), ("/dav/d", "/dav/d")] {
        for method in ["COPY", "MOVE"] {
            assert_eq!(to(into).ask(method, from, "").await.refusal(), (403, "overlap".into()));
        }
    }
    assert_eq!(to("/dav/none/x").ask("MOVE", "/dav/d", "").await.refusal(), (409, "no-parent".into()));
    assert_eq!(to("http://evil.example/dav/x").ask("MOVE", "/dav/d", "").await.status, 502);
    for outside in ["/fs/x", "/davx", "/", "no sense", "/dav/..%2fx", "/dav/../x"] {
        assert_eq!(to(outside).ask("MOVE", "/dav/d", "").await.status, 400, "{outside}");
    }
    assert_eq!(dav.get("/dav/d/sub/f").await.text(), "3");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_lock_before_they_write_can_write() {
    let node = TestNode::start().await;
    let dav = Browser::of(&node);
    let locked = dav.with("content-type", "application/xml").ask("LOCK", "/dav/f", LOCK).await;
    assert_eq!(locked.status, 201);
    let token = locked.header("lock-token").to_owned();
    assert_eq!(dav.get("/dav/f").await.body.len(), 0, "a lock makes the file");
    assert_eq!(dav.with("if", &format!("({token})")).put("/dav/f", "1").await.status, 204);
    assert_eq!(dav.with("lock-token", &token).ask("UNLOCK", "/dav/f", "").await.status, 204);
    assert_eq!(dav.get("/dav/f").await.text(), "1");
    assert_eq!(dav.ask("LOCK", "/dav/f", LOCK).await.status, 200);
    assert_eq!(dav.get("/dav/f").await.text(), "1", "a lock changes nothing");
    node.stop().await;
}

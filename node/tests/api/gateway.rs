//! Files over plain HTTP: what browsers, curl and scripts see.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::browser::Browser;
use crate::common::TestNode;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_put_and_got_with_its_type_and_its_tag() {
    let node = TestNode::start().await;
    let browser = Browser::of(&node);
    let made = browser.put("/fs/new/folders/a%20b.txt", "the tide is in").await;
    assert_eq!(made.status, 201, "missing folders are made: {made:?}");
    let got = browser.get("/fs/new/folders/a%20b.txt").await;
    assert_eq!((got.status, got.text()), (200, "the tide is in"));
    assert_eq!(got.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(got.header("x-content-type-options"), "nosniff");
    assert_eq!(got.header("content-length"), "14");
    assert_eq!(got.header("etag"), made.header("etag"));
    assert!(got.header("etag").len() == 66 && got.header("last-modified").ends_with(" GMT"), "{got:?}");

    let again = browser.put("/fs/new/folders/a%20b.txt", "the tide is out").await;
    assert_eq!(again.status, 204);
    assert_ne!(again.header("etag"), made.header("etag"));

    let head = browser.ask("HEAD", "/fs/new/folders/a%20b.txt", "").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "15", 0));
    assert_eq!(browser.get("/fs/new/none").await.refusal(), (404, "not-found".into()));
    assert_eq!(browser.get("/fs/new/folders/a%20b.txt/").await.refusal(), (404, "not-found".into()));
    assert_eq!(browser.get("/fs/new/folders/a%20b.txt/x").await.refusal(), (404, "not-found".into()));

    let page = browser.put("/fs/page.html", "<script>fetch('/fs/')</script>").await;
    assert_eq!(page.status, 201);
    let page = browser.get("/fs/page.html").await;
    assert!(page.header("content-security-policy").starts_with("sandbox"), "{page:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_file_are_cut_out_to_the_byte() {
    let node = TestNode::start().await;
    let browser = Browser::of(&node);
    // More than one segment.
    let content: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    let tag = browser.put("/fs/f", content.clone()).await.header("etag").to_owned();
    let part = async |range: &str| browser.with("range", range).get("/fs/f").await;
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=1500000-", 1_500_000, 3_000_000),
        ("bytes=-10", 2_999_990, 3_000_000),
        ("bytes=2999999-9999999", 2_999_999, 3_000_000),
    ] {
        let answer = part(range).await;
        assert_eq!((answer.status, &answer.body[..]), (206, &content[from..to]), "{range}");
        assert_eq!(answer.header("content-range"), format!("bytes {from}-{}/3000000", to - 1));
        assert_eq!(answer.header("content-length"), (to - from).to_string());
    }
    let past = part("bytes=3000000-").await;
    assert_eq!((past.status, past.header("content-range")), (416, "bytes */3000000"));
    for whole in ["bytes=0-1,4-5", "nonsense"] {
        let answer = part(whole).await;
        assert_eq!((answer.status, answer.body.len()), (200, content.len()), "{whole}");
    }
    let resumed = browser.with("range", "bytes=5-9").with("if-range", &tag).get("/fs/f").await;
    assert_eq!((resumed.status, &resumed.body[..]), (206, &content[5..10]));
    let replaced = browser.with("range", "bytes=5-9").with("if-range", "\"old\"").get("/fs/f").await;
    assert_eq!((replaced.status, replaced.body.len()), (200, content.len()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_is_not_sent_and_what_changed_is_not_overwritten() {
    let node = TestNode::start().await;
    let browser = Browser::of(&node);
    let first = browser.with("if-none-match", "*").put("/fs/f", "one").await;
    let (tag, date) = (first.header("etag").to_owned(), first.header("last-modified").to_owned());
    assert_eq!(first.status, 201);
    assert_eq!(browser.with("if-none-match", "*").put("/fs/f", "two").await.refusal().0, 412);

    let known = browser.with("if-none-match", &tag).get("/fs/f").await;
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, &*tag));
    assert_eq!(browser.with("if-modified-since", &date).get("/fs/f").await.status, 304);
    assert_eq!(browser.with("if-none-match", "\"x\"").get("/fs/f").await.status, 200);
    assert_eq!(browser.with("if-match", "\"x\"").get("/fs/f").await.status, 412);

    assert_eq!(browser.with("if-match", &tag).put("/fs/f", "two").await.status, 204);
    let late = browser.with("if-match", &tag).put("/fs/f", vec![b'x'; 5 << 20]).await;
    assert_eq!(late.refusal(), (412, "changed".into()));
    assert_eq!(browser.with("if-match", &tag).ask("DELETE", "/fs/f", "").await.status, 412);
    assert_eq!(browser.get("/fs/f").await.text(), "two");
    assert_eq!(browser.with("if-match", "*").put("/fs/none", "x").await.status, 412);
    assert_eq!(browser.get("/fs/none").await.status, 404);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_changes_nothing() {
    let node = TestNode::start().await;
    let browser = Browser::of(&node);
    browser.put("/fs/f", "before").await;
    let (address, token) = (node.node.api_address(), node.token());
    for prefix in ["/fs", "/dav"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "PUT {prefix}/f HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: 9999999\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; 3 << 20]).await.unwrap();
        stream.shutdown().await.unwrap();
        // Whatever it answers, it is done with the request then.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        assert_eq!(browser.get("/fs/f").await.text(), "before");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_all_the_time_is_one_version_to_each_reader() {
    let node = TestNode::start().await;
    let browser = Browser::of(&node);
    let versions = [vec![b'a'; 300_000], vec![b'b'; 400_000]];
    browser.put("/fs/f", versions[0].clone()).await;
    let writer = tokio::spawn({
        let browser = browser.clone();
        async move {
            for version in versions.iter().cycle() {
                assert_eq!(browser.put("/fs/f", version.clone()).await.status, 204);
            }
        }
    });
    let mut seen = BTreeSet::new();
    for _ in 0..200 {
        let read = browser.get("/fs/f").await;
        // Out of luck several times in a row; that says so.
        if read.status != 503 {
            assert_eq!(read.header("etag"), format!("\"{}\"", blake3::hash(&read.body)));
            seen.insert(read.body.len());
        }
    }
    writer.abort();
    assert!(!seen.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_pages_for_people_and_json_for_programs() {
    let node = TestNode::start().await;
    let browser = Browser::of(&node);
    browser.put("/fs/docs/%3Cb%3E%26.txt", "1").await;
    browser.put("/fs/docs/sub/x", "22").await;
    let page = browser.get("/fs/docs/").await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    let html = page.text();
    assert!(html.contains("href=\"%3Cb%3E%26.txt\">&lt;b&gt;&amp;.txt</a>"), "{html}");
    assert!(
        html.contains("href=\"sub/\"") && html.contains("href=\"../\"") && !html.contains("<b>"),
        "{html}"
    );
    assert!(!browser.get("/fs/").await.text().contains("href=\"../\""), "there is nothing above the root");

    let json = browser.get("/fs/docs?json").await.json();
    let names: Vec<_> = json.as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
    assert_eq!(names, ["<b>&.txt", "sub"]);
    assert_eq!(browser.with("accept", "application/json").get("/fs/docs/").await.json(), json);

    for (path, location) in [("/fs/docs", "docs/"), ("/fs", "fs/"), ("/fs/docs/sub", "sub/")] {
        let moved = browser.get(path).await;
        assert_eq!((moved.status, moved.header("location")), (308, location), "{path}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_not_removed_by_a_slip() {
    let node = TestNode::start().await;
    let browser = Browser::of(&node);
    browser.put("/fs/d/f", "1").await;
    let refused = browser.ask("DELETE", "/fs/d", "").await;
    assert_eq!(refused.refusal(), (409, "not-empty".into()));
    assert!(refused.text().contains("?recursive"));
    assert_eq!(browser.ask("DELETE", "/fs/d?recursive=false", "").await.status, 409);
    assert_eq!(browser.ask("DELETE", "/fs/d?recursive", "").await.status, 204);
    assert_eq!(browser.ask("DELETE", "/fs/d", "").await.status, 404);
    assert_eq!(browser.put("/fs/folder/", "x").await.refusal(), (400, "is-a-folder".into()));
    browser.put("/fs/d/f", "1").await;
    assert_eq!(browser.put("/fs/d", "x").await.refusal(), (409, "is-a-directory".into()));
    assert_eq!(browser.with("content-range", "bytes 0-0/9").put("/fs/d/f", "x").await.status, 400);
    assert_eq!(browser.put("/fs/d/f/below", "x").await.status, 409, "a file is no folder");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_spelling_of_a_url_leads_astray() {
    let node = TestNode::start().await;
    let browser = Browser::of(&node);
    browser.put("/fs/a/f", "1").await;
    for path in
        ["/fs/a/../a/f", "/fs/a/%2e%2e/a/f", "/fs/a%2ff", "/fs/a%2F..%2Fa/f", "/fs/./a/f", "/fs/a/f%00"]
    {
        assert_eq!(browser.get(path).await.refusal(), (400, "bad-path".into()), "{path}");
        assert_eq!(browser.put(path, "2").await.status, 400, "{path}");
    }
    assert_eq!(browser.get("/fs//a///f").await.text(), "1");
    assert_eq!(browser.get("/fsx").await.refusal(), (404, "no-such-route".into()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_need_the_token_and_take_it_as_a_password() {
    let node = TestNode::start().await;
    let stranger = Browser::stranger(&node);
    let password = data_encoding::BASE64.encode(format!("ada:{}", node.token()).as_bytes());
    let user = stranger.with("authorization", &format!("Basic {password}"));
    for path in ["/fs/", "/dav/", "/fs/none"] {
        let refused = stranger.get(path).await;
        assert_eq!(refused.refusal(), (401, "no-token".into()), "{path}");
        assert!(refused.header("www-authenticate").starts_with("Basic realm="), "{path}");
        assert_ne!(user.get(path).await.status, 401, "{path}");
    }
    for path in ["/api/v1/status", "/metrics", "/api/v1/fs/list?path=/"] {
        let refused = user.get(path).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, ""), "{path}");
    }
    let by_a_page = user.with("sec-fetch-site", "cross-site").with("sec-fetch-mode", "no-cors");
    assert_eq!(by_a_page.get("/fs/").await.refusal(), (403, "foreign-origin".into()));
    let foreign = user.with("origin", "http://evil.example");
    assert_eq!(foreign.put("/fs/x", "1").await.refusal(), (403, "foreign-origin".into()));
    assert_eq!(user.get("/fs/x").await.status, 404);
    node.stop().await;
}

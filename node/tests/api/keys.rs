//! Keys through the client that the CLI uses.

use bytes::Bytes;
use starfish_node::ClientError;
use starfish_node::wire::{Base64, NameBody, ProblemBody, WriteBody};

use crate::common::TestNode;

fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (u16, ProblemBody) {
    match answer.unwrap_err() {
        ClientError::Refused(problem) => (problem.status, problem.body),
        other => panic!("{other:?}"),
    }
}

fn write(key: &str, field: Option<&str>, value: impl Into<Bytes>) -> WriteBody {
    let field = field.map(|field| NameBody(Bytes::copy_from_slice(field.as_bytes())));
    WriteBody { key: Bytes::copy_from_slice(key.as_bytes()), field, value: Some(Base64(value.into())) }
}

#[tokio::test]
async fn a_batch_names_a_field_or_means_the_plain_value() {
    let node = TestNode::start().await;
    let space = node.client().space("app");
    space.write(&[write("a", None, "plain"), write("a", Some("f"), "field")]).await.unwrap();
    assert_eq!(space.get(b"a").await.unwrap().unwrap(), "plain");
    assert_eq!(space.field(b"a", b"f").await.unwrap().unwrap(), "field");

    let (status, body) = refusal(space.write(&[write("b", None, "1"), write("a", Some(""), "2")]).await);
    assert_eq!((status, body.code.as_str()), (400, "bad-key"));
    assert_eq!(body.message, "a field must not be empty");
    assert_eq!(space.get(b"a").await.unwrap().unwrap(), "plain");
    assert_eq!(space.get(b"b").await.unwrap(), None, "all or none");
    node.stop().await;
}

#[tokio::test]
async fn no_name_is_empty_and_who_asks_for_one_is_told_so() {
    let node = TestNode::start().await;
    let space = node.client().space("app");
    let is_told = |answer: (u16, ProblemBody), what: &str| {
        assert_eq!((answer.0, answer.1.code.as_str()), (400, "bad-key"));
        assert!(answer.1.message.contains(what) && answer.1.message.ends_with("must not be empty"));
    };
    is_told(refusal(space.write(&[write("", None, "1")]).await), "key");
    is_told(refusal(space.add_members(b"s", ["a", ""]).await), "member");
    is_told(refusal(space.is_member(b"s", b"").await), "member");
    is_told(refusal(space.set(b"", "1".into(), None).await), "key");
    is_told(refusal(space.get(b"").await), "key");
    is_told(refusal(space.incr_field(b"h", b"", 1).await), "field");
    node.stop().await;
}

#[tokio::test]
async fn who_counts_too_far_is_told_so_and_not_that_it_is_no_counter() {
    let node = TestNode::start().await;
    let space = node.client().space("app");
    space.incr(b"n", i64::MAX).await.unwrap();
    let (status, body) = refusal(space.incr(b"n", 1).await);
    assert_eq!((status, body.code.as_str()), (409, "counter-overflow"));
    space.set(b"text", "x".into(), None).await.unwrap();
    let (status, body) = refusal(space.incr(b"text", 1).await);
    assert_eq!((status, body.code.as_str()), (409, "not-a-counter"));
    assert_eq!(space.incr(b"n", -1).await.unwrap(), i64::MAX - 1);
    node.stop().await;
}

#[tokio::test]
async fn a_batch_of_the_allowed_size_is_taken_and_a_larger_one_told_what_is_allowed() {
    let node = TestNode::start().await;
    let space = node.client().space("app");
    let batch = |n: usize, bytes: usize| -> Vec<WriteBody> {
        (0..n).map(|number| write(&format!("k{number}"), None, vec![0xff; bytes])).collect()
    };
    space.write(&batch(100, 16_000)).await.unwrap();
    assert_eq!(space.get(b"k99").await.unwrap().unwrap().len(), 16_000);
    space.write(&batch(256, (16 << 10) - 8)).await.unwrap();
    let members = |n: usize| (0..n).map(|number| format!("{number:ä<500}")).collect::<Vec<_>>();
    assert_eq!(space.add_members(b"s", members(4000)).await.unwrap(), 4000);

    for (n, bytes) in [(257, 16 << 10), (4097, 0)] {
        let (status, body) = refusal(space.write(&batch(n, bytes)).await);
        assert_eq!((status, body.code.as_str()), (413, "too-large"));
        assert!(body.message.contains("4096 and 4194304 are allowed"), "{}", body.message);
        assert_eq!(body.hint.as_deref(), Some("write it in parts"));
    }
    let (status, body) = refusal(space.write(&batch(1000, 16 << 10)).await);
    assert_eq!((status, body.code.as_str()), (413, "too-large"));
    assert_eq!(body.message, "the body is longer than 12845056 bytes");
    assert!(body.hint.is_some());
    node.stop().await;
}

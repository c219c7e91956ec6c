//! Documents through the client that the CLI uses.

use std::time::Duration;

use bytes::Bytes;
use futures::{TryStreamExt, stream};
use serde_json::{Value, json};
use starfish_node::ClientError;
use starfish_node::client::RemoteCollection;
use starfish_node::dht::testing::wait_until;
use starfish_node::memory::IndexState;
use starfish_node::wire::{FindRequest, ProblemBody};

use crate::common::TestNode;

const PATIENCE: Duration = Duration::from_secs(30);

fn text(value: &Value) -> Bytes {
    value.to_string().into()
}

fn find(query: Value) -> FindRequest {
    FindRequest { query: Some(query), ..FindRequest::default() }
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (u16, ProblemBody) {
    match answer.unwrap_err() {
        ClientError::Refused(problem) => (problem.status, problem.body),
        other => panic!("{other:?}"),
    }
}

async fn export(collection: &RemoteCollection) -> Vec<Value> {
    let lines: Vec<Bytes> = collection.export(None).await.unwrap().try_collect().await.unwrap();
    let lines = String::from_utf8(lines.concat()).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_put_read_patched_edited_and_deleted() {
    let node = TestNode::start().await;
    let people = node.client().documents("people");
    assert_eq!(people.get("ada/1").await.unwrap(), None);
    let written = people.put(Some("ada/1"), text(&json!({"name": "Ada", "langs": []}))).await.unwrap();
    assert!(written.created);
    people.patch("ada/1", text(&json!({"born": 1815}))).await.unwrap();
    let edits = serde_json::from_value::<Vec<_>>(json!([{"op": "push", "path": "/langs", "value": "en"}]));
    people.edit("ada/1", &edits.unwrap()).await.unwrap();
    let expected = json!({"name": "Ada", "langs": ["en"], "born": 1815});
    assert_eq!(people.get("ada/1").await.unwrap(), Some(expected));
    assert_eq!(people.cost("ada/1").await.unwrap().unwrap().changes, 3);

    let unnamed = people.put(None, text(&json!({"a": 1}))).await.unwrap().id;
    assert_eq!(people.get(&unnamed).await.unwrap(), Some(json!({"a": 1})));
    assert!(people.delete(&unnamed).await.unwrap());
    assert!(!people.delete(&unnamed).await.unwrap());
    let listed = node.client().collections().await.unwrap();
    assert_eq!((listed[0].name.as_str(), listed[0].documents), ("people", 1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_its_place() {
    let node = TestNode::start().await;
    let people = node.client().documents("people");
    people.put(Some("ada"), text(&json!({"n": 1}))).await.unwrap();

    let (status, body) = refusal(people.find(&find(json!({"a": {"$gtee": 1}}))).await);
    assert_eq!((status, body.code.as_str()), (400, "bad-query"));
    assert_eq!(body.detail, Some(json!({"at": "/a/$gtee"})));

    let edits = json!([{"op": "increment", "path": "/n"}, {"op": "push", "path": "/none", "value": 1}]);
    let (status, body) = refusal(people.edit("ada", &serde_json::from_value::<Vec<_>>(edits).unwrap()).await);
    assert_eq!((status, body.code.as_str()), (400, "bad-edit"));
    assert_eq!(body.detail, Some(json!({"edit": 1, "path": "/none"})));
    assert_eq!(people.get("ada").await.unwrap(), Some(json!({"n": 1})), "all or none");

    let (status, body) = refusal(people.put(Some("bob"), "{\"a\":\n tru}".into()).await);
    assert_eq!((status, body.code.as_str()), (400, "bad-json"));
    assert!(body.message.contains("line 2"), "{}", body.message);
    assert_eq!(refusal(people.put(Some("bob"), "[]".into()).await).1.code, "bad-document");
    assert_eq!(refusal(people.patch("none", "{}".into()).await).0, 404);
    assert_eq!(refusal(people.add_index("Ä", "/a".parse().unwrap()).await).1.code, "bad-index");
    assert_eq!(refusal(people.remove_index("none").await).0, 404);
    assert_eq!(refusal(node.client().documents("No").drop_all().await).1.code, "bad-collection");
    let huge = json!({"a": "x".repeat(5 << 20)});
    assert_eq!(refusal(people.put(Some("huge"), text(&huge)).await).0, 413);

    let hidden = node.client().space(".docs/people").scan(b"", None, 10).await;
    assert_eq!(refusal(hidden).1.code, "system-space");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_is_imported_found_by_index_exported_and_dropped() {
    let node = TestNode::start().await;
    let people = node.client().documents("people");
    let lines = (0..3000).map(|i| {
        let id = format!("p{i:04}");
        Ok(format!("{}\n", json!({"id": id, "document": {"age": i % 100}})).into())
    });
    let lines: Vec<std::io::Result<Bytes>> = lines.collect();
    assert_eq!(people.import(stream::iter(lines)).await.unwrap(), 3000);

    people.add_index("by-age", "/age".parse().unwrap()).await.unwrap();
    wait_until("the index", PATIENCE, || async {
        people.indexes().await.unwrap()[0].state == IndexState::Ready
    })
    .await;
    let query =
        FindRequest { sort: Some("-age".to_owned()), limit: Some(2), ..find(json!({"age": {"$gte": 98}})) };
    let found = people.find(&query).await.unwrap();
    assert_eq!(found.explain.index.as_deref(), Some("by-age"));
    assert_eq!((found.explain.examined, found.documents.len()), (60, 2));
    let next = people.find(&FindRequest { after: found.next, ..query }).await.unwrap();
    assert_eq!(next.documents[0].id, "p0299");

    let exported = export(&people).await;
    assert_eq!(exported.len(), 3000);
    assert_eq!(exported[7], json!({"id": "p0007", "document": {"age": 7}}));
    assert_eq!(people.delete_where(json!({"age": {"$lt": 50}})).await.unwrap(), 1500);

    let faulty: [std::io::Result<Bytes>; 2] =
        [Ok("{\"id\":\"x\",\"document\":{}}\n{\"id\"".into()), Ok(":1}".into())];
    let (status, body) = refusal(people.import(stream::iter(faulty)).await);
    assert_eq!((status, body.code.as_str()), (400, "bad-line"));
    assert!(body.message.starts_with("line 2:") && body.message.ends_with("1 documents before it are in"));
    assert_eq!(people.drop_all().await.unwrap(), 1501);
    assert!(node.client().collections().await.unwrap().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_ends_at_the_line_that_is_faulty() {
    let node = TestNode::start().await;
    let questions = node.client().documents("q");
    let deep = (1..125).fold(json!({}), |inner, _| json!({"a": inner}));
    for (n, faulty) in [json!([1]), json!(1), deep].into_iter().enumerate() {
        let line = |id: &str, document: &Value| json!({"id": format!("{id}{n}"), "document": document});
        let lines = [line("a", &json!({})), line("b", &faulty), line("c", &json!({}))];
        let lines = lines.map(|line| Ok(format!("{line}\n\n").into()));
        let (status, body) = refusal(questions.import(stream::iter(lines)).await);
        assert_eq!((status, body.code.as_str()), (400, "bad-line"));
        assert!(body.message.starts_with("line 3: "), "{}", body.message);
        assert!(body.message.ends_with("; 1 documents before it are in"), "{}", body.message);
        let ids: Vec<String> = export(&questions).await.iter().map(|line| line["id"].to_string()).collect();
        assert_eq!(ids.len(), n + 1, "{ids:?}");
        assert!(ids.iter().all(|id| id.starts_with("\"a")), "{ids:?}");
    }
    let nameless: [std::io::Result<Bytes>; 1] = [Ok("{\"id\":\"\",\"document\":{}}\n".into())];
    assert!(refusal(questions.import(stream::iter(nameless)).await).1.message.starts_with("line 1: the id"));
    node.stop().await;
}

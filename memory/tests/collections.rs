//! What collections promise: finding, indexes, and many documents at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use starfish_dht::{
    PeerId,
    testing::{PATIENCE, wait_until},
};
use starfish_memory::{
    Collection, DocumentError, Documents, Filter, Find, IndexDefinition, IndexError, IndexState, Memory, Page,
};
use tempfile::TempDir;

struct Node {
    documents: Documents,
    people: Collection,
    _dir: TempDir,
}

/// A node with a hundred people.
async fn node() -> anyhow::Result<Node> {
    let dir = tempfile::tempdir()?;
    let memory = Memory::open(&dir.path().join("memory"), &PeerId::random())?;
    let documents = Documents::new(memory);
    let people = documents.collection("people")?;
    let person = |i: u32| {
        let city = if i.is_multiple_of(2) { "Bern" } else { "Ulm" };
        (format!("p{i:03}"), json!({"age": i, "home": {"city": city}, "tags": [format!("t{}", i % 10)]}))
    };
    assert_eq!(people.put_all((0..100).map(person).collect()).await?, 100);
    Ok(Node { documents, people, _dir: dir })
}

fn find(query: Value) -> Find {
    Find::new(Filter::parse(&query).unwrap())
}

async fn found(collection: &Collection, query: Value) -> Page {
    collection.find(find(query)).await.unwrap()
}

fn ids(page: &Page) -> Vec<&str> {
    page.documents.iter().map(|found| found.id.as_str()).collect()
}

async fn add_index(collection: &Collection, name: &str, path: &str) -> Result<(), IndexError> {
    let definition = IndexDefinition { name: name.to_owned(), path: path.parse().unwrap() };
    collection.add_index(definition).await
}

async fn wait_ready(collection: &Collection, name: &str) {
    wait_until("the index to be built", PATIENCE, || async {
        let indexes = collection.indexes().await.unwrap();
        indexes.iter().any(|index| index.definition.name == name && index.state == IndexState::Ready)
    })
    .await;
}

#[tokio::test]
async fn documents_are_found_sorted_and_shown_in_part() -> anyhow::Result<()> {
    let people = &node().await?.people;
    let page = found(people, json!({"age": {"$gte": 10, "$lt": 13}})).await;
    assert_eq!(ids(&page), ["p010", "p011", "p012"]);
    assert_eq!((page.explain.index, page.explain.examined, page.explain.matched), (None, 100, 3));

    let sorted =
        Find { sort: "home.city,-age".parse()?, fields: "age".parse()?, limit: 3, ..find(json!({})) };
    let page = people.find(sorted).await?;
    assert_eq!(ids(&page), ["p098", "p096", "p094"]);
    assert_eq!(page.documents[0].document, json!({"age": 98}));
    assert!(page.next.is_some());
    Ok(())
}

#[tokio::test]
async fn pages_go_on_where_they_ended_whatever_was_written_meanwhile() -> anyhow::Result<()> {
    let people = &node().await?.people;
    for sort in ["", "-age"] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = people
                .find(Find { sort: sort.parse()?, limit: 7, after, ..find(json!({"home.city": "Ulm"})) })
                .await?;
            assert!(page.documents.len() <= 7);
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            // Before what has been seen in one order, and behind it in the other.
            people.put("p999", json!({"age": 999, "home": {"city": "Bern"}})).await?;
            people.delete("p000").await?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 50, "{sort}");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 50, "{sort}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_is_built_in_the_background_then_used_and_always_current() -> anyhow::Result<()> {
    let people = &node().await?.people;
    add_index(people, "by-age", "/age").await?;
    add_index(people, "by-tag", "/tags").await?;
    wait_ready(people, "by-age").await;
    wait_ready(people, "by-tag").await;

    let page = found(people, json!({"age": 42, "tags": "t2"})).await;
    assert_eq!(ids(&page), ["p042"]);
    assert_eq!((page.explain.index.as_deref(), page.explain.examined), (Some("by-age"), 1));
    let page = found(people, json!({"tags": "t2"})).await;
    assert_eq!((page.explain.index.as_deref(), page.explain.examined), (Some("by-tag"), 10));

    people.patch("p042", json!({"age": 142})).await?;
    people.delete("p043").await?;
    people.put("new", json!({"age": 142})).await?;
    assert_eq!(ids(&found(people, json!({"age": 142})).await), ["new", "p042"]);
    assert!(found(people, json!({"age": {"$in": [42, 43]}})).await.documents.is_empty());
    assert_eq!(found(people, json!({"age": {"$gt": 97}})).await.explain.examined, 5);

    people.remove_index("by-age").await?;
    assert_eq!(found(people, json!({"age": 142})).await.explain.index, None);
    assert!(matches!(people.remove_index("by-age").await, Err(IndexError::NotFound { .. })));
    Ok(())
}

#[tokio::test]
async fn an_index_that_makes_no_sense_is_refused() -> anyhow::Result<()> {
    let people = &node().await?.people;
    add_index(people, "age", "/age").await?;
    add_index(people, "age", "/age").await?;
    assert!(matches!(add_index(people, "age", "/home").await, Err(IndexError::Exists { .. })));
    assert!(matches!(add_index(people, "Ä", "/home").await, Err(IndexError::Name { .. })));
    assert!(matches!(add_index(people, "all", "").await, Err(IndexError::Whole)));
    Ok(())
}

#[tokio::test]
async fn documents_are_deleted_by_query_and_a_collection_as_a_whole() -> anyhow::Result<()> {
    let Node { documents, people, .. } = &node().await?;
    let filter = Filter::parse(&json!({"home.city": "Ulm"}))?;
    assert_eq!(people.delete_where(&filter).await?, 50);
    assert_eq!(people.delete_where(&filter).await?, 0);
    assert_eq!(found(people, json!({})).await.documents.len(), 50);

    add_index(people, "age", "/age").await?;
    documents.collection("other/things")?.put("a", json!({})).await?;
    let summaries = documents.collections().await?;
    let counts: Vec<_> =
        summaries.iter().map(|one| (one.name.as_str(), one.documents, one.indexes)).collect();
    assert_eq!(counts, [("other/things", 1, 0), ("people", 50, 1)]);

    assert_eq!(people.drop_all().await?, 50);
    let names: Vec<String> = documents.collections().await?.into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["other/things"]);
    Ok(())
}

#[tokio::test]
async fn a_large_page_is_divided() -> anyhow::Result<()> {
    let node = node().await?;
    let large = node.documents.collection("large")?;
    let text = "x".repeat(3_000_000);
    for id in ["a", "b", "c", "d", "e"] {
        large.put(id, json!({ "text": text })).await?;
    }
    for sort in ["", "-text"] {
        let mut seen = Vec::new();
        let (mut after, mut pages) = (None, 0);
        loop {
            let page = large.find(Find { sort: sort.parse()?, after, ..find(json!({})) }).await?;
            seen.extend(ids(&page).into_iter().map(str::to_owned));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
        assert!((2..=3).contains(&pages), "{pages}");
    }
    Ok(())
}

#[tokio::test]
async fn of_many_documents_the_one_that_cannot_be_put_is_named() -> anyhow::Result<()> {
    let Node { people, .. } = &node().await?;
    let many = ["a", "b", "", "d"].map(|id| (id.to_owned(), json!({})));
    let error = people.put_all(many.into()).await.unwrap_err();
    assert_eq!(error.number, 2);
    assert!(matches!(error.source, DocumentError::Id { len: 0 }));
    assert!(people.get("b").await?.is_some(), "those before it are in");
    Ok(())
}

#[tokio::test]
async fn who_asks_for_no_document_gets_none() -> anyhow::Result<()> {
    let Node { people, .. } = &node().await?;
    for sort in ["", "-age"] {
        let find = Find { limit: 0, sort: sort.parse()?, ..find(json!({"age": {"$gte": 10}})) };
        let page = people.find(find).await?;
        assert!(page.documents.is_empty() && page.next.is_none());
    }
    Ok(())
}

#[tokio::test]
async fn of_several_documents_with_one_id_the_last_one_stays() -> anyhow::Result<()> {
    let Node { people, .. } = &node().await?;
    let versions = |round: u32| (0..3).map(move |id| (format!("p00{id}"), json!({"round": round})));
    assert_eq!(people.put_all((0..10).flat_map(versions).collect()).await?, 30);
    for id in 0..3 {
        assert_eq!(*people.get(&format!("p00{id}")).await?.unwrap(), json!({"round": 9}));
    }
    Ok(())
}

#[tokio::test]
async fn numbers_stay_what_they_are() -> anyhow::Result<()> {
    let Node { people, .. } = &node().await?;
    let text =
        r#"{"at":[106.68230192128101,18.738455136342594,9.080553830286376e265],"time":1795452032.8732321}"#;
    people.put("place", serde_json::from_str(text)?).await?;
    assert_eq!(people.get("place").await?.unwrap().to_string(), text.replace("e265", "e+265"));
    let query = r#"{"time":1795452032.8732321}"#;
    assert_eq!(ids(&found(people, serde_json::from_str(query)?).await), ["place"]);
    Ok(())
}

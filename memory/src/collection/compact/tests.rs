//! What becomes of superfluous cells of documents.

use bytes::Bytes;
use serde_json::json;
use starfish_dht::{
    PeerId,
    testing::{PATIENCE, wait_until},
};

use super::*;
use crate::Memory;

fn fields(documents: &Documents, place: &Place) -> Vec<Bytes> {
    let prefix = codec::key_prefix(&place.space, &place.key);
    documents.memory().shared().store.scan(&prefix, &prefix).map(|cell| cell.unwrap().field).collect()
}

#[tokio::test]
async fn a_superfluous_cell_that_comes_in_all_the_same_is_taken_out_again() {
    let folder = tempfile::tempdir().unwrap();
    let documents = Documents::new(Memory::open(folder.path(), &PeerId::random()).unwrap());
    let notes = documents.collection("notes").unwrap();
    let place = notes.place("one");
    notes.put("one", json!({"n": 0})).await.unwrap();
    let prefix = codec::key_prefix(&place.space, &place.key);
    let mut first: Vec<Cell> =
        documents.memory().shared().store.scan(&prefix, &prefix).map(Result::unwrap).collect();
    let first = first.remove(0);
    let increment: Vec<_> = serde_json::from_value(json!([{"op": "increment", "path": "/n"}])).unwrap();
    let is_there = || fields(&documents, &place).contains(&first.field);
    while is_there() {
        notes.edit("one", increment.clone()).await.unwrap();
    }
    let is_known = || !documents.derived().packed.admits(&first);
    wait_until("what is superfluous to be known", PATIENCE, || async { is_known() }).await;
    documents.memory().merge(vec![first.clone()]).await.unwrap();
    wait_until("it to be taken out", PATIENCE, || async { !is_there() }).await;
}

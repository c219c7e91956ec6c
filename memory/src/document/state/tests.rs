//! Documents from cells in any order, from several nodes, beside automerge itself.

use automerge::{ROOT, transaction::Transactable};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    cell::{Content, SpaceName, Stamp},
    document::{
        change::cells_of,
        edit::{self, Edit},
        epoch::Epoch,
        patch, replace,
        value::tests::{any_json, any_object},
    },
};

fn cell((field, value): (Bytes, Bytes)) -> Cell {
    Cell {
        space: SpaceName::new("s").unwrap(),
        key: "k".into(),
        field,
        stamp: Stamp { time: 1, author: Author::from_bytes([1; 16]) },
        content: Content::Value(value),
        expires_ms: None,
        renews: None,
    }
}

fn cells(changes: &[Change]) -> Vec<Cell> {
    changes.iter().flat_map(|change| cells_of(Epoch::FIRST, change).unwrap()).map(cell).collect()
}

fn actor(number: u8) -> ActorId {
    ActorId::from(vec![number; 16])
}

fn patched(document: &mut Document, author: u8, patch: &Value) -> Vec<Cell> {
    let patch = patch.as_object().unwrap();
    cells(&document.edit(&actor(author), |editor| patch::apply(editor, patch)).unwrap())
}

#[derive(Clone, Debug)]
enum Step {
    Patch(usize, Value),
    Put(usize, Value),
    Edit(usize, Value),
    Sync(usize, usize),
}

fn any_edit() -> impl Strategy<Value = Value> {
    let path = || prop_oneof![Just("/a"), Just("/b"), Just("/a/b"), Just("/a/0"), Just("/c/-")];
    prop_oneof![
        (path(), any_json()).prop_map(|(path, value)| json!({"op": "set", "path": path, "value": value})),
        path().prop_map(|path| json!({"op": "remove", "path": path})),
        (path(), -3i64..3).prop_map(|(path, by)| json!({"op": "increment", "path": path, "by": by})),
        (path(), any_json()).prop_map(|(path, value)| json!({"op": "insert", "path": path, "value": value})),
        (path(), any_json()).prop_map(|(path, value)| json!({"op": "push", "path": path, "value": value})),
        (path(), 0usize..3, 0usize..2, "[xy]{0,2}").prop_map(|(path, at, delete, insert)| {
            json!({"op": "splice-text", "path": path, "at": at, "delete": delete, "insert": insert})
        }),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0usize..3, any_object()).prop_map(|(who, patch)| Step::Patch(who, patch)),
        1 => (0usize..3, any_object()).prop_map(|(who, value)| Step::Put(who, value)),
        4 => (0usize..3, any_edit()).prop_map(|(who, edit)| Step::Edit(who, edit)),
        3 => (0usize..3, 0usize..3).prop_map(|(from, to)| Step::Sync(from, to)),
    ]
}

/// A node, the cells that it knows, and an automerge document that is edited alike and merged by automerge.
struct Beside {
    document: Document,
    log: Vec<Cell>,
    oracle: AutoCommit,
}

impl Beside {
    /// Does the same on both sides, if it can be done.
    fn edit(&mut self, who: usize, edit: impl Fn(&mut Editor<'_>) -> Result<(), String>) {
        let actor = actor(who as u8);
        let Ok(changes) = self.document.edit(&actor, &edit) else {
            self.document = Document::load(&self.log, &Packs::default());
            return;
        };
        self.log.extend(cells(&changes));
        let is_new = self.oracle.get_heads().is_empty();
        let mut editor = Editor::new(&mut self.oracle, actor);
        edit(&mut editor).unwrap();
        if is_new && editor.is_untouched() {
            editor.touch();
        }
        editor.finish();
    }

    fn take(&mut self, log: &[Cell], oracle: &mut AutoCommit) {
        self.document.take(log).unwrap();
        self.log.extend_from_slice(log);
        self.oracle.merge(oracle).unwrap();
    }
}

proptest! {
    /// Three nodes write and tell each other at random; beside them three automerge documents do the same and
    /// merge as automerge does.
    #[test]
    fn nodes_that_exchange_cells_agree_with_automerge_itself(steps in proptest::collection::vec(any_step(), 0..30)) {
        let fresh = || Beside { document: Document::default(), log: Vec::new(), oracle: new_automerge() };
        let mut nodes = [fresh(), fresh(), fresh()];
        let words = |error: &dyn std::fmt::Display| error.to_string();
        let everybody = (0..3).flat_map(|to| (0..3).map(move |from| Step::Sync(from, to)));
        let twice = everybody.clone().chain(everybody);
        for step in steps.into_iter().chain(twice) {
            match step {
                Step::Patch(who, patch) => nodes[who].edit(who, |editor| {
                    patch::apply(editor, patch.as_object().unwrap()).map_err(|error| words(&error))
                }),
                Step::Put(who, value) => nodes[who].edit(who, |editor| {
                    let members = value.as_object().unwrap();
                    replace::members(editor.document(), &ROOT, members).map_err(|error| words(&error))
                }),
                Step::Edit(who, edit) => {
                    let edits: Vec<Edit> = vec![serde_json::from_value(edit).unwrap()];
                    nodes[who].edit(who, |editor| {
                        edit::apply(editor, &edits).map_err(|error| words(&error))
                    });
                }
                Step::Sync(from, to) if from != to => {
                    let (log, mut oracle) = (nodes[from].log.clone(), nodes[from].oracle.fork());
                    nodes[to].take(&log, &mut oracle);
                }
                Step::Sync(..) => {}
            }
            for node in &nodes {
                prop_assert_eq!(node.document.value(), value::read(&node.oracle));
            }
        }
        for node in &nodes {
            prop_assert_eq!(node.document.value(), nodes[0].document.value());
            prop_assert_eq!(Document::load(&node.log, &Packs::default()).value(), nodes[0].document.value());
        }
    }

    #[test]
    fn the_order_of_cells_does_not_matter(
        patches in proptest::collection::vec((0u8..3, any_object()), 1..8), seed in any::<u64>(),
    ) {
        let mut document = Document::default();
        let mut log: Vec<Cell> =
            patches.iter().flat_map(|(who, patch)| patched(&mut document, *who, patch)).collect();
        let expected = document.value();
        log.sort_by_key(|cell| blake3::hash(&[&seed.to_le_bytes(), cell.field.as_ref()].concat()).as_bytes()[..8].to_vec());
        prop_assert_eq!(Document::load(&log, &Packs::default()).value(), expected.clone());
        let mut one_by_one = Document::default();
        log.iter().for_each(|cell| one_by_one.take([cell]).unwrap());
        prop_assert_eq!(one_by_one.value(), expected);
        prop_assert!(one_by_one.exists());
    }
}

#[test]
fn a_deleted_document_is_gone_until_somebody_who_did_not_know_edits_it() {
    let mut here = Document::default();
    let created = patched(&mut here, 1, &json!({"a": 1}));
    let mut there = Document::load(&created, &Packs::default());
    assert!(there.exists());

    here.delete(Author::from_bytes([1; 16]));
    assert!(!here.exists());
    let edited = patched(&mut there, 2, &json!({"b": 2}));
    here.take(&edited).unwrap();
    assert!(here.exists());
    assert_eq!(here.value(), json!({"a": 1, "b": 2}));
}

#[test]
fn two_who_delete_what_each_of_them_knows_have_deleted_both() {
    let mut here = Document::default();
    let created = patched(&mut here, 1, &json!({"a": 1}));
    let mut there = Document::load(&created, &Packs::default());
    let one = patched(&mut here, 1, &json!({"b": 1}));
    let two = patched(&mut there, 2, &json!({"c": 1}));
    let deletion = |document: &mut Document, author| {
        let author = Author::from_bytes([author; 16]);
        cell(change::deletion(author, &document.delete(author)))
    };
    let all = [created, one, two, vec![deletion(&mut here, 1), deletion(&mut there, 2)]].concat();
    assert!(!Document::load(&all, &Packs::default()).exists());
}

#[test]
fn an_empty_document_exists_once_it_was_made_and_again_after_its_deletion() {
    let mut document = Document::default();
    assert!(!document.exists());
    assert_eq!(patched(&mut document, 1, &json!({})).len(), 1);
    assert!(document.exists());
    document.delete(Author::from_bytes([1; 16]));
    assert!(!document.exists());
    assert_eq!(patched(&mut document, 1, &json!({})).len(), 1);
    assert!(document.exists());
}

#[test]
fn what_is_damaged_or_waits_for_more_does_not_keep_the_rest_from_being_read() {
    let mut document = Document::default();
    let mut log = patched(&mut document, 1, &json!({"a": 1}));
    log.extend(patched(&mut document, 1, &json!({"b": 1})));
    log.extend(patched(&mut document, 1, &json!({"c": 1})));
    log.remove(1);
    log.push(cell((b"cnonsense".as_slice().into(), "x".into())));
    log.push(cell(("?".into(), "x".into())));
    let mut loaded = Document::load(&log, &Packs::default());
    assert_eq!(loaded.value(), json!({"a": 1}));
    assert_eq!(loaded.damaged(), 2);
    assert!(loaded.exists());
}

#[test]
fn two_changes_under_one_number_show_the_same_on_every_node() {
    let mut base = Document::default();
    let created = patched(&mut base, 1, &json!({"a": 0}));
    let forked = |value: u64| {
        let mut document = Document::load(&created, &Packs::default());
        patched(&mut document, 1, &json!({ "a": value, "b": value }))
    };
    let (one, two) = (forked(1), forked(2));
    let mut values = Vec::new();
    for order in [[&one, &two], [&two, &one]] {
        let mut document = Document::load(&created, &Packs::default());
        let mut known = created.clone();
        for cells in order {
            known.extend(cells.iter().cloned());
            if document.take(cells).is_err() {
                document = Document::load(&known, &Packs::default());
            }
        }
        assert_eq!(document.damaged(), 1);
        values.push(document.value());
    }
    assert_eq!(values[0], values[1]);
}

#[test]
fn edits_of_two_who_do_not_hear_each_other_are_both_there_in_the_end() {
    let mut here = Document::default();
    let created = patched(&mut here, 1, &json!({"body": "middle"}));
    let mut there = Document::load(&created, &Packs::default());
    let splice = |at: usize, insert: &str| -> Vec<Edit> {
        serde_json::from_value(json!([{"op": "splice-text", "path": "/body", "at": at, "insert": insert}]))
            .unwrap()
    };
    let one = here.edit(&actor(1), |editor| edit::apply(editor, &splice(0, "front "))).unwrap();
    let two = there.edit(&actor(2), |editor| edit::apply(editor, &splice(6, " end"))).unwrap();
    here.take(&cells(&two)).unwrap();
    there.take(&cells(&one)).unwrap();
    assert_eq!(here.value(), json!({"body": "front middle end"}));
    assert_eq!(there.value(), here.value());
}

#[test]
fn a_foreign_change_with_things_that_json_has_not_is_read_as_null() {
    let mut foreign = AutoCommit::new();
    foreign.put(ROOT, "a", automerge::ScalarValue::Bytes(vec![1])).unwrap();
    foreign.put(ROOT, "b", f64::NAN).unwrap();
    foreign.commit();
    let changes = foreign.get_changes(&[]);
    assert_eq!(Document::load(&cells(&changes), &Packs::default()).value(), json!({"a": null, "b": null}));
}

#[test]
fn who_folds_its_changes_knows_how_large_the_document_is_then() {
    let (mut document, mut all) = (Document::default(), Vec::new());
    for fold in 0..3 {
        for round in 0..20 {
            all.extend(patched(&mut document, 1, &json!({"fold": fold, "round": round})));
            assert_eq!(document.size(), Document::load(&all, &Packs::default()).size());
        }
        all.extend(document.pack(Purpose::Fold).unwrap().into_iter().map(cell));
        assert_eq!(document.size(), Document::load(&all, &Packs::default()).size());
    }
}

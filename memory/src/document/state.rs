//! One document, put together from its cells.
//!
//! Cells come in any order and from anybody. What makes no sense is counted and passed over; a change whose
//! dependencies are missing waits for them. Replicas with the same cells show the same document even if somebody
//! wrote changes that contradict each other: then the document is put together anew, in an order that depends on
//! nothing but the changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use automerge::{ActorId, AutoCommit, Change, ChangeHash, ReadDoc, TextEncoding};
use serde_json::Value;

use super::{
    change::{self, Assembled, Assembly, MAX_HEADS, Record},
    shared::Editor,
    value,
};
use crate::cell::{Author, Cell};

/// Changes that automerge may stumble over before the document is given up. Only a hostile peer makes any.
const MAX_CULPRITS: usize = 8;

/// What an open document takes in memory, beside its changes; and how many times its changes' bytes.
const OPEN_BYTES: usize = 32 * 1024;
const OPEN_FACTOR: usize = 8;

/// Why cells cannot be taken in one by one: all of them must be looked at together.
#[derive(Debug, thiserror::Error)]
#[error("changes of the document contradict each other")]
pub(crate) struct Contradiction;

/// A document in memory.
#[derive(Debug)]
pub(crate) struct Document {
    automerge: AutoCommit,
    deletions: BTreeMap<Author, Vec<ChangeHash>>,
    assembly: Assembly,
    /// Changes that waited or were taken.
    seen: HashSet<ChangeHash>,
    /// Cells and changes that were passed over.
    damaged: u64,
    bytes: usize,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            automerge: new_automerge(),
            deletions: BTreeMap::new(),
            assembly: Assembly::default(),
            seen: HashSet::new(),
            damaged: 0,
            bytes: 0,
        }
    }
}

fn new_automerge() -> AutoCommit {
    AutoCommit::new_with_encoding(TextEncoding::UnicodeCodePoint)
}

impl Document {
    /// Puts a document together from all of its cells.
    pub(crate) fn load<'a>(cells: impl IntoIterator<Item = &'a Cell>) -> Self {
        let mut document = Self::default();
        let changes = document.gather(cells);
        match apply(&mut document.automerge, &changes) {
            Ok(()) => {}
            Err(Contradiction) => {
                let (automerge, passed_over) = settle(changes);
                document.automerge = automerge;
                document.damaged += passed_over;
            }
        }
        document
    }

    /// Takes in more cells. After an error the document must be loaded anew.
    pub(crate) fn take<'a>(
        &mut self,
        cells: impl IntoIterator<Item = &'a Cell>,
    ) -> Result<(), Contradiction> {
        let changes = self.gather(cells);
        if changes.is_empty() { Ok(()) } else { apply(&mut self.automerge, &changes) }
    }

    /// The changes that are whole and new, after noting everything else.
    fn gather<'a>(&mut self, cells: impl IntoIterator<Item = &'a Cell>) -> Vec<Change> {
        let mut changes = Vec::new();
        for cell in cells {
            match change::parse(cell) {
                Some(Record::Part { hash, .. }) if self.seen.contains(&hash) => {}
                Some(Record::Part { hash, number, of, bytes }) => {
                    self.bytes += bytes.len();
                    match self.assembly.add(hash, number, of, bytes) {
                        Assembled::Change(change) => {
                            self.seen.insert(hash);
                            changes.push(*change);
                        }
                        Assembled::Incomplete => {}
                        Assembled::Damaged => self.damaged += 1,
                    }
                }
                Some(Record::Deleted { author, heads }) => {
                    self.deletions.insert(author, heads);
                }
                Some(Record::Elsewhere) => {}
                None => self.damaged += 1,
            }
        }
        changes
    }

    /// Whether the document is there: something was written that no deletion knew of.
    pub(crate) fn exists(&mut self) -> bool {
        let deleted: BTreeSet<&ChangeHash> = self.deletions.values().flatten().collect();
        self.automerge.get_heads().iter().any(|head| !deleted.contains(head))
    }

    /// What it says, whether it is there or not.
    pub(crate) fn value(&self) -> Value {
        value::read(&self.automerge)
    }

    /// Whether more is going on side by side than a deletion can name.
    pub(crate) fn is_splintered(&mut self) -> bool {
        self.automerge.get_heads().len() > MAX_HEADS
    }

    /// Notes a deletion of this node, and returns what it must name to cover all that is known here.
    pub(crate) fn delete(&mut self, author: Author) -> Vec<ChangeHash> {
        let heads = self.automerge.get_heads();
        self.deletions.insert(author, heads.clone());
        heads
    }

    /// Edits the document as `actor`; returns the changes that this came to. After an error the document must be
    /// loaded anew.
    pub(crate) fn edit<E>(
        &mut self,
        actor: &ActorId,
        edit: impl FnOnce(&mut Editor<'_>) -> Result<(), E>,
    ) -> Result<Vec<Change>, E> {
        let existed = self.exists();
        let mut editor = Editor::new(&mut self.automerge, actor.clone());
        edit(&mut editor)?;
        if !existed && editor.is_untouched() {
            editor.touch();
        }
        let changes = editor.finish();
        for change in &changes {
            self.seen.insert(change.hash());
            self.bytes += change.raw_bytes().len();
        }
        Ok(changes)
    }

    /// How many cells and changes were passed over.
    pub(crate) fn damaged(&self) -> u64 {
        self.damaged
    }

    /// How many changes it is made of.
    pub(crate) fn changes(&self) -> u64 {
        self.automerge.stats().num_changes
    }

    /// About what it takes in memory.
    pub(crate) fn weight(&self) -> usize {
        OPEN_BYTES + OPEN_FACTOR * self.bytes
    }

    /// The bytes of its history.
    pub(crate) fn history_bytes(&self) -> usize {
        self.bytes
    }
}

/// Applies changes, all at once. Automerge asserts some of what it is given: a hostile change is to end in an error.
fn apply(automerge: &mut AutoCommit, changes: &[Change]) -> Result<(), Contradiction> {
    let applied = catch_unwind(AssertUnwindSafe(|| automerge.apply_changes(changes.iter().cloned())));
    match applied {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Contradiction),
    }
}

/// The document that contradicting changes make: each in turn, in the order of dependencies and then of hashes, passing
/// over those that do not go with what is there. Returns how many were passed over, too.
fn settle(changes: Vec<Change>) -> (AutoCommit, u64) {
    let ordered = in_order(changes);
    let mut culprits = HashSet::new();
    while culprits.len() <= MAX_CULPRITS {
        let (automerge, passed_over, stumbled) = replay(&ordered, &culprits);
        match stumbled {
            None => return (automerge, passed_over + culprits.len() as u64),
            Some(culprit) => culprits.insert(culprit),
        };
    }
    (new_automerge(), ordered.len() as u64)
}

/// Applies one after the other, up to one that automerge panics over.
fn replay(ordered: &[Change], without: &HashSet<ChangeHash>) -> (AutoCommit, u64, Option<ChangeHash>) {
    let mut automerge = new_automerge();
    let mut passed_over = 0;
    for change in ordered.iter().filter(|change| !without.contains(&change.hash())) {
        let applied = catch_unwind(AssertUnwindSafe(|| automerge.apply_changes([change.clone()])));
        match applied {
            Ok(Ok(())) => {}
            Ok(Err(_)) => passed_over += 1,
            Err(_) => return (automerge, passed_over, Some(change.hash())),
        }
    }
    (automerge, passed_over, None)
}

/// Changes behind what they depend on, and of those that could come next the one with the least hash first. What
/// depends on something that is not there comes last.
fn in_order(changes: Vec<Change>) -> Vec<Change> {
    let mut waiting: BTreeMap<ChangeHash, Change> =
        changes.into_iter().map(|change| (change.hash(), change)).collect();
    let mut missing: BTreeMap<ChangeHash, usize> = BTreeMap::new();
    let mut followers: BTreeMap<ChangeHash, Vec<ChangeHash>> = BTreeMap::new();
    for (hash, change) in &waiting {
        missing.insert(*hash, change.deps().len());
        for dependency in change.deps() {
            followers.entry(*dependency).or_default().push(*hash);
        }
    }
    let mut ready: BTreeSet<ChangeHash> =
        missing.iter().filter(|(_, count)| **count == 0).map(|(hash, _)| *hash).collect();
    let mut ordered = Vec::with_capacity(waiting.len());
    while let Some(hash) = ready.pop_first() {
        ordered.extend(waiting.remove(&hash));
        for follower in followers.remove(&hash).unwrap_or_default() {
            if let Some(count) = missing.get_mut(&follower) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    ready.insert(follower);
                }
            }
        }
    }
    ordered.extend(waiting.into_values());
    ordered
}

#[cfg(test)]
mod tests {
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
        }
    }

    fn cells(changes: &[Change]) -> Vec<Cell> {
        changes.iter().flat_map(|change| cells_of(change).unwrap()).map(cell).collect()
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
            (path(), any_json())
                .prop_map(|(path, value)| json!({"op": "insert", "path": path, "value": value})),
            (path(), any_json())
                .prop_map(|(path, value)| json!({"op": "push", "path": path, "value": value})),
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
                self.document = Document::load(&self.log);
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
                prop_assert_eq!(Document::load(&node.log).value(), nodes[0].document.value());
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
            prop_assert_eq!(Document::load(&log).value(), expected.clone());
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
        let mut there = Document::load(&created);
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
        let mut there = Document::load(&created);
        let one = patched(&mut here, 1, &json!({"b": 1}));
        let two = patched(&mut there, 2, &json!({"c": 1}));
        let deletion = |document: &mut Document, author| {
            let author = Author::from_bytes([author; 16]);
            cell(change::deletion(author, &document.delete(author)))
        };
        let all = [created, one, two, vec![deletion(&mut here, 1), deletion(&mut there, 2)]].concat();
        assert!(!Document::load(&all).exists());
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
        let mut loaded = Document::load(&log);
        assert_eq!(loaded.value(), json!({"a": 1}));
        assert_eq!(loaded.damaged(), 2);
        assert!(loaded.exists());
    }

    #[test]
    fn two_changes_under_one_number_show_the_same_on_every_node() {
        let mut base = Document::default();
        let created = patched(&mut base, 1, &json!({"a": 0}));
        let forked = |value: u64| {
            let mut document = Document::load(&created);
            patched(&mut document, 1, &json!({ "a": value, "b": value }))
        };
        let (one, two) = (forked(1), forked(2));
        let mut values = Vec::new();
        for order in [[&one, &two], [&two, &one]] {
            let mut document = Document::load(&created);
            let mut known = created.clone();
            for cells in order {
                known.extend(cells.iter().cloned());
                if document.take(cells).is_err() {
                    document = Document::load(&known);
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
        let mut there = Document::load(&created);
        let splice = |at: usize, insert: &str| -> Vec<Edit> {
            serde_json::from_value(
                json!([{"op": "splice-text", "path": "/body", "at": at, "insert": insert}]),
            )
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
        assert_eq!(Document::load(&cells(&changes)).value(), json!({"a": null, "b": null}));
    }
}

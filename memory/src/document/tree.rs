//! What a document says, with the kinds of its parts: for doing to one document what was
//! done to another.
//!
//! Unlike JSON it tells a text from a string and a counter from a number, so that what merges goes on merging.

use std::collections::{BTreeMap, HashMap};

use automerge::{
    AutoCommit, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, TextEncoding, ValueRef, hydrate,
    transaction::Transactable,
};

use super::{
    align::{self, Step},
    shared::{Editor, Seed},
    value::{self, MAX_DEPTH, Slot},
};

/// Parts of a new object beyond which it is written at once. One by one, those of others who make the same object at
/// the same time stay.
const MAX_ONE_BY_ONE: usize = 1000;

/// A document, or a part of one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Map(BTreeMap<String, Tree>),
    List(Vec<Tree>),
    Text(String),
    Scalar(ScalarValue),
}

impl Tree {
    /// What the document says.
    pub(crate) fn read(document: &AutoCommit) -> Self {
        Self::read_object(document, &ROOT, ObjType::Map, 0)
    }

    fn read_object(document: &AutoCommit, id: &ObjId, kind: ObjType, depth: usize) -> Self {
        if depth >= MAX_DEPTH && kind != ObjType::Text {
            return Self::Scalar(ScalarValue::Null);
        }
        let part = |value: &ValueRef<'_>, id: &dyn Fn() -> ObjId| match value {
            ValueRef::Object(kind) => Self::read_object(document, &id(), *kind, depth + 1),
            ValueRef::Scalar(scalar) => Self::Scalar(scalar.into()),
        };
        match kind {
            ObjType::Map | ObjType::Table => {
                let members = document.map_range(id, ..);
                Self::Map(
                    members
                        .map(|item| (item.key.clone().into_owned(), part(&item.value, &|| item.id())))
                        .collect(),
                )
            }
            ObjType::List => {
                let elements = document.list_range(id, ..);
                Self::List(elements.map(|item| part(&item.value, &|| item.id())).collect())
            }
            ObjType::Text => document.text(id).map_or(Self::Scalar(ScalarValue::Null), Self::Text),
        }
    }

    /// Writes it into the empty document.
    pub(crate) fn write_root(&self, document: &mut AutoCommit) -> Result<(), AutomergeError> {
        match self {
            Self::Map(members) if !members.is_empty() => {
                document.init_root_from_hydrate(&hydrated_members(members))
            }
            _ => Ok(()),
        }
    }

    /// Does to the document under `editor` what makes `self` of `base`, and touches nothing else.
    pub(crate) fn carry(&self, base: &Self, editor: &mut Editor<'_>) -> Result<(), AutomergeError> {
        match (base, self, Self::read(editor.document())) {
            (Self::Map(base), Self::Map(target), Self::Map(current)) => {
                carry_members(editor, &ROOT, base, target, &current)
            }
            _ => Ok(()),
        }
    }

    fn parts(&self) -> usize {
        match self {
            Self::Map(members) => 1 + members.values().map(Self::parts).sum::<usize>(),
            Self::List(elements) => 1 + elements.iter().map(Self::parts).sum::<usize>(),
            Self::Text(_) | Self::Scalar(_) => 1,
        }
    }
}

type Members = BTreeMap<String, Tree>;

fn carry_members(
    editor: &mut Editor<'_>,
    object: &ObjId,
    base: &Members,
    target: &Members,
    current: &Members,
) -> Result<(), AutomergeError> {
    for key in base.keys().filter(|key| !target.contains_key(*key) && current.contains_key(*key)) {
        editor.document().delete(object, key.as_str())?;
    }
    for (key, target) in target {
        carry_slot(editor, object, Slot::Member(key), base.get(key), target, current.get(key))?;
    }
    Ok(())
}

/// Does to what is in a slot, `current`, what makes `target` of `base`.
fn carry_slot(
    editor: &mut Editor<'_>,
    parent: &ObjId,
    slot: Slot<'_>,
    base: Option<&Tree>,
    target: &Tree,
    current: Option<&Tree>,
) -> Result<(), AutomergeError> {
    if base == Some(target) {
        return Ok(());
    }
    match (target, current) {
        (Tree::Map(target), Some(Tree::Map(current))) => {
            let none = Members::new();
            let base = if let Some(Tree::Map(base)) = base { base } else { &none };
            let id = object_at(editor.document(), parent, slot)?;
            carry_members(editor, &id, base, target, current)
        }
        (Tree::List(target), Some(Tree::List(current))) => {
            let base = if let Some(Tree::List(base)) = base { base.as_slice() } else { &[] };
            let id = object_at(editor.document(), parent, slot)?;
            carry_elements(editor, &id, base, target, current)
        }
        (Tree::Text(target), Some(Tree::Text(current))) => {
            let id = object_at(editor.document(), parent, slot)?;
            carry_text(editor.document(), &id, text_of(base), target, current)
        }
        // What others make shared, too, is made as one with them.
        (Tree::Text(target), Some(Tree::Scalar(ScalarValue::Str(current)))) => {
            let current = current.to_string();
            let id = editor.share(parent, slot, Seed::Text(current.clone()))?;
            carry_text(editor.document(), &id, text_of(base), target, &current)
        }
        (Tree::Text(target), None) => {
            let id = editor.share(parent, slot, Seed::Text(String::new()))?;
            editor.document().splice_text(&id, 0, 0, target)
        }
        (Tree::Scalar(ScalarValue::Counter(target)), current) => {
            let before = base.and_then(number_of).unwrap_or_default();
            match current {
                Some(Tree::Scalar(ScalarValue::Counter(_))) => {}
                Some(Tree::Scalar(ScalarValue::Int(current))) => {
                    editor.share(parent, slot, Seed::Counter(*current))?;
                }
                None if matches!(slot, Slot::Member(_)) => {
                    editor.share(parent, slot, Seed::Counter(0))?;
                    return increment(editor.document(), parent, slot, i64::from(target));
                }
                _ => {
                    return value::write_scalar(
                        editor.document(),
                        parent,
                        slot,
                        ScalarValue::Counter(target.clone()),
                    );
                }
            }
            increment(editor.document(), parent, slot, i64::from(target).wrapping_sub(before))
        }
        (Tree::Map(members), None) if target.parts() <= MAX_ONE_BY_ONE => {
            let id = editor.share(parent, slot, Seed::Map)?;
            carry_members(editor, &id, &Members::new(), members, &Members::new())
        }
        (Tree::Scalar(_), Some(current)) if current == target => Ok(()),
        (target, _) => write(editor.document(), parent, slot, target),
    }
}

fn carry_elements(
    editor: &mut Editor<'_>,
    list: &ObjId,
    base: &[Tree],
    target: &[Tree],
    current: &[Tree],
) -> Result<(), AutomergeError> {
    for step in align::steps(base, target, current) {
        match step {
            Step::Replace { at, from, to } => {
                let (base, current) = (base.get(from), current.get(at));
                carry_slot(editor, list, Slot::Element(at), base, &target[to], current)?;
            }
            Step::Delete { at } => editor.document().delete(list, at)?,
            Step::Insert { at, from, to } => {
                editor.document().splice(list, at, 0, target[from..to].iter().map(hydrated))?;
            }
        }
    }
    Ok(())
}

fn carry_text(
    document: &mut AutoCommit,
    id: &ObjId,
    base: &str,
    target: &str,
    current: &str,
) -> Result<(), AutomergeError> {
    let characters = |text: &str| text.chars().collect::<Vec<char>>();
    let (base, target, current) = (characters(base), characters(target), characters(current));
    for step in align::steps(&base, &target, &current) {
        let (at, deleted, inserted) = match step {
            Step::Replace { at, from: _, to } => (at, 1, to..to + 1),
            Step::Delete { at } => (at, 1, 0..0),
            Step::Insert { at, from, to } => (at, 0, from..to),
        };
        let inserted: String = target[inserted].iter().collect();
        document.splice_text(id, at, deleted, &inserted)?;
    }
    Ok(())
}

fn text_of(tree: Option<&Tree>) -> &str {
    match tree {
        Some(Tree::Text(text)) => text,
        Some(Tree::Scalar(ScalarValue::Str(text))) => text,
        _ => "",
    }
}

fn number_of(tree: &Tree) -> Option<i64> {
    match tree {
        Tree::Scalar(ScalarValue::Counter(number)) => Some(number.into()),
        Tree::Scalar(ScalarValue::Int(number)) => Some(*number),
        _ => None,
    }
}

fn increment(
    document: &mut AutoCommit,
    parent: &ObjId,
    slot: Slot<'_>,
    by: i64,
) -> Result<(), AutomergeError> {
    match slot {
        _ if by == 0 => Ok(()),
        Slot::Member(key) => document.increment(parent, key, by),
        Slot::Element(index) | Slot::Insert(index) => document.increment(parent, index, by),
    }
}

fn object_at(document: &AutoCommit, parent: &ObjId, slot: Slot<'_>) -> Result<ObjId, AutomergeError> {
    match value::held(document, parent, slot)? {
        Some(value::Held::Object(_, id)) => Ok(id),
        _ => Err(AutomergeError::NotAnObject),
    }
}

/// Writes `tree` as something new into a slot, objects as a whole.
fn write(
    document: &mut AutoCommit,
    parent: &ObjId,
    slot: Slot<'_>,
    tree: &Tree,
) -> Result<(), AutomergeError> {
    match (hydrated(tree), slot) {
        (hydrate::Value::Scalar(scalar), slot) => return value::write_scalar(document, parent, slot, scalar),
        (object, Slot::Member(key)) => document.batch_create_object(parent, key, &object, false)?,
        (object, Slot::Element(index)) => document.batch_create_object(parent, index, &object, false)?,
        (object, Slot::Insert(index)) => document.batch_create_object(parent, index, &object, true)?,
    };
    Ok(())
}

fn hydrated(tree: &Tree) -> hydrate::Value {
    match tree {
        Tree::Map(members) => hydrate::Value::Map(hydrated_members(members)),
        Tree::List(elements) => {
            hydrate::Value::List(elements.iter().map(hydrated).collect::<Vec<_>>().into())
        }
        Tree::Text(text) => hydrate::Value::Text(hydrate::Text::new(TextEncoding::UnicodeCodePoint, text)),
        Tree::Scalar(scalar) => hydrate::Value::Scalar(scalar.clone()),
    }
}

fn hydrated_members(members: &BTreeMap<String, Tree>) -> hydrate::Map {
    let members = members.iter().map(|(key, tree)| (key.clone(), hydrated(tree)));
    members.collect::<HashMap<String, hydrate::Value>>().into()
}

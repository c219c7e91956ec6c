//! Edits of single places in a document, named by JSON pointers.
//!
//! The smaller an edit, the better it merges: of two halves of a swarm one may push to a list while the other splices
//! its text, and both stay.

use automerge::{AutoCommit, ObjId, ObjType, ROOT, ReadDoc, transaction::Transactable};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    pointer::{self, Pointer},
    replace,
    shared::{Editor, Seed},
    value::{self, Held, MAX_DEPTH, ScalarKind, Slot},
};

/// Edits of one request.
pub const MAX_EDITS: usize = 1024;

/// One change of one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Edit {
    /// Makes a member or an element equal to a value. The member may be new, what holds it must be there.
    Set {
        /// The member or element, or the whole document.
        path: Pointer,
        /// What it is to be.
        value: Value,
    },
    /// Removes a member or an element.
    Remove {
        /// The member or element.
        path: Pointer,
    },
    /// Adds to an integer. Increments made at once add up. A member that is not there counts from zero.
    Increment {
        /// The member or element.
        path: Pointer,
        /// How much; may be negative.
        #[serde(default = "one")]
        by: i64,
    },
    /// Puts a new element into a list, before the one that the path names, or at the end for `-`.
    Insert {
        /// The place in the list.
        path: Pointer,
        /// The element.
        value: Value,
    },
    /// Puts a new element at the end of a list.
    Push {
        /// The list.
        path: Pointer,
        /// The element.
        value: Value,
    },
    /// Deletes and inserts characters of a string, which from then on merges as text. A member that is not there is
    /// an empty text.
    SpliceText {
        /// The string.
        path: Pointer,
        /// Characters (Unicode scalar values) before the place.
        at: usize,
        /// How many characters behind the place go.
        #[serde(default)]
        delete: usize,
        /// What comes in their stead.
        #[serde(default)]
        insert: String,
    },
}

const fn one() -> i64 {
    1
}

/// Why an edit cannot be done. Nothing of its request is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("edit {number}, at `{path}`: {problem}")]
pub struct EditError {
    /// Which of the edits, from 0.
    pub number: usize,
    /// The place that it names.
    pub path: Pointer,
    /// What is wrong with it.
    pub problem: EditProblem,
}

/// What is wrong with an edit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditProblem {
    /// The place, or what should hold it, is not there.
    #[error("there is nothing at `{0}`")]
    Nothing(Pointer),
    /// Something else is there.
    #[error("there is no {wanted} at `{at}`")]
    Kind {
        /// What the edit needs.
        wanted: &'static str,
        /// Where it needs it.
        at: Pointer,
    },
    /// The list or text is shorter.
    #[error("position {at} is outside, the length is {len}")]
    Outside {
        /// The position asked for.
        at: usize,
        /// The length.
        len: usize,
    },
    /// The whole document cannot be removed, counted or inserted.
    #[error("this cannot be done to the whole document")]
    Whole,
    /// A document is an object.
    #[error("a document must be an object")]
    NotAnObject,
    /// What it puts there would lie too deep.
    #[error("the document would be nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// The sum is outside the 64-bit integers.
    #[error("the result does not fit a 64-bit integer")]
    Overflow,
    /// The document refuses it.
    #[error("the document does not take it: {0}")]
    Refused(String),
}

impl From<automerge::AutomergeError> for EditProblem {
    fn from(error: automerge::AutomergeError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Refuses values that would lie too deep where they are to be. An object never moves in a document, so what each of two sides
/// keeps to, their merge keeps to.
pub(crate) fn check_depth(edits: &[Edit]) -> Result<(), EditError> {
    for (number, edit) in edits.iter().enumerate() {
        let (value, above) = match edit {
            Edit::Set { path, value } | Edit::Insert { path, value } => (value, path.steps().len()),
            Edit::Push { path, value } => (value, path.steps().len() + 1),
            Edit::Remove { .. } | Edit::Increment { .. } | Edit::SpliceText { .. } => continue,
        };
        if !value::is_within(value, MAX_DEPTH.saturating_sub(above)) {
            return Err(EditError { number, path: edit.path().clone(), problem: EditProblem::TooDeep });
        }
    }
    Ok(())
}

/// Does `edits` in their order.
pub(crate) fn apply(editor: &mut Editor<'_>, edits: &[Edit]) -> Result<(), EditError> {
    for (number, edit) in edits.iter().enumerate() {
        let failed = |problem| EditError { number, path: edit.path().clone(), problem };
        apply_one(editor, edit).map_err(failed)?;
    }
    Ok(())
}

impl Edit {
    /// The place that it names.
    pub fn path(&self) -> &Pointer {
        match self {
            Self::Set { path, .. }
            | Self::Remove { path }
            | Self::Increment { path, .. }
            | Self::Insert { path, .. }
            | Self::Push { path, .. }
            | Self::SpliceText { path, .. } => path,
        }
    }
}

fn apply_one(editor: &mut Editor<'_>, edit: &Edit) -> Result<(), EditProblem> {
    match edit {
        Edit::Set { path, value } => set(editor.document(), path, value),
        Edit::Remove { path } => {
            let place = Place::find(editor.document(), path)?;
            place.existing(editor.document(), path)?;
            match place.slot {
                Slot::Member(key) => editor.document().delete(&place.parent, key)?,
                Slot::Element(index) | Slot::Insert(index) => {
                    editor.document().delete(&place.parent, index)?
                }
            }
            Ok(())
        }
        Edit::Increment { path, by } => increment(editor, path, *by),
        Edit::Insert { path, value } => {
            let (parents, last) = path.split_last().ok_or(EditProblem::Whole)?;
            let list = find_list(editor.document(), parents)?;
            let len = editor.document().length(&list);
            let at = if last == "-" { Some(len) } else { pointer::index(last) };
            let at = at.ok_or_else(|| EditProblem::Nothing(path.clone()))?;
            insert(editor.document(), &list, at, len, value)
        }
        Edit::Push { path, value } => {
            let list = find_list(editor.document(), path.steps())?;
            let len = editor.document().length(&list);
            insert(editor.document(), &list, len, len, value)
        }
        Edit::SpliceText { path, at, delete, insert } => splice_text(editor, path, *at, *delete, insert),
    }
}

fn set(document: &mut AutoCommit, path: &Pointer, value: &Value) -> Result<(), EditProblem> {
    if path.steps().is_empty() {
        let members = value.as_object().ok_or(EditProblem::NotAnObject)?;
        return Ok(replace::members(document, &ROOT, members)?);
    }
    let place = Place::find(document, path)?;
    Ok(replace::slot(document, &place.parent, place.slot, value)?)
}

fn insert(
    document: &mut AutoCommit,
    list: &ObjId,
    at: usize,
    len: usize,
    value: &Value,
) -> Result<(), EditProblem> {
    if at > len {
        return Err(EditProblem::Outside { at, len });
    }
    Ok(value::write(document, list, Slot::Insert(at), value)?)
}

fn increment(editor: &mut Editor<'_>, path: &Pointer, by: i64) -> Result<(), EditProblem> {
    let place = Place::find(editor.document(), path)?;
    let not_an_integer = || EditProblem::Kind { wanted: "integer", at: path.clone() };
    let current = match value::held(editor.document(), &place.parent, place.slot)? {
        None => {
            editor.share(&place.parent, place.slot, Seed::Counter(0))?;
            0
        }
        Some(Held::Scalar(value, kind)) => {
            let current = value.as_i64().ok_or_else(not_an_integer)?;
            if kind == ScalarKind::Plain {
                editor.share(&place.parent, place.slot, Seed::Counter(current))?;
            }
            current
        }
        Some(Held::Object(..)) => return Err(not_an_integer()),
    };
    current.checked_add(by).ok_or(EditProblem::Overflow)?;
    match place.slot {
        Slot::Member(key) => editor.document().increment(&place.parent, key, by)?,
        Slot::Element(index) | Slot::Insert(index) => {
            editor.document().increment(&place.parent, index, by)?;
        }
    }
    Ok(())
}

fn splice_text(
    editor: &mut Editor<'_>,
    path: &Pointer,
    at: usize,
    delete: usize,
    insert: &str,
) -> Result<(), EditProblem> {
    let place = Place::find(editor.document(), path)?;
    let no_text = || EditProblem::Kind { wanted: "string", at: path.clone() };
    let text = match value::held(editor.document(), &place.parent, place.slot)? {
        Some(Held::Object(ObjType::Text, id)) => id,
        Some(Held::Scalar(Value::String(content), ..)) => {
            editor.share(&place.parent, place.slot, Seed::Text(content))?
        }
        None => editor.share(&place.parent, place.slot, Seed::Text(String::new()))?,
        Some(_) => return Err(no_text()),
    };
    let len = editor.document().length(&text);
    let end = at.checked_add(delete).filter(|end| *end <= len);
    end.ok_or(EditProblem::Outside { at: at.saturating_add(delete), len })?;
    let delete = isize::try_from(delete).map_err(|_| EditProblem::Outside { at: delete, len })?;
    Ok(editor.document().splice_text(&text, at, delete, insert)?)
}

/// A member or an element, and the object that holds it.
struct Place<'a> {
    parent: ObjId,
    slot: Slot<'a>,
}

impl<'a> Place<'a> {
    fn find(document: &AutoCommit, path: &'a Pointer) -> Result<Self, EditProblem> {
        let (parents, last) = path.split_last().ok_or(EditProblem::Whole)?;
        let (kind, parent) = find_object(document, parents)?;
        let slot = match kind {
            ObjType::Map | ObjType::Table => Slot::Member(last),
            ObjType::List => {
                let len = document.length(&parent);
                let at = pointer::index(last).ok_or_else(|| EditProblem::Nothing(path.clone()))?;
                if at >= len {
                    return Err(EditProblem::Outside { at, len });
                }
                Slot::Element(at)
            }
            ObjType::Text => return Err(EditProblem::Nothing(path.clone())),
        };
        Ok(Self { parent, slot })
    }

    fn existing(&self, document: &AutoCommit, path: &Pointer) -> Result<(), EditProblem> {
        let held = value::held(document, &self.parent, self.slot)?;
        held.map(|_| ()).ok_or_else(|| EditProblem::Nothing(path.clone()))
    }
}

fn find_list(document: &AutoCommit, steps: &[String]) -> Result<ObjId, EditProblem> {
    match find_object(document, steps)? {
        (ObjType::List, list) => Ok(list),
        _ => Err(EditProblem::Kind { wanted: "list", at: pointer_of(steps) }),
    }
}

fn find_object(document: &AutoCommit, steps: &[String]) -> Result<(ObjType, ObjId), EditProblem> {
    let mut found = (ObjType::Map, ROOT);
    for (depth, step) in steps.iter().enumerate() {
        let nothing = || EditProblem::Nothing(pointer_of(&steps[..=depth]));
        let slot = match found.0 {
            ObjType::Map | ObjType::Table => Slot::Member(step),
            ObjType::List => Slot::Element(pointer::index(step).ok_or_else(nothing)?),
            ObjType::Text => return Err(nothing()),
        };
        found = match value::held(document, &found.1, slot)?.ok_or_else(nothing)? {
            Held::Object(kind, id) => (kind, id),
            Held::Scalar(..) => {
                let at = pointer_of(&steps[..=depth]);
                return Err(EditProblem::Kind { wanted: "object or list", at });
            }
        };
    }
    Ok(found)
}

fn pointer_of(steps: &[String]) -> Pointer {
    steps.iter().fold(Pointer::root(), |pointer, step| pointer.child(step.as_str()))
}

#[cfg(test)]
mod tests;

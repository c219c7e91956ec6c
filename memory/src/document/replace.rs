//! Making a document equal to a JSON value with as few operations as is easy.
//!
//! What stays the same is not touched, so that a whole-document `put` and an edit elsewhere in the document at the
//! same time both stand. Lists keep their common beginning and end; a text object keeps what the new string has in
//! common with it.

use automerge::{AutoCommit, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, transaction::Transactable};
use serde_json::{Map, Value};

use super::value::{self, Held, Slot};

/// Pairs of characters that are compared to find what two texts have in common.
const MAX_COMPARED: usize = 1_000_000;

/// Makes the map `object` equal to `target`.
pub(crate) fn members(
    document: &mut AutoCommit,
    object: &ObjId,
    target: &Map<String, Value>,
) -> Result<(), AutomergeError> {
    // Only for a document that never had a member: automerge trusts that there is nothing, not even what was removed.
    if *object == ROOT && document.stats().num_ops == 0 {
        return value::write_root(document, target);
    }
    let gone: Vec<String> = document.keys(object).filter(|key| !target.contains_key(key)).collect();
    for key in gone {
        document.delete(object, key)?;
    }
    for (key, value) in target {
        slot(document, object, Slot::Member(key), value)?;
    }
    Ok(())
}

/// Makes a member or element equal to `target`.
pub(crate) fn slot(
    document: &mut AutoCommit,
    parent: &ObjId,
    slot: Slot<'_>,
    target: &Value,
) -> Result<(), AutomergeError> {
    match (value::held(document, parent, slot)?, target) {
        (Some(Held::Scalar(current, ..)), target) if current == *target => Ok(()),
        (Some(Held::Object(ObjType::Map | ObjType::Table, id)), Value::Object(target)) => {
            members(document, &id, target)
        }
        (Some(Held::Object(ObjType::List, id)), Value::Array(target)) => elements(document, &id, target),
        (Some(Held::Object(ObjType::Text, id)), Value::String(target)) => {
            let current = document.text(&id)?;
            text(document, &id, &current, target)
        }
        _ => value::write(document, parent, slot, target),
    }
}

/// Makes a text equal to `target`. What differs is taken apart further only where that is quick: the time it takes grows
/// with both lengths multiplied.
fn text(document: &mut AutoCommit, id: &ObjId, current: &str, target: &str) -> Result<(), AutomergeError> {
    if current == target {
        return Ok(());
    }
    let (old, new): (Vec<char>, Vec<char>) = (current.chars().collect(), target.chars().collect());
    let front = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let back = old[front..].iter().rev().zip(new[front..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (gone, inserted) = (old.len() - back - front, &new[front..new.len() - back]);
    if gone.saturating_mul(inserted.len()) <= MAX_COMPARED {
        return document.update_text(id, target);
    }
    let inserted: String = inserted.iter().collect();
    document.splice_text(id, front, isize::try_from(gone).unwrap_or(isize::MAX), &inserted)
}

fn elements(document: &mut AutoCommit, list: &ObjId, target: &[Value]) -> Result<(), AutomergeError> {
    let current = match value::read_object(document, list, ObjType::List, 0) {
        Value::Array(current) => current,
        _ => Vec::new(),
    };
    let common =
        |pairs: &mut dyn Iterator<Item = (&Value, &Value)>| pairs.take_while(|(a, b)| a == b).count();
    let front = common(&mut current.iter().zip(target));
    let back = common(&mut current[front..].iter().rev().zip(target[front..].iter().rev()));
    let (old, new) = (front..current.len() - back, front..target.len() - back);

    let kept = old.len().min(new.len());
    let (changed, added) = target[new].split_at(kept);
    for (index, value) in (front..).zip(changed) {
        slot(document, list, Slot::Element(index), value)?;
    }
    for _ in kept..old.len() {
        document.delete(list, front + kept)?;
    }
    if added.is_empty() { Ok(()) } else { value::write_elements(document, list, front + kept, added) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::document::value::tests::{any_object, holding};

    fn replaced(document: &mut AutoCommit, target: &Value) {
        members(document, &ROOT, target.as_object().unwrap()).unwrap();
        document.commit();
    }

    proptest! {
        #[test]
        fn any_document_becomes_any_other(from in any_object(), to in any_object()) {
            let mut document = holding(&from);
            replaced(&mut document, &to);
            prop_assert_eq!(value::read(&document), to);
        }

        #[test]
        fn what_is_equal_already_is_not_written(from in any_object()) {
            let mut document = holding(&from);
            let heads = document.get_heads();
            replaced(&mut document, &from);
            prop_assert_eq!(document.get_heads(), heads);
        }
    }

    #[test]
    fn long_texts_that_have_nothing_in_common_are_replaced_at_once() {
        let mut document = AutoCommit::new();
        let text = document.put_object(ROOT, "a", ObjType::Text).unwrap();
        document.splice_text(&text, 0, 0, &format!("<{}>", "ä".repeat(300_000))).unwrap();
        let target = json!({"a": format!("<{}>", "b".repeat(200_000))});
        replaced(&mut document, &target);
        assert_eq!(value::read(&document), target);
    }

    #[test]
    fn a_put_and_an_edit_elsewhere_both_stand() {
        let mut one = holding(&json!({"a": 1, "b": [1, 2, 3], "c": {"d": 1, "e": 1}}));
        let mut two = one.fork();
        replaced(&mut one, &json!({"a": 2, "b": [0, 1, 2, 3], "c": {"d": 1, "e": 2}}));
        replaced(&mut two, &json!({"a": 1, "b": [1, 2, 3, 4], "c": {"d": 2, "e": 1}}));
        one.merge(&mut two).unwrap();
        assert_eq!(value::read(&one), json!({"a": 2, "b": [0, 1, 2, 3, 4], "c": {"d": 2, "e": 2}}));
    }
}

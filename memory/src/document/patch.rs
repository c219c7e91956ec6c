//! JSON merge patch (RFC 7386): an object whose members are set, whose nulls are removed, and whose objects go deeper.
//!
//! It touches what it names and nothing else, so patches of different members made at once both stand; members of an
//! object that neither side had yet, too.

use automerge::{AutomergeError, ObjId, ObjType, ROOT, transaction::Transactable};
use serde_json::{Map, Value};

use super::{
    replace,
    shared::{Editor, Seed},
    value::{self, Held, Slot},
};

/// Applies `patch` to the whole document.
pub(crate) fn apply(editor: &mut Editor<'_>, patch: &Map<String, Value>) -> Result<(), AutomergeError> {
    members(editor, &ROOT, patch)
}

fn members(
    editor: &mut Editor<'_>,
    object: &ObjId,
    patch: &Map<String, Value>,
) -> Result<(), AutomergeError> {
    for (key, change) in patch {
        let slot = Slot::Member(key);
        let held = value::held(editor.document(), object, slot)?;
        match change {
            Value::Null if held.is_none() => {}
            Value::Null => editor.document().delete(object, key.as_str())?,
            Value::Object(change) => {
                let inner = match held {
                    Some(Held::Object(ObjType::Map | ObjType::Table, id)) => id,
                    Some(_) => value::write_object(editor.document(), object, slot, ObjType::Map)?,
                    None => editor.share(object, slot, Seed::Map)?,
                };
                members(editor, &inner, change)?;
            }
            change => replace::slot(editor.document(), object, slot, change)?,
        }
    }
    Ok(())
}

/// What `patch` makes of `target`, for values that are not in a document.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(members) = target else { return };
    for (key, change) in patch {
        if change.is_null() {
            members.remove(key);
        } else {
            merge_patch(members.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use automerge::{ActorId, AutoCommit};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::document::value::{
        read,
        tests::{any_object, holding},
    };

    fn patched(document: &mut AutoCommit, author: u8, patch: &Value) {
        let mut editor = Editor::new(document, ActorId::from(vec![author; 16]));
        apply(&mut editor, patch.as_object().unwrap()).unwrap();
        editor.finish();
    }

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (target, patch, expected) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut document = holding(&target);
            patched(&mut document, 1, &patch);
            assert_eq!(read(&document), expected, "{target} {patch}");
            let mut plain = target;
            merge_patch(&mut plain, &patch);
            assert_eq!(plain, expected);
        }
    }

    proptest! {
        #[test]
        fn a_document_is_patched_as_a_plain_value_is(target in any_object(), patch in any_object()) {
            let mut document = holding(&target);
            patched(&mut document, 1, &patch);
            let mut expected = target;
            merge_patch(&mut expected, &patch);
            prop_assert_eq!(read(&document), expected);
        }
    }

    #[test]
    fn patches_of_different_members_both_stay_also_in_an_object_that_is_new_to_both() {
        let mut one = holding(&json!({"kept": {"x": 0}}));
        let mut two = one.fork();
        patched(&mut one, 1, &json!({"kept": {"a": 1}, "new": {"deep": {"a": 1}}}));
        patched(&mut two, 2, &json!({"kept": {"b": 2}, "new": {"deep": {"b": 2}}}));
        one.merge(&mut two).unwrap();
        let expected = json!({"kept": {"x": 0, "a": 1, "b": 2}, "new": {"deep": {"a": 1, "b": 2}}});
        assert_eq!(read(&one), expected);
    }
}

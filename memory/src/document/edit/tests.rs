//! Each kind of edit, edits of two at once, and edits that cannot be done.

use automerge::ActorId;
use serde_json::json;

use super::*;
use crate::document::value::{read, tests::holding};

fn edits(json: Value) -> Vec<Edit> {
    serde_json::from_value(json).unwrap()
}

/// Does the edits as an author of this number.
fn edited(document: &mut AutoCommit, author: u8, json: Value) -> Result<(), EditError> {
    let mut editor = Editor::new(document, ActorId::from(vec![author; 16]));
    apply(&mut editor, &edits(json))?;
    editor.finish();
    Ok(())
}

fn merged(one: &mut AutoCommit, two: &mut AutoCommit) -> Value {
    one.merge(two).unwrap();
    two.merge(one).unwrap();
    assert_eq!(read(one), read(two));
    read(one)
}

#[test]
fn every_kind_of_edit_changes_its_place() {
    let mut document = holding(&json!({"list": [1, 2], "n": 1, "gone": true, "body": "hello"}));
    edited(
        &mut document,
        1,
        json!([
            {"op": "set", "path": "/new", "value": {"a": 1}},
            {"op": "set", "path": "/new/b", "value": 2},
            {"op": "set", "path": "/list/0", "value": 0},
            {"op": "insert", "path": "/list/1", "value": 1},
            {"op": "insert", "path": "/list/-", "value": 3},
            {"op": "push", "path": "/list", "value": 4},
            {"op": "remove", "path": "/gone"},
            {"op": "increment", "path": "/n", "by": 5},
            {"op": "increment", "path": "/m"},
            {"op": "splice-text", "path": "/body", "at": 1, "delete": 1, "insert": "u"},
            {"op": "splice-text", "path": "/title", "at": 0, "insert": "ä"},
            {"op": "splice-text", "path": "/title", "at": 1, "insert": "b"},
        ]),
    )
    .unwrap();
    let expected = json!({"new": {"a": 1, "b": 2}, "list": [0, 1, 2, 3, 4], "n": 6, "m": 1,
        "body": "hullo", "title": "äb"});
    assert_eq!(read(&document), expected);
}

#[test]
fn two_who_splice_the_same_plain_string_for_the_first_time_both_stay() {
    let mut one = holding(&json!({"body": "middle", "list": ["middle"]}));
    let mut two = one.fork();
    for path in ["/body", "/list/0"] {
        let front = json!([{"op": "splice-text", "path": path, "at": 0, "insert": "front "}]);
        edited(&mut one, 1, front).unwrap();
        edited(&mut two, 2, json!([{"op": "set", "path": "/other", "value": path}])).unwrap();
        edited(&mut two, 2, json!([{"op": "splice-text", "path": path, "at": 6, "insert": " end"}])).unwrap();
    }
    let both = merged(&mut one, &mut two);
    assert_eq!(both["body"], "front middle end");
    assert_eq!(both["list"][0], "front middle end");
}

#[test]
fn two_who_count_the_same_plain_number_for_the_first_time_add_up() {
    let mut one = holding(&json!({"n": 10}));
    let mut two = one.fork();
    edited(&mut one, 1, json!([{"op": "increment", "path": "/n", "by": 1}])).unwrap();
    edited(&mut two, 2, json!([{"op": "increment", "path": "/n", "by": 2}])).unwrap();
    edited(&mut one, 1, json!([{"op": "increment", "path": "/new", "by": 1}])).unwrap();
    edited(&mut two, 2, json!([{"op": "increment", "path": "/new", "by": 2}])).unwrap();
    assert_eq!(merged(&mut one, &mut two), json!({"n": 13, "new": 3}));
}

#[test]
fn a_text_that_was_removed_can_be_begun_anew() {
    let mut document = holding(&json!({}));
    let splice = json!([{"op": "splice-text", "path": "/body", "at": 0, "insert": "x"}]);
    edited(&mut document, 1, splice.clone()).unwrap();
    edited(&mut document, 1, json!([{"op": "remove", "path": "/body"}])).unwrap();
    edited(&mut document, 1, splice).unwrap();
    assert_eq!(read(&document), json!({"body": "x"}));
}

#[test]
fn pushes_of_two_both_stay() {
    let mut one = holding(&json!({"list": ["x"]}));
    let mut two = one.fork();
    edited(&mut one, 1, json!([{"op": "push", "path": "/list", "value": "a"}])).unwrap();
    edited(&mut two, 2, json!([{"op": "push", "path": "/list", "value": "b"}])).unwrap();
    let both = merged(&mut one, &mut two);
    let mut list: Vec<&str> = both["list"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    list.sort_unstable();
    assert_eq!(list, ["a", "b", "x"]);
}

#[test]
fn an_edit_that_cannot_be_done_says_which_and_where() {
    let mut document = holding(&json!({"list": [1], "text": "ab", "n": i64::MAX}));
    let mut problem = |edit: Value| {
        let ok = json!({"op": "set", "path": "/fine", "value": 1});
        let error = edited(&mut document, 1, json!([ok, edit])).unwrap_err();
        assert_eq!(error.number, 1);
        document.rollback();
        error.problem
    };
    let at = |text: &str| text.parse::<Pointer>().unwrap();
    assert_eq!(problem(json!({"op": "set", "path": "/a/b", "value": 1})), EditProblem::Nothing(at("/a")));
    assert_eq!(problem(json!({"op": "remove", "path": "/a"})), EditProblem::Nothing(at("/a")));
    assert_eq!(
        problem(json!({"op": "set", "path": "/list/1", "value": 1})),
        EditProblem::Outside { at: 1, len: 1 }
    );
    assert_eq!(
        problem(json!({"op": "push", "path": "/text", "value": 1})),
        EditProblem::Kind { wanted: "object or list", at: at("/text") }
    );
    assert_eq!(
        problem(json!({"op": "splice-text", "path": "/text", "at": 3})),
        EditProblem::Outside { at: 3, len: 2 }
    );
    assert_eq!(problem(json!({"op": "increment", "path": "/n"})), EditProblem::Overflow);
    assert_eq!(
        problem(json!({"op": "increment", "path": "/list"})),
        EditProblem::Kind { wanted: "integer", at: at("/list") }
    );
    assert_eq!(problem(json!({"op": "remove", "path": ""})), EditProblem::Whole);
    assert_eq!(problem(json!({"op": "set", "path": "", "value": 1})), EditProblem::NotAnObject);
}

/// Objects in each other, so many.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({}), |inner, _| json!({"a": inner}))
}

#[test]
fn what_would_lie_too_deep_is_refused_where_it_is() {
    let deep = |path: &str, op: &str, levels| {
        check_depth(&edits(json!([
            {"op": "remove", "path": "/b"},
            {"op": op, "path": path, "value": nested(levels)},
        ])))
    };
    let path = "/a".repeat(60);
    for (op, above) in [("set", 60), ("insert", 60), ("push", 61)] {
        assert_eq!(deep(&path, op, MAX_DEPTH - above), Ok(()));
        let error = deep(&path, op, MAX_DEPTH - above + 1).unwrap_err();
        assert_eq!((error.number, &error.problem), (1, &EditProblem::TooDeep));
        assert!(error.to_string().starts_with(&format!("edit 1, at `{path}`: ")), "{error}");
    }
    assert_eq!(deep("", "set", MAX_DEPTH), Ok(()));
}

#[test]
fn two_sides_that_keep_to_the_depth_are_not_deeper_together() {
    let half = MAX_DEPTH / 2;
    let mut one = holding(&nested(half));
    let mut two = one.fork();
    let rest = nested(MAX_DEPTH - half);
    let place = "/a".repeat(half);
    for (document, author) in [(&mut one, 1), (&mut two, 2)] {
        let edit = json!([{"op": "set", "path": place, "value": rest}]);
        check_depth(&edits(edit.clone())).unwrap();
        edited(document, author, edit).unwrap();
    }
    let merged = merged(&mut one, &mut two);
    assert_eq!(merged, nested(MAX_DEPTH));
}

//! How a query is answered: through which index, or by looking at every document. Pure.
//!
//! Of the tests that must all hold, those that an index can answer are compared by how many candidates each leaves; the
//! index with the fewest is used, and every candidate is looked at with the whole query.

use serde_json::Value;

use super::{
    index::{Entries, KeyRange},
    order::{self, kind},
    query::{Comparison, Filter, Subject, Test},
};
use crate::document::pointer::Pointer;

/// Candidates beyond which one index is as bad as another.
const COUNTED: usize = 100_000;

/// An index that can be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usable<'a> {
    pub(crate) name: &'a str,
    pub(crate) place: &'a Pointer,
    pub(crate) entries: &'a Entries,
}

/// How a query is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Every document is looked at.
    Scan,
    /// The documents with an entry of this index in one of these ranges are.
    Index { name: String, ranges: Vec<KeyRange>, candidates: usize },
}

/// The best plan for `filter`.
pub(crate) fn choose(filter: &Filter, indexes: &[Usable<'_>]) -> Plan {
    let mut conjuncts = Vec::new();
    collect(filter, &mut conjuncts);
    let mut best = Plan::Scan;
    for index in indexes {
        for ranges in ranges_for(&conjuncts, index) {
            let candidates = count(index.entries, &ranges);
            let better = match &best {
                Plan::Scan => true,
                Plan::Index { candidates: least, .. } => candidates < *least,
            };
            if better {
                best = Plan::Index { name: index.name.to_owned(), ranges, candidates };
            }
        }
    }
    best
}

fn collect<'a>(filter: &'a Filter, conjuncts: &mut Vec<(&'a Pointer, &'a Test)>) {
    match filter {
        Filter::All(filters) => filters.iter().for_each(|filter| collect(filter, conjuncts)),
        Filter::At(Subject::Place(place), test) => conjuncts.push((place, test)),
        Filter::At(Subject::Id, _) | Filter::Any(_) | Filter::Not(_) => {}
    }
}

fn count(entries: &Entries, ranges: &[KeyRange]) -> usize {
    ranges.iter().flat_map(|range| entries.ids(range)).take(COUNTED).count()
}

/// Sets of ranges, each of which leaves nothing out that the query finds.
fn ranges_for(conjuncts: &[(&Pointer, &Test)], index: &Usable<'_>) -> Vec<Vec<KeyRange>> {
    let tests = conjuncts.iter().filter(|(place, _)| *place == index.place).map(|(_, test)| *test);
    let sets: Vec<Vec<KeyRange>> = tests.filter_map(ranges_of).collect();
    // In a list one element may pass one test and another the other, so ranges may be cut only if there are none.
    let all_single = sets.iter().all(|ranges| ranges.len() == 1);
    if sets.len() < 2 || !all_single || !index.entries.is_single() {
        return sets;
    }
    sets.into_iter().flatten().reduce(cut).map(|range| vec![vec![range]]).unwrap_or_default()
}

/// What is in both ranges. Of two upper ends, one of which begins with the other, the longer one is the narrower.
fn cut(a: KeyRange, b: KeyRange) -> KeyRange {
    let a_is_wider = match (a.to.starts_with(&b.to), b.to.starts_with(&a.to)) {
        (false, true) => true,
        (true, _) => false,
        (false, false) => a.to > b.to,
    };
    KeyRange { from: a.from.max(b.from), to: if a_is_wider { b.to } else { a.to } }
}

/// The ranges of keys in which everything lies that passes the test; `None` if that may have no key at all.
fn ranges_of(test: &Test) -> Option<Vec<KeyRange>> {
    match test {
        Test::Equal(Value::Null) | Test::Exists(_) => None,
        Test::Equal(value) => Some(vec![exactly(value)]),
        Test::In(choices) if choices.contains(&Value::Null) => None,
        Test::In(choices) => {
            let mut ranges: Vec<KeyRange> = choices.iter().map(exactly).collect();
            ranges.sort_by(|a, b| a.from.cmp(&b.from));
            ranges.dedup();
            Some(ranges)
        }
        Test::Prefix(prefix) => {
            let key = order::prefix_key(prefix);
            Some(vec![(key.clone()..=key).into()])
        }
        Test::Compare(comparison, bound) => Some(vec![compared(*comparison, bound)]),
    }
}

fn exactly(value: &Value) -> KeyRange {
    let key = order::key(value);
    (key.clone()..=key).into()
}

fn compared(comparison: Comparison, bound: &Value) -> KeyRange {
    let (first, last) = match bound {
        Value::Bool(_) => (kind::FALSE, kind::TRUE),
        bound => (order::kind_of(bound), order::kind_of(bound)),
    };
    let key = order::key(bound);
    match comparison {
        Comparison::Less | Comparison::AtMost => (vec![first]..=key).into(),
        // Every key of the kind begins with it, and so is within.
        Comparison::Greater | Comparison::AtLeast => (key..=vec![last]).into(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::document::value::tests::any_json;

    fn index(place: &str, documents: &[Value]) -> (Pointer, Entries) {
        let place: Pointer = place.parse().unwrap();
        let mut entries = Entries::default();
        for (i, document) in documents.iter().enumerate() {
            entries.replace(&Bytes::from(i.to_string()), &place, Some(document)).unwrap();
        }
        (place, entries)
    }

    fn plan(query: Value, indexes: &[(&str, &(Pointer, Entries))]) -> Plan {
        let usable: Vec<Usable<'_>> =
            indexes.iter().map(|(name, (place, entries))| Usable { name, place, entries }).collect();
        choose(&Filter::parse(&query).unwrap(), &usable)
    }

    fn used(plan: &Plan) -> (&str, usize) {
        match plan {
            Plan::Scan => ("scan", 0),
            Plan::Index { name, candidates, .. } => (name, *candidates),
        }
    }

    fn people() -> Vec<Value> {
        (0..100).map(|i| json!({"age": i, "city": if i % 2 == 0 { "Bern" } else { "Ulm" }})).collect()
    }

    #[test]
    fn the_index_that_leaves_the_fewest_candidates_is_used() {
        let (ages, cities) = (index("/age", &people()), index("/city", &people()));
        let both = [("ages", &ages), ("cities", &cities)];
        assert_eq!(used(&plan(json!({"age": 7, "city": "Bern"}), &both)), ("ages", 1));
        assert_eq!(used(&plan(json!({"age": {"$lt": 90}, "city": "Bern"}), &both)), ("cities", 50));
        assert_eq!(used(&plan(json!({"age": {"$gte": 10, "$lt": 12}}), &both)), ("ages", 3));
        assert_eq!(used(&plan(json!({"city": {"$prefix": "U"}}), &both)), ("cities", 50));
        assert_eq!(used(&plan(json!({"age": {"$in": [1, 2, 2, 500]}}), &both)), ("ages", 2));
        assert_eq!(used(&plan(json!({"$and": [{"age": 1}, {"x": 1}]}), &both)), ("ages", 1));
    }

    #[test]
    fn what_an_index_cannot_answer_is_scanned() {
        let ages = index("/age", &people());
        for query in [
            json!({}),
            json!({"age": null}),
            json!({"age": {"$in": [1, null]}}),
            json!({"age": {"$ne": 1}}),
            json!({"$or": [{"age": 1}, {"age": 2}]}),
            json!({"age": {"$exists": true}}),
            json!({"city": "Bern"}),
        ] {
            assert_eq!(plan(query.clone(), &[("ages", &ages)]), Plan::Scan, "{query}");
        }
    }

    #[test]
    fn ranges_are_not_cut_where_a_list_may_pass_both() {
        let lists = index("/l", &[json!({"l": [1, 9]})]);
        let plan = plan(json!({"l": {"$gte": 5, "$lte": 2}}), &[("lists", &lists)]);
        assert_eq!(used(&plan), ("lists", 1));
    }

    proptest! {
        #[test]
        fn an_index_leaves_out_nothing_that_the_query_finds(
            values in proptest::collection::vec(any_json(), 1..12), a in any_json(), b in any_json(), prefix in "[a-cä]{0,2}",
        ) {
            let documents: Vec<Value> = values.into_iter().map(|value| json!({ "a": value })).collect();
            let by_a = index("/a", &documents);
            for query in [
                json!({"a": {"$eq": a}}), json!({"a": {"$gt": a}}), json!({"a": {"$lte": a}}),
                json!({"a": {"$gte": a, "$lt": b}}), json!({"a": {"$in": [a, b]}}), json!({"a": {"$prefix": prefix}}),
            ] {
                let filter = Filter::parse(&query).unwrap();
                let Plan::Index { ranges, .. } = plan(query, &[("a", &by_a)]) else { continue };
                let candidates: Vec<&Bytes> = ranges.iter().flat_map(|range| by_a.1.ids(range)).collect();
                for (i, document) in documents.iter().enumerate() {
                    if filter.matches("", document) {
                        prop_assert!(candidates.contains(&&Bytes::from(i.to_string())), "{filter:?} {document}");
                    }
                }
            }
        }
    }
}

//! What is looked for: a small language of JSON, in the spirit of MongoDB's, as a tree.
//!
//! ```json
//! {"age": {"$gte": 3, "$lt": 10}, "tags": "x", "$or": [{"a": 1}, {"b.c": {"$in": [1, 2]}}], "$not": {"d": null}}
//! ```
//!
//! Names of members are places: with dots (`author.name`) or as JSON pointers (`/author/name`); `$id` is the document's
//! id. What stands beside each other must all hold. A list matches if it, or one of its elements, does.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::order;
use crate::document::pointer::{self, Pointer, PointerError};

/// Tests and connectives of one query. Each is evaluated for every document that is looked at.
const MAX_PARTS: usize = 256;

/// How deep connectives may lie in each other.
const MAX_NESTING: usize = 16;

/// Values of one `$in`.
const MAX_CHOICES: usize = 1000;

/// Why a query makes no sense, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the query makes no sense at `{at}`: {problem}")]
pub struct QueryError {
    /// The place in the query, as a JSON pointer.
    pub at: Pointer,
    /// What is wrong there.
    pub problem: QueryProblem,
}

/// What is wrong with a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryProblem {
    /// Something else must stand here.
    #[error("here must be {wanted}")]
    Wanted {
        /// What.
        wanted: &'static str,
    },
    /// There is no such operator.
    #[error("there is no operator `{name}`")]
    Operator {
        /// The name.
        name: String,
    },
    /// Operators and names stand side by side.
    #[error("operators cannot stand beside the member `{name}`; to look for this object, use $eq")]
    Mixed {
        /// The member.
        name: String,
    },
    /// The member's name is not a place.
    #[error("{0}")]
    Place(PointerError),
    /// There is too much of something.
    #[error("there are more than {max} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        max: usize,
    },
}

/// Which documents are looked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// All of these hold; without any, every document is meant.
    All(Vec<Filter>),
    /// One of these holds.
    Any(Vec<Filter>),
    /// This does not hold.
    Not(Box<Filter>),
    /// What is at a place passes a test.
    At(Subject, Test),
}

/// What is tested.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// The document's id.
    Id,
    /// What is at a place of the document.
    Place(Pointer),
}

/// A test of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// It is equal to this; what is not there is equal to null.
    Equal(Value),
    /// It is of the same kind as this, and so compared to it.
    Compare(Comparison, Value),
    /// It is equal to one of these.
    In(Vec<Value>),
    /// It is a string that begins so.
    Prefix(String),
    /// It is there, or not.
    Exists(bool),
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Less.
    Less,
    /// Less or equal.
    AtMost,
    /// Greater.
    Greater,
    /// Greater or equal.
    AtLeast,
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

impl Filter {
    /// Every document.
    pub fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Reads a query.
    pub fn parse(query: &Value) -> Result<Self, QueryError> {
        Parser { parts: 0 }.filter(query, &Pointer::root(), 0)
    }

    /// Whether the document is looked for.
    pub fn matches(&self, id: &str, document: &Value) -> bool {
        match self {
            Self::All(filters) => filters.iter().all(|filter| filter.matches(id, document)),
            Self::Any(filters) => filters.iter().any(|filter| filter.matches(id, document)),
            Self::Not(filter) => !filter.matches(id, document),
            Self::At(Subject::Id, test) => test.passes_any(&[&Value::from(id)]),
            Self::At(Subject::Place(place), test) => test.passes_any(&values_at(document, place)),
        }
    }
}

/// What is at a place. A step that is no index goes into every element of a list.
pub(crate) fn values_at<'a>(document: &'a Value, place: &Pointer) -> Vec<&'a Value> {
    place.steps().iter().fold(vec![document], |values, step| {
        values
            .into_iter()
            .flat_map(|value| match value {
                Value::Object(members) => members.get(step).into_iter().collect(),
                Value::Array(elements) => match pointer::index(step) {
                    Some(index) => elements.get(index).into_iter().collect(),
                    None => elements.iter().filter_map(|element| element.get(step)).collect(),
                },
                _ => Vec::new(),
            })
            .collect()
    })
}

impl Test {
    fn passes_any(&self, values: &[&Value]) -> bool {
        match self {
            Self::Exists(wanted) => values.is_empty() != *wanted,
            Self::Equal(Value::Null) if values.is_empty() => true,
            Self::In(choices) if values.is_empty() => choices.contains(&Value::Null),
            _ => values.iter().any(|value| {
                let elements = value.as_array().into_iter().flatten();
                self.passes(value) || elements.into_iter().any(|element| self.passes(element))
            }),
        }
    }

    fn passes(&self, value: &Value) -> bool {
        match self {
            Self::Equal(wanted) => order::compare(value, wanted).is_eq(),
            Self::Compare(comparison, bound) => {
                same_kind(value, bound) && comparison.holds(order::compare(value, bound))
            }
            Self::In(choices) => choices.iter().any(|choice| order::compare(value, choice).is_eq()),
            Self::Prefix(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
            Self::Exists(_) => false,
        }
    }
}

fn same_kind(a: &Value, b: &Value) -> bool {
    order::kind_of(a) == order::kind_of(b) || (a.is_boolean() && b.is_boolean())
}

struct Parser {
    parts: usize,
}

impl Parser {
    fn filter(&mut self, query: &Value, at: &Pointer, depth: usize) -> Result<Filter, QueryError> {
        let members = query.as_object().ok_or_else(|| wanted(at, "an object"))?;
        if depth > MAX_NESTING {
            return Err(too_much(at, "levels", MAX_NESTING));
        }
        let mut all = Vec::new();
        for (name, value) in members {
            let here = at.child(name.as_str());
            match name.as_str() {
                "$and" => all.push(Filter::All(self.list(value, &here, depth)?)),
                "$or" => all.push(Filter::Any(self.list(value, &here, depth)?)),
                "$not" => all.push(Filter::Not(Box::new(self.filter(value, &here, depth + 1)?))),
                "$id" => self.tests(&Subject::Id, value, &here, &mut all)?,
                name if name.starts_with('$') => return Err(no_operator(&here, name)),
                name => {
                    let place = Pointer::lenient(name);
                    let place = place.map_err(|error| problem(&here, QueryProblem::Place(error)))?;
                    self.tests(&Subject::Place(place), value, &here, &mut all)?;
                }
            }
        }
        Ok(match <[Filter; 1]>::try_from(all) {
            Ok([one]) => one,
            Err(all) => Filter::All(all),
        })
    }

    fn list(&mut self, value: &Value, at: &Pointer, depth: usize) -> Result<Vec<Filter>, QueryError> {
        let queries = value.as_array().filter(|queries| !queries.is_empty());
        let queries = queries.ok_or_else(|| wanted(at, "a list of one or more queries"))?;
        let filters = queries.iter().enumerate();
        filters.map(|(index, query)| self.filter(query, &at.child(index.to_string()), depth + 1)).collect()
    }

    /// The tests of one subject: a value to be equal to, or an object of operators.
    fn tests(
        &mut self,
        subject: &Subject,
        value: &Value,
        at: &Pointer,
        all: &mut Vec<Filter>,
    ) -> Result<(), QueryError> {
        match value.as_object().filter(|members| members.keys().any(|name| name.starts_with('$'))) {
            None => {
                self.count(at)?;
                all.push(Filter::At(subject.clone(), Test::Equal(value.clone())));
                Ok(())
            }
            Some(operators) => self.operators(subject, operators, at, all),
        }
    }

    fn operators(
        &mut self,
        subject: &Subject,
        operators: &Map<String, Value>,
        at: &Pointer,
        all: &mut Vec<Filter>,
    ) -> Result<(), QueryError> {
        for (name, value) in operators {
            let here = at.child(name.as_str());
            self.count(&here)?;
            let compare = |comparison| Test::Compare(comparison, value.clone());
            let (test, negated) = match name.as_str() {
                "$eq" => (Test::Equal(value.clone()), false),
                "$ne" => (Test::Equal(value.clone()), true),
                "$lt" => (compare(Comparison::Less), false),
                "$lte" => (compare(Comparison::AtMost), false),
                "$gt" => (compare(Comparison::Greater), false),
                "$gte" => (compare(Comparison::AtLeast), false),
                "$in" => (Test::In(choices(value, &here)?), false),
                "$nin" => (Test::In(choices(value, &here)?), true),
                "$prefix" => {
                    let prefix = value.as_str().ok_or_else(|| wanted(&here, "a string"))?;
                    (Test::Prefix(prefix.to_owned()), false)
                }
                "$exists" => {
                    let exists = value.as_bool().ok_or_else(|| wanted(&here, "true or false"))?;
                    (Test::Exists(exists), false)
                }
                "$not" => {
                    let operators = value.as_object().ok_or_else(|| wanted(&here, "operators"))?;
                    let mut inner = Vec::new();
                    self.operators(subject, operators, &here, &mut inner)?;
                    all.push(Filter::Not(Box::new(Filter::All(inner))));
                    continue;
                }
                name if name.starts_with('$') => return Err(no_operator(&here, name)),
                name => return Err(problem(&here, QueryProblem::Mixed { name: name.to_owned() })),
            };
            let test = Filter::At(subject.clone(), test);
            all.push(if negated { Filter::Not(Box::new(test)) } else { test });
        }
        Ok(())
    }

    fn count(&mut self, at: &Pointer) -> Result<(), QueryError> {
        self.parts += 1;
        if self.parts > MAX_PARTS { Err(too_much(at, "tests", MAX_PARTS)) } else { Ok(()) }
    }
}

fn choices(value: &Value, at: &Pointer) -> Result<Vec<Value>, QueryError> {
    let choices = value.as_array().ok_or_else(|| wanted(at, "a list of values"))?;
    if choices.len() > MAX_CHOICES { Err(too_much(at, "values", MAX_CHOICES)) } else { Ok(choices.clone()) }
}

fn problem(at: &Pointer, problem: QueryProblem) -> QueryError {
    QueryError { at: at.clone(), problem }
}

fn wanted(at: &Pointer, wanted: &'static str) -> QueryError {
    problem(at, QueryProblem::Wanted { wanted })
}

fn no_operator(at: &Pointer, name: &str) -> QueryError {
    problem(at, QueryProblem::Operator { name: name.to_owned() })
}

fn too_much(at: &Pointer, what: &'static str, max: usize) -> QueryError {
    problem(at, QueryProblem::TooMuch { what, max })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::document::value::tests::{any_json, any_object};

    fn matches(query: Value, document: &Value) -> bool {
        Filter::parse(&query).unwrap().matches("the-id", document)
    }

    #[test]
    fn each_operator_finds_what_it_says() {
        let document = json!({"age": 5, "name": "Ada", "tags": ["x", "y"], "at": {"city": "Bern"}, "none": null,
            "list": [{"k": 1}, {"k": 2}]});
        for query in [
            json!({}),
            json!({"age": 5}),
            json!({"age": 5.0}),
            json!({"age": {"$gt": 4, "$lte": 5}}),
            json!({"age": {"$ne": 6}}),
            json!({"age": {"$not": {"$lt": 5}}}),
            json!({"name": {"$prefix": "A"}}),
            json!({"tags": "x"}),
            json!({"tags": ["x", "y"]}),
            json!({"tags": {"$in": ["z", "y"]}}),
            json!({"tags": {"$nin": ["z"]}}),
            json!({"at.city": "Bern"}),
            json!({"/at/city": "Bern"}),
            json!({"at": {"city": "Bern"}}),
            json!({"none": null}),
            json!({"missing": null}),
            json!({"missing": {"$in": [null]}}),
            json!({"missing": {"$exists": false}, "none": {"$exists": true}}),
            json!({"list.k": 2}),
            json!({"/list/1/k": 2}),
            json!({"$id": "the-id"}),
            json!({"$id": {"$prefix": "the"}}),
            json!({"$or": [{"age": 1}, {"name": "Ada"}]}),
            json!({"$and": [{"age": 5}, {"name": "Ada"}]}),
            json!({"$not": {"age": 6}}),
        ] {
            assert!(matches(query.clone(), &document), "{query}");
        }
        for query in [
            json!({"age": "5"}),
            json!({"age": {"$gt": 5}}),
            json!({"age": {"$lt": "6"}}),
            json!({"name": {"$prefix": "a"}}),
            json!({"age": {"$prefix": "5"}}),
            json!({"tags": "z"}),
            json!({"tags": {"$ne": "x"}}),
            json!({"at": {"city": "Bern", "zip": 1}}),
            json!({"/list/0/k": 2}),
            json!({"age": 5, "name": "Bob"}),
            json!({"$or": [{"age": 1}, {"age": 2}]}),
            json!({"missing": {"$gt": 0}}),
        ] {
            assert!(!matches(query.clone(), &document), "{query}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (query, at, words) in [
            (json!(1), "", "here must be an object"),
            (json!({"$or": {}}), "/$or", "here must be a list of one or more queries"),
            (json!({"$and": []}), "/$and", "here must be a list of one or more queries"),
            (json!({"$or": [{"a": 1}, 2]}), "/$or/1", "here must be an object"),
            (json!({"a": {"$gte": 1, "$gtee": 2}}), "/a/$gtee", "there is no operator `$gtee`"),
            (json!({"$where": "x"}), "/$where", "there is no operator `$where`"),
            (json!({"a": {"$in": 3}}), "/a/$in", "here must be a list of values"),
            (json!({"a": {"$gt": 3, "b": 1}}), "/a/b", "operators cannot stand beside the member `b`"),
            (json!({"a/b": {"$prefix": 3}}), "/a~1b/$prefix", "here must be a string"),
            (json!({"/~": 3}), "/~1~0", "is not a JSON pointer"),
            (json!({"a": {"$not": 3}}), "/a/$not", "here must be operators"),
        ] {
            let error = Filter::parse(&query).unwrap_err();
            assert_eq!(error.at.to_string(), at, "{query}");
            assert!(error.to_string().contains(words), "{query}: {error}");
        }
    }

    #[test]
    fn queries_have_bounds() {
        let nested = (0..100).fold(json!({}), |inner, _| json!({ "$not": inner }));
        assert!(Filter::parse(&nested).is_err());
        let wide: Vec<Value> = (0..1000).map(|i| json!({ "a": i })).collect();
        assert!(Filter::parse(&json!({ "$or": wide })).is_err());
    }

    proptest! {
        #[test]
        fn not_is_the_opposite_and_equality_is_of_the_order(document in any_object(), value in any_json()) {
            let query = json!({"a": {"$eq": value}});
            let found = matches(query.clone(), &document);
            prop_assert_eq!(found, !matches(json!({ "$not": query }), &document));
            prop_assert_eq!(found, matches(json!({"a": {"$in": [value]}}), &document));
        }

        #[test]
        fn no_json_makes_the_parser_fail(query in any_json()) {
            let _ = Filter::parse(&query);
        }
    }
}

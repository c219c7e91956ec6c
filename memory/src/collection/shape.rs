//! In which order documents are found, which of their members are told, and where a page goes on.
//!
//! A page goes on behind the sort key and the id of the last document, not at a number: what was written meanwhile
//! neither repeats a document nor hides one that has not changed.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::order;
use crate::document::pointer::{Pointer, PointerError};

/// Places to sort by.
const MAX_SORT: usize = 8;

/// Places of a projection.
const MAX_FIELDS: usize = 256;

/// Why an order, a projection or a cursor makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A place to sort by makes no sense.
    #[error("sort key {number}: {source}")]
    Sort {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        source: PointerError,
    },
    /// A field makes no sense.
    #[error("field {number}: {source}")]
    Field {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        source: PointerError,
    },
    /// There is too much of something.
    #[error("there are more than {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        max: usize,
    },
    /// Fields to tell and fields to leave out are named together.
    #[error("fields are either told or left out, not both")]
    Mixed,
    /// The cursor was not made by a find with this order.
    #[error("the cursor is not one of this order: begin again without it")]
    Cursor,
}

/// By what documents are sorted; at last always by their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sort(Vec<(Pointer, Direction)>);

/// Which way a place is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl FromStr for Sort {
    type Err = ShapeError;

    /// Reads places with commas between them; with a minus in front, the greatest come first: `-age,name`.
    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let parts = text.split(',').filter(|part| !part.is_empty());
        let keys = parts.zip(1..).map(|(part, number)| {
            let (place, direction) = match part.strip_prefix('-') {
                Some(place) => (place, Direction::Down),
                None => (part, Direction::Up),
            };
            let place = Pointer::lenient(place).map_err(|source| ShapeError::Sort { number, source })?;
            Ok((place, direction))
        });
        let keys: Vec<_> = keys.collect::<Result<_, ShapeError>>()?;
        match keys.len() > MAX_SORT {
            true => Err(ShapeError::TooMany { what: "sort keys", max: MAX_SORT }),
            false => Ok(Self(keys)),
        }
    }
}

impl Sort {
    /// Whether documents come in the order of their ids.
    pub(crate) fn is_by_id(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that sort as the documents are to. What is not there is null.
    pub(crate) fn key(&self, document: &Value) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|(place, direction)| {
                let mut key = order::key(place.resolve(document).unwrap_or(&Value::Null));
                if *direction == Direction::Down {
                    key.iter_mut().for_each(|byte| *byte = !*byte);
                }
                key
            })
            .collect()
    }

    fn fingerprint(&self) -> [u8; 4] {
        let mut hasher = blake3::Hasher::new();
        for (place, direction) in &self.0 {
            let place = place.to_string();
            hasher.update(&(place.len() as u64).to_le_bytes()).update(place.as_bytes());
            hasher.update(&[u8::from(*direction == Direction::Down)]);
        }
        let mut short = [0; 4];
        short.copy_from_slice(&hasher.finalize().as_bytes()[..4]);
        short
    }
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) key: Vec<u8>,
    pub(crate) id: String,
}

/// The version of a cursor's form.
const CURSOR: u8 = 1;

impl Cursor {
    /// As text that means nothing to anybody else.
    pub(crate) fn to_text(&self, sort: &Sort) -> String {
        let key_len = u16::try_from(self.key.len()).unwrap_or(u16::MAX).to_be_bytes();
        let bytes =
            [[CURSOR].as_slice(), &sort.fingerprint(), &key_len, &self.key, self.id.as_bytes()].concat();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what `to_text` gave for the same order.
    pub(crate) fn from_text(text: &str, sort: &Sort) -> Result<Self, ShapeError> {
        Self::parse(text, sort).ok_or(ShapeError::Cursor)
    }

    fn parse(text: &str, sort: &Sort) -> Option<Self> {
        let (digits, odd) = text.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Vec<u8> = digits.iter().map(byte).collect::<Option<_>>()?;
        let rest = bytes.strip_prefix(&[CURSOR])?.strip_prefix(&sort.fingerprint())?;
        let (key_len, rest) = rest.split_first_chunk::<2>()?;
        let (key, id) = rest.split_at_checked(usize::from(u16::from_be_bytes(*key_len)))?;
        let id = String::from_utf8(id.to_vec()).ok()?;
        odd.is_empty().then(|| Self { key: key.to_vec(), id })
    }
}

/// Which members of a document are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Projection {
    /// All.
    #[default]
    Everything,
    /// None: only the ids matter.
    Nothing,
    /// Those at these places, with what they lie in.
    Only(Places),
    /// All but those at these places.
    Without(Places),
}

/// Places as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    inner: std::collections::BTreeMap<String, Places>,
}

impl Places {
    fn add(&mut self, place: &Pointer) {
        place.steps().iter().fold(self, |places, step| places.inner.entry(step.clone()).or_default());
    }

    fn pick(&self, value: &Value) -> Option<Value> {
        if self.inner.is_empty() {
            return Some(value.clone());
        }
        match value {
            Value::Object(members) => {
                let picked = self
                    .inner
                    .iter()
                    .filter_map(|(name, places)| Some((name.clone(), places.pick(members.get(name)?)?)));
                Some(Value::Object(picked.collect::<Map<_, _>>()))
            }
            Value::Array(elements) => {
                Some(elements.iter().filter_map(|element| self.pick(element)).collect())
            }
            _ => None,
        }
    }

    fn leave_out(&self, value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, places) in &self.inner {
                    match members.get_mut(name) {
                        Some(value) if !places.inner.is_empty() => places.leave_out(value),
                        Some(_) => {
                            members.remove(name);
                        }
                        None => {}
                    }
                }
            }
            Value::Array(elements) => elements.iter_mut().for_each(|element| self.leave_out(element)),
            _ => {}
        }
    }
}

impl FromStr for Projection {
    type Err = ShapeError;

    /// Reads places with commas between them, all or none of them with a minus in front: `name,at.city` or `-body`.
    fn from_str(text: &str) -> Result<Self, ShapeError> {
        let (mut only, mut without) = (Places::default(), Places::default());
        for (part, number) in text.split(',').filter(|part| !part.is_empty()).zip(1..) {
            if number > MAX_FIELDS {
                return Err(ShapeError::TooMany { what: "fields", max: MAX_FIELDS });
            }
            let (place, places) = match part.strip_prefix('-') {
                Some(place) => (place, &mut without),
                None => (part, &mut only),
            };
            places.add(&Pointer::lenient(place).map_err(|source| ShapeError::Field { number, source })?);
        }
        match (only.inner.is_empty(), without.inner.is_empty()) {
            (true, true) => Ok(Self::Everything),
            (false, true) => Ok(Self::Only(only)),
            (true, false) => Ok(Self::Without(without)),
            (false, false) => Err(ShapeError::Mixed),
        }
    }
}

impl Projection {
    /// What is told of a document.
    pub(crate) fn apply(&self, document: &Value) -> Value {
        match self {
            Self::Everything => document.clone(),
            Self::Nothing => Value::Null,
            Self::Only(places) => places.pick(document).unwrap_or_default(),
            Self::Without(places) => {
                let mut document = document.clone();
                places.leave_out(&mut document);
                document
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_sort_by_several_places_up_and_down() {
        let sort: Sort = "-age,name".parse().unwrap();
        let documents = [
            json!({"age": 7, "name": "b"}),
            json!({"age": 5, "name": "a"}),
            json!({"age": 5, "name": "aa"}),
            json!({"name": "z"}),
        ];
        assert!(documents.is_sorted_by_key(|document| sort.key(document)));
    }

    #[test]
    fn a_projection_tells_or_leaves_out_also_within_lists() {
        let document = json!({"a": {"b": 1, "c": 2}, "l": [{"x": 1, "y": 2}, 3], "d": 4});
        let told = |fields: &str| fields.parse::<Projection>().unwrap().apply(&document);
        assert_eq!(told(""), document);
        assert_eq!(told("a.b,d"), json!({"a": {"b": 1}, "d": 4}));
        assert_eq!(told("l.x,none"), json!({"l": [{"x": 1}]}));
        assert_eq!(told("-a.b,-l.y,-none"), json!({"a": {"c": 2}, "l": [{"x": 1}, 3], "d": 4}));
        assert_eq!("a,-b".parse::<Projection>(), Err(ShapeError::Mixed));
        assert!(matches!("a,/~x".parse::<Projection>(), Err(ShapeError::Field { number: 2, .. })));
    }

    proptest! {
        #[test]
        fn a_cursor_goes_on_under_its_own_order_and_no_other(key in proptest::collection::vec(any::<u8>(), 0..20), id in ".{1,8}") {
            let sort: Sort = "-a,b".parse().unwrap();
            let cursor = Cursor { key, id };
            let text = cursor.to_text(&sort);
            prop_assert_eq!(Cursor::from_text(&text, &sort), Ok(cursor));
            prop_assert_eq!(Cursor::from_text(&text, &"a,b".parse().unwrap()), Err(ShapeError::Cursor));
            prop_assert_eq!(Cursor::from_text(&text[1..], &sort), Err(ShapeError::Cursor));
        }

        #[test]
        fn random_text_is_no_cursor(text in ".{0,40}") {
            prop_assert!(Cursor::from_text(&text, &Sort::default()).is_err());
        }
    }
}

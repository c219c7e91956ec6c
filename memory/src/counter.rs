//! What a key is worth: its plain value, or the sum that several nodes have counted on top of it.
//!
//! Every replica adds up its own increments in a field of its own (see `slot`), so increments of different nodes never overwrite
//! each other. A contribution remembers its *base*: what the plain value that it was added to began as. It counts
//! while that stands, however long it is to last. So a later `set` or `delete` starts the count anew without touching anybody's
//! field, and increments that a node made before it heard of the `set` end with what they were added to.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    cell::{Author, Cell, Content, Origin, RESERVED_FIELD, Stamp},
    value::Value,
};

/// After the reserved byte: a counter's field. The author's 16 bytes follow.
const COUNTER: u8 = b'n';

/// What is counted on top of where nothing was.
const NO_COUNT: Bytes = Bytes::from_static(b"0");

/// Why a key cannot be counted up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IncrementError {
    /// The key holds a value that is not the decimal text of a 64-bit integer.
    #[error("the value is not an integer")]
    NotAnInteger,
    /// The result is outside the 64-bit integers.
    #[error("the result does not fit a 64-bit integer")]
    Overflow,
}

/// What one author has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Told", into = "Told")]
pub(crate) struct Contribution {
    /// What the value that it adds to began as.
    base: Origin,
    /// Wider than what the key may be worth: others may have counted the other way.
    sum: i128,
}

// WIRE: as a field's value has it.
#[derive(Serialize, Deserialize)]
struct Told {
    base: Base,
    sum: i128,
}

// WIRE: the order of the variants.
#[derive(Serialize, Deserialize)]
enum Base {
    /// There never was a value.
    Nothing,
    /// The value or tombstone with this stamp.
    Written(Stamp),
    /// What the value with this stamp left when its time was over.
    Expired(Stamp),
    /// What that left which was counted on then, when its time was over, and so on.
    Later(Stamp, u32),
}

impl From<Contribution> for Told {
    fn from(Contribution { base, sum }: Contribution) -> Self {
        let base = match (base, base.generation) {
            (Origin::NOTHING, _) => Base::Nothing,
            (Origin { stamp, .. }, 0) => Base::Written(stamp),
            (Origin { stamp, .. }, 1) => Base::Expired(stamp),
            (Origin { stamp, generation }, _) => Base::Later(stamp, generation),
        };
        Self { base, sum }
    }
}

impl From<Told> for Contribution {
    fn from(Told { base, sum }: Told) -> Self {
        let base = match base {
            Base::Nothing => Origin::NOTHING,
            Base::Written(stamp) => Origin { stamp, generation: 0 },
            Base::Expired(stamp) => Origin { stamp, generation: 1 },
            Base::Later(stamp, generation) => Origin { stamp, generation },
        };
        Self { base, sum }
    }
}

impl Contribution {
    /// As the value of the author's field.
    pub(crate) fn to_content(self) -> Result<Content, postcard::Error> {
        Ok(Content::Value(postcard::to_stdvec(&self)?.into()))
    }
}

/// The field that `author` counts in.
pub(crate) fn field_of(author: Author) -> Bytes {
    [&[RESERVED_FIELD, COUNTER], author.as_bytes().as_slice()].concat().into()
}

/// Whether cells with this field decide what their key is worth.
pub(crate) fn decides_value(field: &[u8]) -> bool {
    field.is_empty() || field.starts_with(&[RESERVED_FIELD, COUNTER])
}

/// The cells that decide what a key is worth.
#[derive(Debug, Default)]
pub(crate) struct KeyState {
    register: Option<Cell>,
    contributions: Vec<(Author, Contribution)>,
    version: Option<Stamp>,
}

impl From<Option<Cell>> for KeyState {
    /// Of a key of which the cell of its value is all there is.
    fn from(register: Option<Cell>) -> Self {
        let mut state = Self::default();
        if let Some(register) = register {
            state.take(register);
        }
        state
    }
}

impl KeyState {
    /// Takes in one cell of the key; cells of other fields are passed over, and so are contributions that do not
    /// parse: only a faulty peer writes those.
    pub(crate) fn take(&mut self, cell: Cell) {
        if decides_value(&cell.field) {
            self.version = self.version.max(Some(cell.stamp));
        }
        if cell.field.is_empty() {
            self.register = Some(cell);
        } else if let Some(author) = cell.field.strip_prefix(&[RESERVED_FIELD, COUNTER])
            && let Ok(author) = author.try_into()
            && let Content::Value(value) = &cell.content
            && let Ok(contribution) = postcard::from_bytes(value)
        {
            let author = Author::from_bytes(author);
            // Of two cells of one field the later one taken counts.
            self.contributions.retain(|(known, _)| *known != author);
            self.contributions.push((author, contribution));
        }
    }

    /// Whether somebody has counted on top of the plain value, or of what it left when it was deleted or expired: then it is
    /// needed for as long as that counts.
    pub(crate) fn is_counted_upon(&self) -> bool {
        let Some(register) = &self.register else { return false };
        let origin = register.origin();
        let counts = |base: Origin| match register.content {
            Content::Tombstone => base == origin,
            // Without it, what was counted where nothing was would count again.
            _ if base == Origin::NOTHING => base == origin,
            _ => base == origin.next(),
        };
        self.contributions.iter().any(|(_, contribution)| counts(contribution.base))
    }

    /// What the key is worth at `now_ms`.
    pub(crate) fn value(&self, now_ms: u64) -> Option<Value> {
        let plain = self.register.as_ref().and_then(|register| register.live_value(now_ms));
        let base = self.base(now_ms);
        if !self.contributions.iter().any(|(_, contribution)| contribution.base == base) {
            return plain;
        }
        match self.total(now_ms) {
            Ok(total) => Some(Value::Inline(total.to_string().into())),
            Err(_) => plain,
        }
    }

    /// The latest stamp of the cells that decide: it changes with every write to the value.
    pub(crate) fn version(&self) -> Option<Stamp> {
        self.version
    }

    /// When the time of the value that is there at `now_ms` is over, in Unix milliseconds. What is counted on top of an expired
    /// value lasts.
    pub(crate) fn expires_ms(&self, now_ms: u64) -> Option<u64> {
        self.register.as_ref().filter(|register| !register.expired(now_ms))?.expires_ms
    }

    /// What `author` has contributed after adding `by`, and what the key is worth then.
    pub(crate) fn increment(
        &self,
        author: Author,
        by: i64,
        now_ms: u64,
    ) -> Result<(Contribution, i64), IncrementError> {
        let base = self.base(now_ms);
        let mine = self.contributions.iter().find(|(who, mine)| *who == author && mine.base == base);
        let sum =
            mine.map_or(0, |(_, mine)| mine.sum).checked_add(by.into()).ok_or(IncrementError::Overflow)?;
        let total = self.total(now_ms)?.checked_add(by.into()).ok_or(IncrementError::Overflow)?;
        let total = i64::try_from(total).map_err(|_| IncrementError::Overflow)?;
        Ok((Contribution { base, sum }, total))
    }

    /// The sum, wider than 64 bits: two halves of a partition may each stay within them and together not.
    fn total(&self, now_ms: u64) -> Result<i128, IncrementError> {
        let start = match self.register.as_ref().and_then(|register| register.live_value(now_ms)) {
            Some(Value::Inline(value)) => parse_integer(&value).ok_or(IncrementError::NotAnInteger)?,
            Some(Value::Large(_)) => return Err(IncrementError::NotAnInteger),
            None => 0,
        };
        let base = self.base(now_ms);
        let counting = self.contributions.iter().filter(|(_, contribution)| contribution.base == base);
        let mut sums = counting.map(|(_, contribution)| contribution.sum);
        sums.try_fold(i128::from(start), i128::checked_add).ok_or(IncrementError::Overflow)
    }

    /// The value that is there at `now_ms`, if it lies in its cell, as it is to be written to last longer or shorter, and what it began
    /// as. What is counted on top of it goes on to count.
    pub(crate) fn renewed(&self, now_ms: u64) -> Option<(Content, Origin)> {
        let content = match self.register.as_ref().and_then(|register| register.live_value(now_ms)) {
            Some(Value::Inline(value)) => Content::Value(value),
            Some(Value::Large(_)) => return None,
            // It is all that was counted.
            None => self.value(now_ms).map(|_| Content::Value(NO_COUNT))?,
        };
        Some((content, self.base(now_ms)))
    }

    fn base(&self, now_ms: u64) -> Origin {
        match &self.register {
            None => Origin::NOTHING,
            Some(register) if register.expired(now_ms) => register.origin().next(),
            Some(register) => register.origin(),
        }
    }
}

/// Reads an integer in the one form that printing it gives.
pub(crate) fn parse_integer(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number = text.parse::<i64>().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cell::{REGISTER, SpaceName};

    const A: Author = Author::from_bytes([1; 16]);
    const B: Author = Author::from_bytes([2; 16]);

    fn cell(field: Bytes, time: u64, content: Content) -> Cell {
        let space = SpaceName::new("s").unwrap();
        Cell {
            space,
            key: "k".into(),
            field,
            stamp: Stamp { time, author: A },
            content,
            expires_ms: None,
            renews: None,
        }
    }

    fn set(time: u64, value: &'static str) -> Cell {
        cell(REGISTER, time, Content::Value(value.into()))
    }

    fn state(cells: &[Cell]) -> KeyState {
        let mut state = KeyState::default();
        cells.iter().cloned().for_each(|cell| state.take(cell));
        state
    }

    /// The cell that results when `author`, seeing `cells`, adds `by`.
    fn added(cells: &[Cell], author: Author, by: i64, now_ms: u64) -> Cell {
        let (contribution, _) = state(cells).increment(author, by, now_ms).unwrap();
        cell(field_of(author), 9, contribution.to_content().unwrap())
    }

    #[test]
    fn increments_of_two_nodes_add_up_on_the_value_that_both_saw() {
        let base = set(1, "10");
        let a = added(std::slice::from_ref(&base), A, 5, 0);
        let b = added(std::slice::from_ref(&base), B, -2, 0);
        assert_eq!(state(&[base, a, b]).value(0).and_then(Value::into_inline).unwrap(), "13");
    }

    #[test]
    fn a_key_without_a_value_counts_from_zero() {
        let a = added(&[], A, 3, 0);
        assert_eq!(state(std::slice::from_ref(&a)).value(0).and_then(Value::into_inline).unwrap(), "3");
        assert_eq!(state(&[a]).increment(A, 4, 0).unwrap().1, 7);
    }

    #[test]
    fn a_later_set_or_delete_ends_what_was_counted_before() {
        let a = added(&[set(1, "10")], A, 5, 0);
        assert_eq!(state(&[set(2, "100"), a.clone()]).value(0).and_then(Value::into_inline).unwrap(), "100");
        let tombstone = cell(REGISTER, 2, Content::Tombstone);
        assert_eq!(state(&[tombstone.clone(), a.clone()]).value(0), None);
        let again = added(&[tombstone.clone(), a], A, 1, 0);
        assert_eq!(state(&[tombstone, again]).value(0).and_then(Value::into_inline).unwrap(), "1");
    }

    #[test]
    fn what_was_added_expires_with_the_value_and_counting_goes_on_from_zero() {
        let mut base = set(1, "10");
        base.expires_ms = Some(100);
        let a = added(std::slice::from_ref(&base), A, 5, 99);
        assert_eq!(state(&[base.clone(), a.clone()]).value(99).and_then(Value::into_inline).unwrap(), "15");
        assert_eq!(state(&[base.clone(), a.clone()]).value(100), None);
        let later = added(&[base.clone(), a], A, 2, 100);
        let state = state(&[base, later]);
        assert_eq!(state.value(100).and_then(Value::into_inline).unwrap(), "2");
        assert_eq!((state.expires_ms(99), state.expires_ms(100)), (Some(100), None), "and lasts");
    }

    #[test]
    fn what_is_told_of_a_contribution_is_what_it_is() {
        let stamp = Stamp { time: 7, author: A };
        let begun = [Origin::NOTHING, Origin { stamp, generation: 0 }];
        let bases = begun.into_iter().flat_map(|base| [base, base.next(), base.next().next()]);
        for contribution in bases.map(|base| Contribution { base, sum: -5 }) {
            let told = postcard::to_stdvec(&contribution).unwrap();
            assert_eq!(postcard::from_bytes::<Contribution>(&told).unwrap(), contribution);
        }
    }

    fn renewed(cells: &[Cell], time: u64, now_ms: u64, expires_ms: u64) -> Cell {
        let (content, origin) = state(cells).renewed(now_ms).unwrap();
        Cell { renews: Some(Box::new(origin)), expires_ms: Some(expires_ms), ..cell(REGISTER, time, content) }
    }

    #[test]
    fn what_is_counted_elsewhere_counts_though_it_is_to_last_so_long_here() {
        for before in [vec![], vec![set(1, "10")], vec![cell(REGISTER, 1, Content::Tombstone)]] {
            let start = state(&before).value(0).map_or(0, |_| 10);
            let ours = added(&before, A, 1, 0);
            let theirs = added(&before, B, 2, 0);
            let mut cells = before.clone();
            cells.push(ours);
            let register = renewed(&cells, 3, 0, 100);
            assert!(before.first().is_none_or(|before| register.supersedes(before)));
            cells.retain(|cell| cell.field != REGISTER);
            cells.extend([register, theirs]);
            let counted = (start + 3).to_string();
            assert_eq!(state(&cells).value(0), Some(Value::Inline(counted.into())));
            assert_eq!(state(&cells).value(100), None, "all of it expires");
            // So it goes on when it begins anew.
            let (ours, theirs) = (added(&cells, A, 5, 100), added(&cells, B, 6, 100));
            cells.retain(|cell| cell.field == REGISTER);
            cells.push(ours);
            let register = renewed(&cells, 9, 100, 200);
            cells.retain(|cell| cell.field != REGISTER);
            cells.extend([register, theirs]);
            assert_eq!(state(&cells).value(150), Some(Value::Inline("11".into())));
            assert_eq!(state(&cells).value(200), None);
        }
    }

    #[test]
    fn a_value_that_was_set_elsewhere_wins_over_one_that_was_to_last_longer() {
        let old = set(1, "old");
        let register = renewed(std::slice::from_ref(&old), 9, 0, 100);
        assert!(register.supersedes(&old));
        assert!(set(2, "new").supersedes(&register));
        assert!(cell(REGISTER, 2, Content::Tombstone).supersedes(&register));
    }

    #[test]
    fn text_and_overflow_are_refused() {
        for text in ["", "x", "1.5", "+5", "05", " 5", "9223372036854775808"] {
            assert_eq!(
                state(&[set(1, text)]).increment(A, 1, 0),
                Err(IncrementError::NotAnInteger),
                "{text}"
            );
        }
        let most = set(1, "9223372036854775807");
        assert_eq!(state(std::slice::from_ref(&most)).increment(A, 1, 0), Err(IncrementError::Overflow));
        assert_eq!(state(&[most]).increment(A, -1, 0).unwrap().1, i64::MAX - 1);
    }

    #[test]
    fn what_others_count_down_one_can_count_up_again_and_again() {
        let (mut ours, mut theirs) = (added(&[], A, i64::MAX, 0), added(&[], B, i64::MIN, 0));
        for _ in 0..3 {
            ours = added(&[ours, theirs.clone()], A, i64::MAX, 0);
            theirs = added(&[ours.clone(), theirs], B, i64::MIN, 0);
        }
        let value = state(&[ours, theirs]).value(0).and_then(Value::into_inline).unwrap();
        assert_eq!(value, "-4");
    }

    #[test]
    fn sums_that_no_honest_node_reaches_do_no_harm() {
        let most = |author, sum| {
            let contribution = Contribution { base: Origin::NOTHING, sum };
            cell(field_of(author), 9, contribution.to_content().unwrap())
        };
        let state = state(&[most(A, i128::MAX), most(B, i128::MAX)]);
        assert_eq!(state.value(0), None);
        assert_eq!(state.increment(A, 1, 0), Err(IncrementError::Overflow));
    }

    proptest! {
        #[test]
        fn any_interleaving_of_increments_ends_at_their_sum(steps in proptest::collection::vec((any::<bool>(), -1000i64..1000), 0..40)) {
            let base = set(1, "7");
            let (mut a, mut b) = (vec![base.clone()], vec![base.clone()]);
            for (first, by) in &steps {
                let (mine, author) = if *first { (&mut a, A) } else { (&mut b, B) };
                let next = added(mine, author, *by, 0);
                *mine = vec![base.clone(), next];
            }
            let merged: Vec<Cell> = std::iter::once(base).chain(a.drain(1..)).chain(b.drain(1..)).collect();
            let expected = 7 + steps.iter().map(|(_, by)| by).sum::<i64>();
            prop_assert_eq!(state(&merged).value(0).and_then(Value::into_inline).unwrap(), expected.to_string());
        }
    }
}

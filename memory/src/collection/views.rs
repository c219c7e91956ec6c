//! What documents say, as JSON, kept while there is room: a query looks at many documents, and putting each together
//! from its changes would take a hundred times as long.
//!
//! Whoever reads a document may find, when done, that it has changed meanwhile. So a reader takes a ticket before and
//! hands its reading in with it; a commit in between makes the ticket void.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;

use crate::document::open::Place;

/// Bytes of views that are kept. JSON in memory takes about three times its text.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// How much more a value takes than its text.
const FACTOR: usize = 3;

/// What a view takes beside its text.
const OVERHEAD: usize = 256;

/// A document as it was read: `None` if it is not there.
pub(crate) type View = Option<Arc<Value>>;

/// The views there are.
#[derive(Debug, Default)]
pub(crate) struct Views(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    slots: HashMap<Place, Slot>,
    /// The same in the order of their use.
    order: BTreeMap<u64, Place>,
    uses: u64,
    bytes: usize,
}

#[derive(Debug)]
enum Slot {
    /// Somebody is reading.
    Expected(Ticket),
    Kept {
        view: View,
        used: u64,
        bytes: usize,
    },
}

/// What a reader hands in its reading with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// What is known of a document.
#[derive(Debug)]
pub(crate) enum Lookup {
    Known(View),
    Unknown(Ticket),
}

impl Views {
    /// The view, or a ticket to hand one in.
    pub(crate) fn lookup(&self, place: &Place) -> Lookup {
        let kept = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        match kept.slots.get_mut(place) {
            Some(Slot::Kept { view, used, .. }) => {
                kept.order.remove(used);
                *used = kept.uses;
                kept.order.insert(kept.uses, place.clone());
                Lookup::Known(view.clone())
            }
            Some(Slot::Expected(ticket)) => Lookup::Unknown(*ticket),
            None => {
                let ticket = Ticket(kept.uses);
                kept.slots.insert(place.clone(), Slot::Expected(ticket));
                Lookup::Unknown(ticket)
            }
        }
    }

    /// Keeps what was read, unless the document has changed since the ticket was given. `text` is its size as text.
    pub(crate) fn hand_in(&self, place: &Place, ticket: Ticket, view: &View, text: usize) {
        let kept = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = matches!(kept.slots.get(place), Some(Slot::Expected(expected)) if *expected == ticket);
        if !current {
            return;
        }
        let bytes = OVERHEAD + place.key.len() + FACTOR * text;
        if bytes > MAX_BYTES {
            kept.slots.remove(place);
            return;
        }
        kept.uses += 1;
        let used = kept.uses;
        kept.slots.insert(place.clone(), Slot::Kept { view: view.clone(), used, bytes });
        kept.order.insert(used, place.clone());
        kept.bytes += bytes;
        while kept.bytes > MAX_BYTES
            && let Some((_, oldest)) = kept.order.first_key_value()
        {
            let oldest = oldest.clone();
            kept.forget(&oldest);
        }
    }

    /// The document has changed.
    pub(crate) fn forget(&self, place: &Place) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).forget(place);
    }
}

impl Kept {
    fn forget(&mut self, place: &Place) {
        if let Some(Slot::Kept { used, bytes, .. }) = self.slots.remove(place) {
            self.order.remove(&used);
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cell::SpaceName;

    fn place(key: &str) -> Place {
        Place { space: SpaceName::new("s").unwrap(), key: key.to_owned().into() }
    }

    fn ticket(views: &Views, place: &Place) -> Ticket {
        match views.lookup(place) {
            Lookup::Unknown(ticket) => ticket,
            Lookup::Known(view) => panic!("{view:?}"),
        }
    }

    #[test]
    fn what_was_handed_in_is_known_until_the_document_changes() {
        let (views, place) = (Views::default(), place("a"));
        let view = Some(Arc::new(json!({"a": 1})));
        views.hand_in(&place, ticket(&views, &place), &view, 7);
        assert!(matches!(views.lookup(&place), Lookup::Known(known) if known == view));
        views.forget(&place);
        ticket(&views, &place);
    }

    #[test]
    fn a_reading_that_a_commit_has_overtaken_is_not_kept() {
        let (views, place) = (Views::default(), place("a"));
        let old = ticket(&views, &place);
        views.forget(&place);
        views.hand_in(&place, old, &None, 0);
        let new = ticket(&views, &place);
        views.hand_in(&place, old, &None, 0);
        views.hand_in(&place, new, &Some(Arc::new(json!({}))), 2);
        assert!(matches!(views.lookup(&place), Lookup::Known(Some(_))));
    }

    #[test]
    fn what_was_not_used_for_long_makes_room() {
        let views = Views::default();
        let text = MAX_BYTES / FACTOR / 3;
        for key in ["a", "b", "c", "d"] {
            let place = place(key);
            views.hand_in(&place, ticket(&views, &place), &None, text);
            if key != "a" {
                assert!(matches!(views.lookup(&self::place("b")), Lookup::Known(_)));
            }
        }
        assert!(matches!(views.lookup(&place("a")), Lookup::Unknown(_)));
        assert!(views.0.lock().unwrap().bytes <= MAX_BYTES);
    }
}

//! Documents: JSON that many edit at once.
//!
//! A document is an automerge document whose changes are cells of one key, so they travel and are repaired as
//! everything else in the memory. Here is what one document is; where documents lie and how they are found is
//! [`crate::collection`].
//!
//! In reading order: `pointer` (names of places), `value` (JSON in automerge), `replace` (a put), `patch` (a merge
//! patch), `edit` (single places), `shared` (objects that two make as one), `change` (changes as cells), `epoch` (when
//! history is let go of), `pack` (many changes as one) and `packs` (those taken lately), `align`, `tree` and
//! `transplant` (bringing changes from one epoch into another), `gather` and `history` (what the cells hold), `tidy`
//! (which of them are superfluous), `state` (a document from its cells), `open` (documents held open).

pub(crate) mod align;
pub(crate) mod change;
pub(crate) mod edit;
pub(crate) mod epoch;
pub(crate) mod gather;
pub(crate) mod history;
pub(crate) mod open;
pub(crate) mod pack;
pub(crate) mod packs;
pub(crate) mod patch;
pub(crate) mod pointer;
pub(crate) mod replace;
pub(crate) mod shared;
pub(crate) mod state;
pub(crate) mod tidy;
pub(crate) mod transplant;
pub(crate) mod tree;
pub(crate) mod value;

//! Editing a document, and objects that two authors make as one.
//!
//! A text, a counter or an object that two halves of a swarm make at the same place at the same time would be two, of
//! which one wins and takes the other's edits with it. So these are made by a change that is *the same whoever makes
//! it*: it depends on nothing but the change that wrote what is there (or the object it is put into), and its actor is
//! a hash of that place. Two who make it make one change, and what they write into it merges.

use automerge::{
    ActorId, AutoCommit, AutomergeError, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue,
    transaction::{CommitOptions, Transactable},
};

use super::value::{self, Slot};

/// Objects that one request may make shared; each takes a change of its own. Further ones are made plainly.
const MAX_SHARED: usize = 16;

/// What a shared object begins with.
#[derive(Clone, Debug)]
pub(crate) enum Seed {
    /// A map with no members.
    Map,
    /// A text.
    Text(String),
    /// A counter.
    Counter(i64),
}

/// A document under one author's edits: collects the changes that they come to.
#[derive(Debug)]
pub(crate) struct Editor<'a> {
    document: &'a mut AutoCommit,
    author: ActorId,
    /// What the author's changes say about themselves.
    message: Option<String>,
    changes: Vec<Change>,
    shared: usize,
}

impl<'a> Editor<'a> {
    /// Edits `document` as `author`.
    pub(crate) fn new(document: &'a mut AutoCommit, author: ActorId) -> Self {
        document.set_actor(author.clone());
        Self { document, author, message: None, changes: Vec::new(), shared: 0 }
    }

    /// The same; every change of the author carries `message`.
    pub(crate) fn with_message(document: &'a mut AutoCommit, author: ActorId, message: String) -> Self {
        Self { message: Some(message), ..Self::new(document, author) }
    }

    fn options(&self) -> CommitOptions {
        let options = CommitOptions::default().with_time(0);
        match &self.message {
            Some(message) => options.with_message(message.clone()),
            None => options,
        }
    }

    pub(crate) fn document(&mut self) -> &mut AutoCommit {
        self.document
    }

    /// The changes that were made, in order. If nothing was changed there are none.
    pub(crate) fn finish(mut self) -> Vec<Change> {
        self.commit();
        self.changes
    }

    /// The same; the last is the author's own, even if there is nothing for it to say.
    pub(crate) fn finish_with_own(mut self) -> Vec<Change> {
        self.commit();
        if self.changes.last().is_none_or(|change| *change.actor_id() != self.author) {
            self.touch();
        }
        self.changes
    }

    /// Makes a change though nothing is different: for a document that is to exist and be empty.
    pub(crate) fn touch(&mut self) {
        self.commit();
        let options = self.options();
        let hash = self.document.empty_change(options);
        self.changes.extend(self.document.get_change_by_hash(&hash));
    }

    pub(crate) fn is_untouched(&mut self) -> bool {
        self.commit();
        self.changes.is_empty()
    }

    fn commit(&mut self) {
        let options = self.options();
        if let Some(hash) = self.document.commit_with(options) {
            self.changes.extend(self.document.get_change_by_hash(&hash));
        }
    }

    /// Puts `seed` into a slot in such a way that others who do the same put the same object there, and returns it
    /// (for a counter, what holds it).
    pub(crate) fn share(
        &mut self,
        parent: &ObjId,
        slot: Slot<'_>,
        seed: Seed,
    ) -> Result<ObjId, AutomergeError> {
        self.commit();
        self.shared += 1;
        if self.shared <= MAX_SHARED
            && let Some(id) = self.share_as_one(parent, slot, &seed)?
        {
            return Ok(id);
        }
        plant(self.document, parent, slot, &seed)
    }

    /// `None` if it cannot be: it was made before and removed since, or something else won over it.
    fn share_as_one(
        &mut self,
        parent: &ObjId,
        slot: Slot<'_>,
        seed: &Seed,
    ) -> Result<Option<ObjId>, AutomergeError> {
        let Some(origin) = self.origin(parent, slot)? else { return Ok(None) };
        let mut base = match origin.heads.as_slice() {
            [] => AutoCommit::new_with_encoding(automerge::TextEncoding::UnicodeCodePoint),
            heads => self.document.fork_at(heads)?,
        };
        base.set_actor(origin.actor(seed));
        let Some(slot_then) = origin.slot_in(&base, parent, slot)? else { return Ok(None) };
        let id = plant(&mut base, parent, slot_then, seed)?;
        let Some(change) = base
            .commit_with(CommitOptions::default().with_time(0))
            .and_then(|hash| base.get_change_by_hash(&hash))
        else {
            return Ok(None);
        };
        if self.document.get_change_by_hash(&change.hash()).is_none() {
            self.document.apply_changes([change.clone()])?;
            self.changes.push(change);
        }
        self.document.set_actor(self.author.clone());
        let now = self.id_at(parent, slot)?;
        Ok(match seed {
            Seed::Map | Seed::Text(_) => now.filter(|now| same(now, &id)),
            // Incremented through its parent; it must be what is there all the same.
            Seed::Counter(_) => match value::held(self.document, parent, slot)? {
                Some(value::Held::Scalar(_, value::ScalarKind::Counter)) => Some(parent.clone()),
                _ => None,
            },
        })
    }

    fn origin(&mut self, parent: &ObjId, slot: Slot<'_>) -> Result<Option<Origin>, AutomergeError> {
        let place = match slot {
            Slot::Member(key) => key.as_bytes().to_vec(),
            Slot::Element(_) | Slot::Insert(_) => Vec::new(),
        };
        let (written, by) = match self.id_at(parent, slot)? {
            Some(id) => (Some(id.clone()), id),
            None => (None, parent.clone()),
        };
        let heads = match (&by, self.document.hash_for_opid(&by)) {
            (ObjId::Root, _) => Vec::new(),
            (_, Some(hash)) => vec![hash],
            (_, None) => return Ok(None),
        };
        Ok(Some(Origin { heads, written, by, place }))
    }

    fn id_at(&self, parent: &ObjId, slot: Slot<'_>) -> Result<Option<ObjId>, AutomergeError> {
        let found = match slot {
            Slot::Member(key) => self.document.get(parent, key)?,
            Slot::Element(index) => self.document.get(parent, index)?,
            Slot::Insert(_) => None,
        };
        Ok(found.map(|(_, id)| id))
    }
}

/// What a shared object depends on.
struct Origin {
    /// The change that wrote what is there, or that made what it is put into; none for the document itself.
    heads: Vec<ChangeHash>,
    /// The operation that wrote what is there now.
    written: Option<ObjId>,
    /// That operation, or the one that made the parent.
    by: ObjId,
    /// The member's name.
    place: Vec<u8>,
}

impl Origin {
    /// Who makes the object: a hash of everything that it depends on, so that no two different changes have it.
    fn actor(&self, seed: &Seed) -> ActorId {
        let mut hasher = blake3::Hasher::new_derive_key("starfish memory 1: a shared object");
        let (kind, content) = match seed {
            Seed::Map => (0, String::new()),
            Seed::Text(text) => (1, text.clone()),
            Seed::Counter(start) => (2, start.to_string()),
        };
        hasher.update(&[kind, u8::from(self.written.is_some())]);
        self.heads.iter().for_each(|head| {
            hasher.update(&head.0);
        });
        if let ObjId::Id(counter, actor, _) = &self.by {
            hasher.update(&counter.to_le_bytes()).update(actor.to_bytes());
        }
        hasher.update(&(self.place.len() as u64).to_le_bytes()).update(&self.place);
        hasher.update(content.as_bytes());
        ActorId::from(&hasher.finalize().as_bytes()[..16])
    }

    /// Where the slot was when what is there was written.
    fn slot_in<'s>(
        &self,
        base: &AutoCommit,
        parent: &ObjId,
        slot: Slot<'s>,
    ) -> Result<Option<Slot<'s>>, AutomergeError> {
        if *parent != ROOT {
            base.object_type(parent)?;
        }
        Ok(match (slot, &self.written) {
            (Slot::Member(_), _) => Some(slot),
            (_, Some(written)) => {
                let mut elements = base.list_range(parent, ..);
                elements.position(|item| same(&item.id(), written)).map(Slot::Element)
            }
            (_, None) => None,
        })
    }
}

fn plant(
    document: &mut AutoCommit,
    parent: &ObjId,
    slot: Slot<'_>,
    seed: &Seed,
) -> Result<ObjId, AutomergeError> {
    match seed {
        Seed::Map => value::write_object(document, parent, slot, ObjType::Map),
        Seed::Text(content) => {
            let text = value::write_object(document, parent, slot, ObjType::Text)?;
            document.splice_text(&text, 0, 0, content)?;
            Ok(text)
        }
        Seed::Counter(start) => {
            value::write_scalar(document, parent, slot, ScalarValue::counter(*start))?;
            Ok(parent.clone())
        }
    }
}

/// Whether two ids name one operation; documents number their actors each in its own way.
fn same(a: &ObjId, b: &ObjId) -> bool {
    match (a, b) {
        (ObjId::Id(counter, actor, _), ObjId::Id(other_counter, other_actor, _)) => {
            counter == other_counter && actor == other_actor
        }
        (ObjId::Root, ObjId::Root) => true,
        _ => false,
    }
}

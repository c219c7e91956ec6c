//! Old versions of keys and fields, in spaces that keep them.
//!
//! In such a space a write of a value or field puts a second cell beside it: the same value with its *parent*, the version that its
//! author replaced. Each author has a ring of such cells for each field, and writes over its own oldest one. So two
//! halves of a swarm never push each other's versions out, whatever they write at one time, and no tombstones are needed. What
//! versions there are, and which of them are conflicts, is a function of the cells (pure).

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    cell::{Author, Cell, Content, Draft, Kept, RESERVED_FIELD, SpaceName, Stamp},
    clock::unix_ms,
    memory::Memory,
    space::Space,
    store::ReadError,
    value::Value,
    writer::{View, WriteError},
};

/// After the reserved byte: a version's field. The author, the place in its ring and the hash of the field follow.
const VERSION: u8 = b'v';
/// Bytes of the hash of a field.
const HASH: usize = 16;

/// Versions of one field that a space may keep.
pub const MAX_VERSIONS: u16 = 100;

/// The space and the prefix of the keys that settings of spaces have.
const SETTINGS: &str = "sys";
const PREFIX: &[u8] = b"space/";
/// Spaces whose settings are obeyed.
const MAX_SPACES: usize = 4096;

/// What a space is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceSettings {
    /// Versions of each value and field that are kept, the current one among them; at most [`MAX_VERSIONS`]. None if 0.
    #[serde(default)]
    pub versions: u16,
    /// How long a version counts after it was replaced, in milliseconds; for good if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_ms: Option<u64>,
}

/// One version of a value or field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// Its name.
    pub version: Stamp,
    /// When it was written, in Unix milliseconds.
    pub at_ms: u64,
    /// The value; `None` if it was deleted.
    pub value: Option<Value>,
    /// Whether it is what the key or field is worth now.
    pub is_current: bool,
    /// Whether the current one was written without knowledge of it, and the other way round.
    pub is_conflict: bool,
}

/// The settings of all spaces, as they are obeyed.
#[derive(Debug, Default)]
pub(crate) struct Policies(RwLock<HashMap<SpaceName, SpaceSettings>>);

impl Policies {
    /// Takes in a cell; most are of no concern.
    pub(crate) fn note(&self, cell: &Cell) {
        if &*cell.space != SETTINGS || !cell.field.is_empty() {
            return;
        }
        let Some(name) = cell.key.strip_prefix(PREFIX) else { return };
        let Some(name) = str::from_utf8(name).ok().and_then(|name| SpaceName::new(name).ok()) else { return };
        let settings = match &cell.content {
            Content::Value(value) => serde_json::from_slice::<SpaceSettings>(value).ok(),
            _ => None,
        };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match settings.filter(|settings| *settings != SpaceSettings::default()) {
            Some(settings) if all.len() < MAX_SPACES || all.contains_key(&name) => {
                all.insert(name, settings);
            }
            _ => {
                all.remove(&name);
            }
        }
    }

    fn of(&self, space: &SpaceName) -> SpaceSettings {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(space).copied().unwrap_or_default()
    }

    fn all(&self) -> Vec<(SpaceName, SpaceSettings)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = all.iter().map(|(name, settings)| (name.clone(), *settings)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl Memory {
    /// What the spaces are asked to do that are asked anything.
    pub fn settings(&self) -> Vec<(SpaceName, SpaceSettings)> {
        self.shared().policies.all()
    }

    pub(crate) fn load_settings(&self) -> Result<(), ReadError> {
        let Ok(space) = self.space(SETTINGS) else { return Ok(()) };
        space.for_each_cell(PREFIX, &mut |cell| self.shared().policies.note(cell))
    }
}

impl Space {
    /// What this space is asked to do.
    pub fn settings(&self) -> SpaceSettings {
        self.memory().shared().policies.of(self.name())
    }

    /// Asks it of all nodes. Of what two nodes ask, the later counts.
    pub async fn set_settings(&self, settings: SpaceSettings) -> Result<(), WriteError> {
        let settings = SpaceSettings { versions: settings.versions.min(MAX_VERSIONS), ..settings };
        let key = [PREFIX, self.name().as_bytes()].concat();
        // Numbers always have a form in JSON.
        let value = serde_json::to_vec(&settings).unwrap_or_default();
        // The name was checked when the space was made.
        let Ok(space) = self.memory().space(SETTINGS) else { return Ok(()) };
        space.set(&key, value.into(), None).await.map(drop)
    }

    /// The versions of a key's value (with an empty `field`) or of one of its fields that are kept, the newest first.
    pub async fn versions(&self, key: &[u8], field: &[u8]) -> Result<Vec<KeyVersion>, ReadError> {
        let (settings, now_ms) = (self.settings(), crate::clock::now_ms());
        let (space, key, field) = (self.clone(), key.to_vec(), Bytes::copy_from_slice(field));
        let read = move || {
            let store = &space.memory().shared().store;
            let current = store.cell(&crate::codec::address(space.name(), &key, &field))?;
            let start = crate::codec::address(space.name(), &key, &[RESERVED_FIELD, VERSION]);
            let hash = hash_of(&field);
            let kept = store.scan(&start, &start).filter(|cell| {
                cell.as_ref()
                    .map_or(true, |cell| Ring::read(&cell.field).is_some_and(|ring| ring.hash == hash))
            });
            Ok(log(current, kept.collect::<Result<_, ReadError>>()?, settings, now_ms))
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| ReadError::Senseless)?
    }

    /// Gives a value or field the value that it had in this version. It becomes a new version; false if there is no
    /// such version.
    pub async fn restore(&self, key: &[u8], field: &[u8], version: Stamp) -> Result<bool, WriteError> {
        let versions = self.versions(key, field).await?;
        let Some(old) = versions.into_iter().find(|old| old.version == version) else { return Ok(false) };
        let Some(value) = old.value else {
            match field.is_empty() {
                true => drop(self.remove(key, crate::Condition::Always).await?),
                false => drop(self.delete_fields(key, vec![Bytes::copy_from_slice(field)]).await?),
            }
            return Ok(true);
        };
        let value = self.memory().copy_of(value).await?;
        match field.is_empty() {
            true => drop(self.set_payload(key, value, None).await?),
            false => drop(self.set_field_payload(key, Bytes::copy_from_slice(field), value).await?),
        }
        Ok(true)
    }
}

/// The field of a version's cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ring {
    author: Author,
    place: u16,
    hash: [u8; HASH],
}

impl Ring {
    fn field(&self) -> Bytes {
        let parts =
            [&[RESERVED_FIELD, VERSION][..], self.author.as_bytes(), &self.place.to_be_bytes(), &self.hash];
        parts.concat().into()
    }

    fn read(field: &[u8]) -> Option<Self> {
        let rest = field.strip_prefix(&[RESERVED_FIELD, VERSION])?;
        let (author, rest) = rest.split_first_chunk()?;
        let (place, hash) = rest.split_first_chunk()?;
        let (author, place) = (Author::from_bytes(*author), u16::from_be_bytes(*place));
        Some(Self { author, place, hash: hash.try_into().ok()? })
    }
}

fn hash_of(field: &[u8]) -> [u8; HASH] {
    let mut short = [0; HASH];
    short.copy_from_slice(&blake3::hash(field).as_bytes()[..HASH]);
    short
}

/// What is to be written beside `drafts` so that versions are kept where they are to be.
pub(crate) fn beside(view: &View<'_>, author: Author, drafts: &[Draft]) -> Result<Vec<Draft>, ReadError> {
    let mut kept = Vec::new();
    for draft in drafts.iter().filter(|draft| draft.field.first() != Some(&RESERVED_FIELD)) {
        let settings = view.shared().policies.of(&draft.space);
        if settings.versions == 0 {
            continue;
        }
        let before = view.cell(&draft.space, &draft.key, &draft.field)?;
        let rings = view.cells_from(&draft.space, &draft.key, &[RESERVED_FIELD, VERSION])?;
        let hash = hash_of(&draft.field);
        let is_known = |stamp| rings.iter().any(|cell| is_version(cell, &hash, stamp));
        let mine = |cell: &&Cell| Ring::read(&cell.field).is_some_and(|ring| ring.author == author);
        let ring: Vec<Cell> = rings.iter().filter(mine).cloned().collect();
        let place = place_in(&ring, &hash, settings.versions);
        let parent = before.as_ref().map(|before| before.stamp);
        let mut cells = vec![(place, Kept { stamp: None, parent, content: Box::new(draft.content.clone()) })];
        // What was there before versions were kept, or was brought by one who did not know that they are.
        // The bytes of a large one would be let go of elsewhere.
        if let Some(before) = before.filter(|before| matches!(before.content, Content::Value(_)))
            && !is_known(before.stamp)
            && settings.versions > 1
        {
            let next = place_behind(&ring, &hash, settings.versions, place);
            cells.push((
                next,
                Kept { stamp: Some(before.stamp), parent: None, content: Box::new(before.content) },
            ));
        }
        for (place, version) in cells {
            let field = Ring { author, place, hash }.field();
            let (space, key) = (draft.space.clone(), draft.key.clone());
            kept.push(Draft {
                space,
                key,
                field,
                content: Content::Kept(version),
                expires_ms: None,
                renews: None,
            });
        }
    }
    Ok(kept)
}

/// Whether a cell holds this version of the field with this hash.
fn is_version(cell: &Cell, hash: &[u8; HASH], stamp: Stamp) -> bool {
    let named = match &cell.content {
        Content::Kept(kept) => kept.stamp.unwrap_or(cell.stamp),
        _ => return false,
    };
    named == stamp && Ring::read(&cell.field).is_some_and(|ring| ring.hash == *hash)
}

/// The place for the next version of a field in an author's ring: a free one, or else that of the oldest.
fn place_in(ring: &[Cell], hash: &[u8; HASH], versions: u16) -> u16 {
    place_behind(ring, hash, versions, u16::MAX)
}

/// The same, but for one place.
fn place_behind(ring: &[Cell], hash: &[u8; HASH], versions: u16, taken: u16) -> u16 {
    let written: HashMap<u16, Stamp> = ring
        .iter()
        .filter_map(|cell| {
            let place = Ring::read(&cell.field).filter(|ring| ring.hash == *hash)?.place;
            matches!(cell.content, Content::Kept(_)).then_some((place, cell.stamp))
        })
        .collect();
    let places = (0..versions).filter(|place| *place != taken);
    places.min_by_key(|place| written.get(place).copied()).unwrap_or(0)
}

/// The versions that are kept, the newest first.
fn log(current: Option<Cell>, kept: Vec<Cell>, settings: SpaceSettings, now_ms: u64) -> Vec<KeyVersion> {
    let mut all: HashMap<Stamp, (Option<Stamp>, Content)> = HashMap::new();
    for cell in kept {
        if let Content::Kept(Kept { stamp, parent, content }) = cell.content {
            let entry = all.entry(stamp.unwrap_or(cell.stamp)).or_insert((None, *content));
            entry.0 = entry.0.max(parent);
        }
    }
    let (mut newest, mut now) = (None, None);
    if let Some(current) = current {
        newest = Some(current.stamp);
        now = current.is_live(now_ms).then_some(current.stamp);
        all.entry(current.stamp).or_insert((None, current.content));
    }
    let line = line(&all, newest);
    let oldest = line.iter().min().copied();
    let mut stamps: Vec<Stamp> = all.keys().copied().collect();
    stamps.sort_unstable_by(|a, b| b.cmp(a));
    let mut replaced_ms = None;
    let mut versions = Vec::new();
    for stamp in stamps.into_iter().take(usize::from(settings.versions.max(1))) {
        let is_over = |at_ms: u64| settings.keep_ms.is_some_and(|keep| at_ms.saturating_add(keep) <= now_ms);
        if replaced_ms.is_some_and(is_over) {
            break;
        }
        replaced_ms = Some(unix_ms(stamp.time));
        let Some((_, content)) = all.remove(&stamp) else { continue };
        let value = match content {
            Content::Value(bytes) => Some(Value::Inline(bytes)),
            Content::Large(large) => Some(Value::Large(large)),
            Content::Tombstone | Content::Kept(_) => None,
        };
        versions.push(KeyVersion {
            version: stamp,
            at_ms: unix_ms(stamp.time),
            value,
            is_current: Some(stamp) == now,
            is_conflict: !line.contains(&stamp) && oldest.is_some_and(|oldest| stamp > oldest),
        });
    }
    versions
}

/// The newest version and all that came before it in the knowledge of its authors.
fn line(all: &HashMap<Stamp, (Option<Stamp>, Content)>, newest: Option<Stamp>) -> Vec<Stamp> {
    let (mut line, mut next) = (Vec::new(), newest);
    while let Some(stamp) = next.filter(|stamp| line.last().is_none_or(|last| stamp < last)) {
        let Some((parent, _)) = all.get(&stamp) else { break };
        line.push(stamp);
        next = *parent;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEPS: SpaceSettings = SpaceSettings { versions: 10, keep_ms: None };

    fn stamp(seconds: u64, author: u8) -> Stamp {
        Stamp { time: seconds << 32, author: Author::from_bytes([author; 16]) }
    }

    fn cell(field: Bytes, stamp: Stamp, content: Content) -> Cell {
        Cell {
            space: SpaceName::new("app").unwrap(),
            key: "k".into(),
            field,
            stamp,
            content,
            expires_ms: None,
            renews: None,
        }
    }

    fn kept(at: Stamp, place: u16, parent: Option<Stamp>) -> Cell {
        let field = Ring { author: at.author, place, hash: hash_of(b"") }.field();
        let content = Box::new(Content::Value(at.to_string().into()));
        cell(field, at, Content::Kept(Kept { stamp: None, parent, content }))
    }

    fn current(at: Stamp) -> Option<Cell> {
        Some(cell(Bytes::new(), at, Content::Value(at.to_string().into())))
    }

    #[test]
    fn what_one_half_wrote_without_knowing_of_the_other_is_a_conflict() {
        let (first, left, right, last) = (stamp(1, 1), stamp(2, 1), stamp(3, 2), stamp(4, 1));
        let cells = vec![
            kept(first, 0, None),
            kept(left, 1, Some(first)),
            kept(right, 0, Some(first)),
            kept(last, 2, Some(right)),
        ];
        let log = log(current(last), cells, KEEPS, 10_000);
        let seen: Vec<_> =
            log.iter().map(|version| (version.version, version.is_current, version.is_conflict)).collect();
        let expected =
            [(last, true, false), (right, false, false), (left, false, true), (first, false, false)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn versions_are_bounded_by_number_and_by_the_time_since_they_were_replaced() {
        let stamps: Vec<Stamp> = (1..=5).map(|seconds| stamp(seconds, 1)).collect();
        let cells: Vec<Cell> = stamps
            .iter()
            .zip(0..)
            .map(|(at, place)| kept(*at, place, stamps.iter().rev().find(|other| *other < at).copied()))
            .collect();
        let names = |settings, now_ms| -> Vec<u64> {
            let log = log(current(stamps[4]), cells.clone(), settings, now_ms);
            log.iter().map(|version| version.at_ms / 1000).collect()
        };
        assert_eq!(names(KEEPS, 10_000), [5, 4, 3, 2, 1]);
        assert_eq!(names(SpaceSettings { versions: 2, keep_ms: None }, 10_000), [5, 4]);
        // The third was replaced by the fourth, at four seconds.
        assert_eq!(names(SpaceSettings { versions: 10, keep_ms: Some(6500) }, 10_000), [5, 4, 3]);
        assert_eq!(names(SpaceSettings::default(), 10_000), [5], "the current one is always there");
    }

    #[test]
    fn a_ring_takes_free_places_first_and_then_the_oldest() {
        let hash = hash_of(b"");
        let mut ring = Vec::new();
        for seconds in 1..=7 {
            let place = place_in(&ring, &hash, 3);
            assert_eq!(u64::from(place), (seconds - 1) % 3);
            let new = kept(stamp(seconds, 1), place, None);
            ring.retain(|cell: &Cell| cell.field != new.field);
            ring.push(new);
        }
        assert_eq!(place_in(&ring, &hash_of(b"other"), 3), 0, "each field has its own");
    }

    #[test]
    fn fields_of_versions_are_read_as_they_are_written() {
        let ring = Ring { author: stamp(1, 7).author, place: 300, hash: hash_of(b"f") };
        assert_eq!(Ring::read(&ring.field()), Some(ring));
        assert_eq!(Ring::read(b"\0vshort"), None);
        assert_eq!(Ring::read(b"name"), None);
    }
}

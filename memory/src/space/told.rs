//! What watchers are told: of plain values and counters, of fields and of members.

use bytes::Bytes;

use super::{
    Space, blocking,
    fields::is_named,
    members::{is_member_field, member_in},
};
use crate::{
    cell::{Cell, REGISTER},
    changes::Place,
    clock::now_ms,
    codec,
    counter::{self, KeyState},
    keeper::Arrival,
    store::ReadError,
    watch::Event,
};

/// Cells that are looked at for one page of a snapshot.
const LOOKED_AT: usize = 16_384;

/// The address of the first cell of a page; the first of all if missing.
#[derive(Clone, Debug, Default)]
pub(crate) struct SnapshotPlace(Option<Vec<u8>>);

/// What changes with a cell, if watchers are to hear of it. What counters are made of changes what their key is worth.
pub(crate) fn place_of(key: &Bytes, field: &Bytes) -> Option<Place> {
    let field = match counter::decides_value(field) {
        true => REGISTER,
        false if is_named(field) || is_member_field(field) => field.clone(),
        false => return None,
    };
    Some(Place { key: key.clone(), field })
}

/// What a cell that is a field or a member says now.
fn event_of(key: Bytes, field: Bytes, cell: Option<&Cell>, now_ms: u64) -> Event {
    let value = cell.and_then(|cell| cell.live_value(now_ms));
    match (member_in(&field), value) {
        (Some(member), Some(_)) => Event::Member { key, member },
        (Some(member), None) => Event::MemberRemoved { key, member },
        (None, Some(value)) => Event::Field { key, field, value },
        (None, None) => Event::FieldDeleted { key, field },
    }
}

impl Space {
    /// What there is now where something has changed.
    pub(crate) async fn now_at(&self, place: Place) -> Result<Event, ReadError> {
        let Place { key, field } = place;
        if field.is_empty() {
            return Ok(match Arrival::wait_for(|| self.read(&key)).await? {
                Some(value) => Event::Value { key, value },
                None => Event::Deleted { key },
            });
        }
        let address = codec::address(&self.name, &key, &field);
        let cell = Arrival::wait_for(|| self.memory.shared().store.cell(&address)).await?;
        Ok(event_of(key, field, cell.as_ref(), now_ms()))
    }

    /// What there is under `prefix` from `place` on, in some `limit` events, and where to go on.
    pub(crate) async fn told_from(
        &self,
        prefix: &[u8],
        place: SnapshotPlace,
        limit: usize,
    ) -> Result<(Vec<Event>, Option<SnapshotPlace>), ReadError> {
        let (space, prefix) = (self.clone(), codec::scan_prefix(&self.name, prefix));
        blocking(move || {
            let (now_ms, mut events, mut value) = (now_ms(), Vec::new(), None::<(Bytes, KeyState)>);
            let start = place.0.unwrap_or_else(|| prefix.clone());
            for (n_seen, cell) in space.memory.shared().store.scan(&start, &prefix).enumerate() {
                let cell = cell?;
                // The cells that decide what a key is worth come first, and are taken together.
                let decides = counter::decides_value(&cell.field);
                if let Some((_, state)) = value.as_mut().filter(|(key, _)| decides && *key == cell.key) {
                    state.take(cell);
                    continue;
                }
                events.extend(value.take().and_then(|value| worth(value, now_ms)));
                if events.len() >= limit || n_seen >= LOOKED_AT {
                    let next = codec::address(&cell.space, &cell.key, &cell.field);
                    return Ok((events, Some(SnapshotPlace(Some(next)))));
                }
                if decides {
                    let (key, mut state) = (cell.key.clone(), KeyState::default());
                    state.take(cell);
                    value = Some((key, state));
                } else if place_of(&cell.key, &cell.field).is_some() && cell.is_live(now_ms) {
                    events.push(event_of(cell.key.clone(), cell.field.clone(), Some(&cell), now_ms));
                }
            }
            events.extend(value.and_then(|value| worth(value, now_ms)));
            Ok((events, None))
        })
        .await
    }
}

fn worth((key, state): (Bytes, KeyState), now_ms: u64) -> Option<Event> {
    state.value(now_ms).map(|value| Event::Value { key, value })
}

//! Provider records for Kademlia: who holds which root. Bounded per peer, expiring, kept over restarts.
//!
//! libp2p's own store holds 1,024 provided keys in all and frees foreign ones only when they are asked for, so a
//! long-lived node ends up refusing every new one. Here each peer has an allowance, everything expires,
//! and when a peer's allowance is used up its own oldest record goes. Values are not stored at all: data
//! belongs to `memory` and `fs`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use serde::{Deserialize, Serialize};

/// Roots that one peer may have recorded here. At 32 bytes a key that is about 1 MiB a peer.
const MAX_KEYS_PER_PEER: usize = 10_000;
/// Records in all; the newest peers are refused beyond it.
const MAX_RECORDS: usize = 500_000;
/// Providers that are kept of one key.
const MAX_PROVIDERS_PER_KEY: usize = 20;
/// A record whose end is not given lasts as long as libp2p's default says.
const DEFAULT_TTL: Duration = Duration::from_secs(48 * 3600);

/// The store; only the swarm's actor has one.
#[derive(Debug)]
pub(crate) struct Records {
    local: PeerId,
    providers: HashMap<RecordKey, Vec<ProviderRecord>>,
    /// The keys that each peer has here, oldest first: what its allowance counts.
    keys_of: BTreeMap<PeerId, VecDeque<RecordKey>>,
    total: usize,
    file: Option<PathBuf>,
}

/// One foreign record as it is kept on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: Vec<u8>,
    provider: PeerId,
    expires_unix_s: u64,
    addresses: Vec<libp2p::Multiaddr>,
}

impl Records {
    /// A store that is kept in `file`, if given. A file that cannot be read is started anew: every provider
    /// announces itself again in time.
    pub(crate) fn open(local: PeerId, file: Option<PathBuf>) -> Self {
        let mut records =
            Self { local, providers: HashMap::new(), keys_of: BTreeMap::new(), total: 0, file: file.clone() };
        let Some(path) = file else { return records };
        match load(&path) {
            Ok(kept) => {
                for record in kept {
                    let _ = records.add_provider(record);
                }
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "provider records are started anew"),
        }
        records
    }

    /// Drops what has expired. Called now and then, since nothing else frees records nobody asks for.
    pub(crate) fn expire(&mut self, now: Instant) {
        let expired: Vec<(RecordKey, PeerId)> = self
            .providers
            .values()
            .flatten()
            .filter(|record| record.provider != self.local && record.is_expired(now))
            .map(|record| (record.key.clone(), record.provider))
            .collect();
        for (key, peer) in expired {
            self.remove_provider(&key, &peer);
        }
    }

    /// Writes the records to disk; a crash before it costs nothing that is not announced again.
    pub(crate) fn save(&self) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let now = Instant::now();
        let kept: Vec<Kept> = self
            .providers
            .values()
            .flatten()
            .filter(|record| record.provider != self.local)
            .filter_map(|record| Kept::of(record, now))
            .collect();
        let bytes = postcard::to_stdvec(&kept).map_err(io::Error::other)?;
        let temporary = path.with_extension("new");
        fs::write(&temporary, bytes)?;
        fs::rename(temporary, path)
    }

    fn forget_key_of(&mut self, peer: &PeerId, key: &RecordKey) {
        if let Some(keys) = self.keys_of.get_mut(peer) {
            // The oldest goes first nearly always; the scan is for the rest.
            if keys.front() == Some(key) {
                keys.pop_front();
            } else {
                keys.retain(|own| own != key);
            }
            if keys.is_empty() {
                self.keys_of.remove(peer);
            }
        }
    }
}

impl RecordStore for Records {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::vec::IntoIter<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::ValueTooLarge)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        record.expires = record.expires.or_else(|| Instant::now().checked_add(DEFAULT_TTL));
        let (key, peer) = (record.key.clone(), record.provider);
        if let Some(known) =
            self.providers.get_mut(&key).and_then(|all| all.iter_mut().find(|r| r.provider == peer))
        {
            *known = record;
            return Ok(());
        }
        let own = self.keys_of.get(&peer).map_or(0, VecDeque::len);
        if own >= MAX_KEYS_PER_PEER {
            if peer == self.local {
                return Err(Error::MaxProvidedKeys);
            }
            if let Some(oldest) = self.keys_of.get(&peer).and_then(|keys| keys.front().cloned()) {
                self.remove_provider(&oldest, &peer);
            }
        } else if self.total >= MAX_RECORDS {
            return Err(Error::MaxProvidedKeys);
        }
        let providers = self.providers.entry(key.clone()).or_default();
        if providers.len() >= MAX_PROVIDERS_PER_KEY {
            return Ok(());
        }
        providers.push(record);
        self.keys_of.entry(peer).or_default().push_back(key);
        self.total += 1;
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.providers.get(key).cloned().unwrap_or_default()
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        let keys = self.keys_of.get(&self.local).into_iter().flatten();
        let own: Vec<_> = keys
            .filter_map(|key| self.providers.get(key)?.iter().find(|record| record.provider == self.local))
            .map(Cow::Borrowed)
            .collect();
        own.into_iter()
    }

    fn remove_provider(&mut self, key: &RecordKey, peer: &PeerId) {
        let Some(providers) = self.providers.get_mut(key) else { return };
        let before = providers.len();
        providers.retain(|record| record.provider != *peer);
        let removed = before - providers.len();
        if providers.is_empty() {
            self.providers.remove(key);
        }
        self.total -= removed;
        self.forget_key_of(peer, key);
    }
}

impl Kept {
    fn of(record: &ProviderRecord, now: Instant) -> Option<Self> {
        let left = record.expires?.checked_duration_since(now)?;
        let end = SystemTime::now().checked_add(left)?;
        Some(Self {
            key: record.key.to_vec(),
            provider: record.provider,
            expires_unix_s: end.duration_since(UNIX_EPOCH).ok()?.as_secs(),
            addresses: record.addresses.clone(),
        })
    }

    fn into_record(self) -> Option<ProviderRecord> {
        let end = UNIX_EPOCH.checked_add(Duration::from_secs(self.expires_unix_s))?;
        // A wall clock that jumped back must not make a record immortal.
        let left = end.duration_since(SystemTime::now()).ok()?.min(DEFAULT_TTL);
        Some(ProviderRecord {
            key: RecordKey::new(&self.key),
            provider: self.provider,
            expires: Instant::now().checked_add(left),
            addresses: self.addresses,
        })
    }
}

fn load(path: &Path) -> io::Result<Vec<ProviderRecord>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let kept: Vec<Kept> = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
    Ok(kept.into_iter().filter_map(Kept::into_record).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: u32, provider: PeerId, ttl: Duration) -> ProviderRecord {
        ProviderRecord {
            key: RecordKey::new(&key.to_be_bytes()),
            provider,
            expires: Some(Instant::now() + ttl),
            addresses: Vec::new(),
        }
    }

    #[test]
    fn a_swarm_announces_more_roots_than_libp2p_would_hold() {
        let (local, other) = (PeerId::random(), PeerId::random());
        let mut records = Records::open(local, None);
        for key in 0..5_000 {
            records.add_provider(record(key, local, DEFAULT_TTL)).unwrap();
            records.add_provider(record(key, other, DEFAULT_TTL)).unwrap();
        }
        assert_eq!(records.provided().count(), 5_000);
        assert_eq!(records.providers(&RecordKey::new(&4_999_u32.to_be_bytes())).len(), 2);
    }

    #[test]
    fn a_peer_that_floods_pushes_out_only_its_own() {
        let (quiet, flooder) = (PeerId::random(), PeerId::random());
        let mut records = Records::open(PeerId::random(), None);
        records.add_provider(record(u32::MAX, quiet, DEFAULT_TTL)).unwrap();
        for key in 0..=u32::try_from(MAX_KEYS_PER_PEER).unwrap() {
            records.add_provider(record(key, flooder, DEFAULT_TTL)).unwrap();
        }
        assert_eq!(records.total, MAX_KEYS_PER_PEER + 1);
        assert_eq!(records.providers(&RecordKey::new(&u32::MAX.to_be_bytes())).len(), 1);
        assert!(records.providers(&RecordKey::new(&0_u32.to_be_bytes())).is_empty());
    }

    #[test]
    fn expired_records_are_freed_without_being_asked_for() {
        let mut records = Records::open(PeerId::random(), None);
        records.add_provider(record(1, PeerId::random(), Duration::from_secs(10))).unwrap();
        records.expire(Instant::now() + Duration::from_secs(49 * 3600));
        assert_eq!((records.total, records.keys_of.len()), (0, 0));
    }

    #[test]
    fn records_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("providers");
        let (local, other) = (PeerId::random(), PeerId::random());
        let mut records = Records::open(local, Some(file.clone()));
        records.add_provider(record(7, other, DEFAULT_TTL)).unwrap();
        records.save().unwrap();
        let again = Records::open(local, Some(file.clone()));
        assert_eq!(again.providers(&RecordKey::new(&7_u32.to_be_bytes()))[0].provider, other);
        fs::write(&file, b"garbage").unwrap();
        assert_eq!(Records::open(local, Some(file)).total, 0);
    }
}

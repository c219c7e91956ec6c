//! The rules of the store: what is kept and what is cached, what makes room for what, and what damage means.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::bundle::Bundle;
use super::cache::Recency;
use super::disk::{Disk, Kind, Meta};
use super::{Damage, Holdings, Limits, lock};
use crate::hash::BlobHash;
use crate::index_set::IndexSet;

/// Locks that all hashes share, so that two changes of one item never meet.
const LOCKS: usize = 64;
/// What is added again is noted as new if it is older than this, in seconds: far less than the collector lets things be.
const RENEW_AFTER: u64 = 60;
/// Damaged items that are remembered; repair finds the rest when it looks.
const MAX_DAMAGE: usize = 10_000;
/// Of a small disk this share is left free: twice what memory leaves, so that where there is no room for bytes any more, names can
/// still be changed and removed; ...
const RESERVE_SHARE: u64 = 25;
/// ... and of a large one no more than this.
const MAX_RESERVE: u64 = 256 << 20;

/// What is on this disk, and the rules that adding to it and taking from it follow. All of it blocks.
pub(super) struct Items {
    pub(super) dir: PathBuf,
    pub(super) disk: Disk,
    pub(super) limits: Limits,
    pub(super) holdings: Mutex<Holdings>,
    pub(super) recency: Mutex<Recency>,
    /// Damage that nobody has asked for yet.
    pub(super) damage: Mutex<Vec<Damage>>,
    locks: Vec<Mutex<()>>,
}

impl Items {
    pub(super) fn open(dir: PathBuf, limits: Limits) -> io::Result<Self> {
        let disk = Disk::open(&dir)?;
        let (mut holdings, mut recency) = (Holdings::default(), Recency::default());
        for kind in [Kind::Whole, Kind::Shards] {
            disk.scan(kind, None, |hash, meta| {
                holdings.count(&meta);
                if meta.is_cached {
                    recency.add(hash, meta.stored);
                }
                true
            })?;
        }
        let locks = std::iter::repeat_with(Mutex::default).take(LOCKS).collect();
        let (holdings, recency) = (Mutex::new(holdings), Mutex::new(recency));
        let damage = Mutex::default();
        Ok(Self { dir, disk, limits, holdings, recency, damage, locks })
    }

    pub(super) fn add(&self, hash: &BlobHash, bytes: &[u8], is_cached: bool) -> io::Result<()> {
        let _guard = self.lock_item(hash);
        let old = self.disk.meta(Kind::Whole, hash)?;
        match old {
            Some(old) if is_cached || !old.is_cached => {
                lock(&self.recency).touch(hash);
                return self.renew(Kind::Whole, hash, &old);
            }
            _ => {}
        }
        let stored = bytes.len() as u64;
        if is_cached {
            // A cache that does not fit is no failure.
            if stored > self.limits.cache || !self.has_room_for_cache(stored)? {
                return Ok(());
            }
        } else {
            self.make_room(stored)?;
        }
        let meta = Meta { len: stored, stored, since: now(), is_cached, indices: IndexSet::default() };
        self.put(Kind::Whole, hash, old, &meta, bytes)
    }

    pub(super) fn get(&self, hash: &BlobHash) -> io::Result<Option<Bytes>> {
        let Some(meta) = self.disk.meta(Kind::Whole, hash)? else { return Ok(None) };
        if let Some(bytes) = self.disk.read(Kind::Whole, hash, &meta)?
            && BlobHash::of(&bytes) == *hash
        {
            lock(&self.recency).touch(hash);
            return Ok(Some(bytes));
        }
        // It may have gone while it was looked for.
        if self.disk.meta(Kind::Whole, hash)?.as_ref() == Some(&meta) {
            self.damaged(Kind::Whole, hash, &meta)?;
        }
        Ok(None)
    }

    pub(super) fn release(&self, hash: &BlobHash) -> io::Result<()> {
        let _guard = self.lock_item(hash);
        let Some(old) = self.disk.meta(Kind::Whole, hash)?.filter(|meta| !meta.is_cached) else {
            return Ok(());
        };
        let meta = Meta { is_cached: true, ..old.clone() };
        self.disk.write_meta(Kind::Whole, hash, &meta)?;
        self.recount(hash, Some(&old), Some(&meta));
        self.shrink_cache()
    }

    pub(super) fn add_shards(&self, segment: &BlobHash, bundle: Bundle) -> io::Result<()> {
        let _guard = self.lock_item(segment);
        let old = self.disk.meta(Kind::Shards, segment)?;
        let bundle = match self.read_bundle(segment, old.as_ref())? {
            Some(present) if present.indices().union(&bundle.indices()) == present.indices() => {
                return old.map_or(Ok(()), |old| self.renew(Kind::Shards, segment, &old));
            }
            Some(present) => present.merge(bundle),
            None => bundle,
        };
        self.put_bundle(segment, old, &bundle)
    }

    pub(super) fn shards(&self, segment: &BlobHash) -> io::Result<Option<Bundle>> {
        let meta = self.disk.meta(Kind::Shards, segment)?;
        if let Some(bundle) = self.read_bundle(segment, meta.as_ref())? {
            return Ok(Some(bundle));
        }
        if let Some(meta) = &meta
            && self.disk.meta(Kind::Shards, segment)?.as_ref() == Some(meta)
        {
            self.damaged(Kind::Shards, segment, meta)?;
        }
        Ok(None)
    }

    pub(super) fn drop_shards(&self, segment: &BlobHash, indices: &IndexSet) -> io::Result<()> {
        let _guard = self.lock_item(segment);
        let Some(old) = self.disk.meta(Kind::Shards, segment)? else { return Ok(()) };
        let rest = old.indices.minus(indices);
        if rest.is_empty() {
            return self.forget(Kind::Shards, segment, &old);
        }
        match self.read_bundle(segment, Some(&old))? {
            Some(bundle) if rest != old.indices => self.put_bundle(segment, Some(old), &bundle.only(&rest)),
            _ => Ok(()),
        }
    }

    fn remove(&self, kind: Kind, hash: &BlobHash) -> io::Result<()> {
        self.remove_if(kind, hash, |_| true).map(drop)
    }

    pub(super) fn remove_if(
        &self,
        kind: Kind,
        hash: &BlobHash,
        may_go: impl FnOnce(&Meta) -> bool,
    ) -> io::Result<bool> {
        let _guard = self.lock_item(hash);
        let gone = self.disk.meta(kind, hash)?.filter(may_go);
        match &gone {
            Some(meta) => self.forget(kind, hash, meta).map(|()| true),
            None => Ok(false),
        }
    }

    /// Somebody counts on what is here as if it had just been added, so it counts as new. Called with its lock.
    fn renew(&self, kind: Kind, hash: &BlobHash, meta: &Meta) -> io::Result<()> {
        if meta.is_cached || now().saturating_sub(meta.since) < RENEW_AFTER {
            return Ok(());
        }
        self.disk.write_meta(kind, hash, &Meta { since: now(), ..meta.clone() })
    }

    fn read_bundle(&self, segment: &BlobHash, meta: Option<&Meta>) -> io::Result<Option<Bundle>> {
        let Some(meta) = meta else { return Ok(None) };
        let bytes = self.disk.read(Kind::Shards, segment, meta)?;
        Ok(bytes.and_then(Bundle::decode).filter(|bundle| bundle.segment_len() == meta.len))
    }

    fn put_bundle(&self, segment: &BlobHash, old: Option<Meta>, bundle: &Bundle) -> io::Result<()> {
        let bytes = bundle.encode();
        let stored = bytes.len() as u64;
        self.make_room(stored.saturating_sub(old.as_ref().map_or(0, |old| old.stored)))?;
        let (len, indices) = (bundle.segment_len(), bundle.indices());
        let meta = Meta { len, stored, since: now(), is_cached: false, indices };
        self.put(Kind::Shards, segment, old, &meta, &bytes)
    }

    fn put(
        &self,
        kind: Kind,
        hash: &BlobHash,
        old: Option<Meta>,
        meta: &Meta,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.disk.write(kind, hash, old.as_ref(), meta, bytes)?;
        self.recount(hash, old.as_ref(), Some(meta));
        if meta.is_cached { self.shrink_cache() } else { Ok(()) }
    }

    fn forget(&self, kind: Kind, hash: &BlobHash, meta: &Meta) -> io::Result<()> {
        self.disk.remove(kind, hash, meta)?;
        self.recount(hash, Some(meta), None);
        Ok(())
    }

    fn damaged(&self, kind: Kind, hash: &BlobHash, meta: &Meta) -> io::Result<()> {
        if meta.is_cached {
            // It was never synced, so a crash may have cut it.
            return self.remove(kind, hash);
        }
        tracing::warn!(%hash, ?kind, "the disk has damaged or lost this");
        lock(&self.holdings).damaged += 1;
        let mut damage = lock(&self.damage);
        if kind == Kind::Shards && damage.len() < MAX_DAMAGE {
            damage.push(Damage { segment: *hash, len: meta.len, indices: meta.indices });
        }
        drop(damage);
        self.remove(kind, hash)
    }

    fn recount(&self, hash: &BlobHash, old: Option<&Meta>, new: Option<&Meta>) {
        let mut holdings = lock(&self.holdings);
        let mut recency = lock(&self.recency);
        if let Some(old) = old {
            holdings.discount(old);
            if old.is_cached {
                recency.remove(hash);
            }
        }
        if let Some(new) = new {
            holdings.count(new);
            if new.is_cached {
                recency.add(*hash, new.stored);
            }
        }
    }

    /// Evicts what is cached until there is room for as many bytes more, or says that there is none.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        if lock(&self.holdings).kept_bytes.saturating_add(bytes) > self.limits.quota {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        while self.free()? < bytes {
            if !self.evict_one()? {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    fn has_room_for_cache(&self, bytes: u64) -> io::Result<bool> {
        Ok(self.free()? >= bytes.saturating_mul(2))
    }

    fn shrink_cache(&self) -> io::Result<()> {
        while lock(&self.recency).bytes() > self.limits.cache {
            if !self.evict_one()? {
                break;
            }
        }
        Ok(())
    }

    fn evict_one(&self) -> io::Result<bool> {
        let Some(hash) = lock(&self.recency).oldest() else { return Ok(false) };
        match self.disk.meta(Kind::Whole, &hash)?.filter(|meta| meta.is_cached) {
            Some(meta) => self.forget(Kind::Whole, &hash, &meta)?,
            None => lock(&self.recency).remove(&hash),
        }
        Ok(true)
    }

    /// What the disk has left beyond the reserve.
    pub(super) fn free(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        let reserve = (disk.f_blocks * disk.f_frsize / RESERVE_SHARE).min(MAX_RESERVE);
        Ok((disk.f_bavail * disk.f_frsize).saturating_sub(reserve))
    }

    fn lock_item(&self, hash: &BlobHash) -> MutexGuard<'_, ()> {
        lock(&self.locks[usize::from(hash.as_bytes()[1]) % LOCKS])
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

//! Writing: a stream of bytes becomes segments on this disk, then one commit makes it a file.
//!
//! Memory use does not depend on the file: a few segments are under way at a time. Cutting and hashing run off the
//! async threads. Nothing is visible before the end; what a write that fails has stored goes again.

use std::io;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use tokio_util::task::AbortOnDropHandle;

use super::flight::Landing;
use super::read::manifest_segment;
use super::{Files, about, now_ms};
use crate::chunk::{Cutter, MAX_SEGMENT};
use crate::durable::Job;
use crate::hash::BlobHash;
use crate::links::Last;
use crate::manifest::{Manifest, Segment};
use crate::path::VfsPath;
use crate::store::Store;
use crate::tree::cell::{Body, FileContent, MAX_INLINE, MAX_INLINE_MANIFEST, ManifestBlob};
use crate::tree::store::Edits;
use crate::tree::{Content, DEFAULT_FILE_MODE, Found, Mode, Place};
use crate::vfs::{Attributes, ByteStream, Entry, VfsError};

/// Segments on their way to disk at once; with what is being cut, and read meanwhile, this bounds the memory of a write
/// (28 MiB).
const SEGMENTS_UNDER_WAY: usize = 4;
/// Up to this much is cut and hashed in place: less work than handing it to another thread and back.
const SMALL: usize = 64 * 1024;

/// Cuts and hashes what comes.
#[derive(Debug, Default)]
struct Digester {
    cutter: Cutter,
    hasher: blake3::Hasher,
}

/// A file's bytes on their way in.
struct Intake<'a> {
    store: &'a Store,
    segments: Vec<Segment>,
    under_way: FuturesUnordered<AbortOnDropHandle<io::Result<()>>>,
}

impl Files {
    pub(super) async fn write_file(
        &self,
        path: &VfsPath,
        content: ByteStream,
        attributes: Attributes,
    ) -> Result<Entry, VfsError> {
        let at = self.resolve(path, Last::Follow)?;
        // What cannot end well is refused before the bytes come.
        self.target(&at).map_err(|error| about(error, path))?;
        let mut landing = self.inner.flights.begin(&self.inner.store);
        let (file, segments) = self.take_in(content, &at, &mut landing).await?;
        let guard = self.inner.locks.entry(&at).await;
        let (place, existing) = self.target(&at).map_err(|error| about(error, path))?;
        let mut edits = Edits::default();
        let mode = |present: u32| Mode {
            mode: attributes.mode.unwrap_or(present) & 0o7777,
            mtime_ms: attributes.mtime_ms.unwrap_or_else(now_ms),
        };
        let inode = match existing {
            Some(found) => {
                let present = self.inner.tree.read().entry("", &found).mode;
                self.replace(found.inode(), &Content::File(file), mode(present), &mut edits).await?;
                found.inode()
            }
            None => edits.create(&place, &Content::File(file), mode(DEFAULT_FILE_MODE))?,
        };
        self.inner.tree.commit(edits).await?;
        landing.land();
        drop(guard);
        let names = self.inner.tree.read().chain(inode);
        self.inner.publisher.add(Job { path: at.clone(), segments, names });
        self.entry(&at)
    }

    /// Where the file will be, and the file that is there now.
    fn target(&self, at: &VfsPath) -> Result<(Place, Option<Found>), VfsError> {
        if at.is_root() {
            return Err(VfsError::IsADirectory { path: at.clone() });
        }
        let spot = self.spot(at)?;
        if let Some(Found::Dir(_)) = spot.existing {
            return Err(VfsError::IsADirectory { path: at.clone() });
        }
        Ok((Place { parent: spot.parent, name: spot.name, removed: None }, spot.existing))
    }

    /// Brings a stream to this disk; what it is by now, and the segments that others must be given.
    async fn take_in(
        &self,
        mut content: ByteStream,
        at: &VfsPath,
        landing: &mut Landing<'_>,
    ) -> Result<(FileContent, Vec<Segment>), VfsError> {
        let holder = Some(self.inner.network.local_peer());
        let mut digester = Digester::default();
        let store = &self.inner.store;
        let mut intake = Intake { store, segments: Vec::new(), under_way: FuturesUnordered::new() };
        let mut is_first = true;
        let mut next = next_parts(&mut content).await?;
        loop {
            let (parts, is_last) = next;
            let len: usize = parts.iter().map(Bytes::len).sum();
            if is_first && is_last && len <= MAX_INLINE {
                let bytes = parts.concat();
                let hash = BlobHash::of(&bytes);
                let file = FileContent { size: len as u64, hash, holder, body: Body::Inline(bytes) };
                return Ok((file, Vec::new()));
            }
            is_first = false;
            // What comes next is read meanwhile.
            let ahead = async { if is_last { Ok(None) } else { next_parts(&mut content).await.map(Some) } };
            let (digested, ahead) = tokio::join!(digest(digester, parts, len, is_last), ahead);
            let (back, cut) = digested.map_err(|error| failed(at, error))?;
            digester = back;
            for (hash, bytes) in cut {
                landing.add(hash);
                intake.add(hash, bytes).await.map_err(|error| failed(at, error))?;
            }
            let Some(parts) = ahead? else { break };
            next = parts;
        }
        let manifest =
            intake.finish(digester.hasher.finalize().into()).await.map_err(|error| failed(at, error))?;
        let body = self.keep_manifest(&manifest, landing).await.map_err(|error| failed(at, error))?;
        store.flush().await.map_err(|error| failed(at, error))?;
        let mut segments = manifest.segments().to_vec();
        segments.extend(manifest_segment(&body));
        Ok((FileContent { size: manifest.size(), hash: manifest.hash(), holder, body }, segments))
    }

    async fn keep_manifest(&self, manifest: &Manifest, landing: &mut Landing<'_>) -> io::Result<Body> {
        let bytes = manifest.encode().map_err(io::Error::other)?;
        if bytes.len() <= MAX_INLINE_MANIFEST {
            return Ok(Body::Manifest(bytes));
        }
        let (len, hash) = (bytes.len() as u64, BlobHash::of(&bytes));
        landing.add(hash);
        self.inner.store.add(hash, bytes.into(), false).await?;
        Ok(Body::ManifestBlob(ManifestBlob { hash, len }))
    }
}

impl Digester {
    /// Takes `parts` in; the segments that are now certain come out.
    fn digest(&mut self, parts: &[Bytes], is_last: bool) -> Vec<(BlobHash, Bytes)> {
        for part in parts {
            self.hasher.update(part);
            self.cutter.push(part);
        }
        let mut segments = Vec::new();
        while let Some(segment) = self.cutter.next_segment() {
            segments.push((BlobHash::of(&segment), segment));
        }
        while is_last && let Some(segment) = self.cutter.next_last_segment() {
            segments.push((BlobHash::of(&segment), segment));
        }
        segments
    }
}

impl Intake<'_> {
    /// Begins to store a segment, once few enough are under way.
    async fn add(&mut self, hash: BlobHash, bytes: Bytes) -> io::Result<()> {
        while self.under_way.len() >= SEGMENTS_UNDER_WAY {
            self.wait_for_one().await?;
        }
        self.segments.push(Segment { hash, len: bytes.len() as u32 });
        let store = self.store.clone();
        self.under_way
            .push(AbortOnDropHandle::new(tokio::spawn(async move { store.add(hash, bytes, false).await })));
        Ok(())
    }

    async fn finish(mut self, hash: BlobHash) -> io::Result<Manifest> {
        while !self.under_way.is_empty() {
            self.wait_for_one().await?;
        }
        Ok(Manifest::new(hash, self.segments))
    }

    async fn wait_for_one(&mut self) -> io::Result<()> {
        match self.under_way.next().await {
            Some(stored) => stored.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}

/// Parts of the stream that are together enough to cut, and whether they are the last.
async fn next_parts(content: &mut ByteStream) -> Result<(Vec<Bytes>, bool), VfsError> {
    let (mut parts, mut len) = (Vec::new(), 0);
    while len < MAX_SEGMENT {
        let Some(part) = content.try_next().await? else { return Ok((parts, true)) };
        len += part.len();
        parts.push(part);
    }
    Ok((parts, false))
}

async fn digest(
    mut digester: Digester,
    parts: Vec<Bytes>,
    len: usize,
    is_last: bool,
) -> io::Result<(Digester, Vec<(BlobHash, Bytes)>)> {
    let work = move || {
        let segments = digester.digest(&parts, is_last);
        (digester, segments)
    };
    if len <= SMALL { Ok(work()) } else { tokio::task::spawn_blocking(work).await.map_err(io::Error::other) }
}

fn failed(at: &VfsPath, source: io::Error) -> VfsError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            VfsError::NoSpace { what: at.to_string() }
        }
        _ => VfsError::Io { what: format!("could not store {at}"), source },
    }
}

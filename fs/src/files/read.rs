//! Reading: from a range of a file to the segments it touches, fetched ahead and handed on in order.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use tokio_util::task::AbortOnDropHandle;

use super::Files;
use crate::gather::{GatherError, Segments};
use crate::links::Last;
use crate::manifest::{MAX_MANIFEST, Manifest, ManifestError, Segment, Slice};
use crate::path::VfsPath;
use crate::tree::cell::{Body, Content, FileContent};
use crate::tree::store::TreeStore;
use crate::tree::{Found, Inode};
use crate::vfs::{ByteStream, VfsError};

/// How long a reader waits for bytes that nobody who can be reached has: whoever has them may be connecting anew, or just be
/// handing them on.
const WAITS_FOR: Duration = Duration::from_secs(2);
/// The pause before they are asked for again.
const PAUSE: Duration = Duration::from_millis(200);

/// That of a reader who was told that bytes cannot be had.
struct Patience(Instant);

impl Patience {
    fn begin() -> Self {
        Self(Instant::now())
    }

    /// Waits for a moment; false if it has waited long enough.
    async fn lasts(&self) -> bool {
        let lasts = self.0.elapsed() < WAITS_FOR;
        if lasts {
            tokio::time::sleep(PAUSE).await;
        }
        lasts
    }
}

impl Files {
    /// How many bytes of a file need not be fetched: those of whole segments, and of others the part that the shards here
    /// make up.
    pub(super) async fn held_bytes(&self, path: &VfsPath) -> Result<u64, VfsError> {
        let file = self.file_at(path).await?;
        if let Body::Inline(bytes) = &file.body {
            return Ok(bytes.len() as u64);
        }
        let segments = &self.inner.segments;
        let manifest = manifest_of(&file, segments).await.map_err(|error| unreadable(path, error))?;
        let held = manifest.segments().iter().map(|segment| segments.held_bytes(segment));
        held.sum::<io::Result<u64>>().map_err(|error| failed("look a segment up", error))
    }

    /// The content of the file at a path.
    async fn file_at(&self, path: &VfsPath) -> Result<FileContent, VfsError> {
        let at = self.resolve(path, Last::Follow)?;
        let inode = match self.find(&at).map_err(|error| super::about(error, path))? {
            Found::Dir(_) => return Err(VfsError::IsADirectory { path: path.clone() }),
            Found::Leaf(inode) => inode,
        };
        match self.inner.tree.content(inode).await? {
            Some(Content::File(file)) => Ok(file),
            _ => Err(VfsError::NotFound { path: path.clone() }),
        }
    }

    pub(super) async fn read_range(&self, path: &VfsPath, range: Range<u64>) -> Result<ByteStream, VfsError> {
        let file = self.file_at(path).await?;
        let range = range.start.min(file.size)..range.end.min(file.size);
        if let Body::Inline(bytes) = &file.body {
            let bytes =
                Bytes::copy_from_slice(bytes.get(range.start as usize..range.end as usize).unwrap_or(&[]));
            return Ok(stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed());
        }
        let segments = self.inner.segments.clone();
        let patience = Patience::begin();
        let manifest = loop {
            match manifest_of(&file, &segments).await {
                Err(ManifestFault::Gather(_)) if patience.lasts().await => {}
                manifest => break manifest.map_err(|error| unreadable(path, error))?,
            }
        };
        Ok(self.stream(path.clone(), segments, manifest.slices(range)))
    }

    fn stream(&self, path: VfsPath, segments: Segments, slices: Vec<Slice>) -> ByteStream {
        stream::iter(slices)
            .map(move |slice| {
                let (segments, path) = (segments.clone(), path.clone());
                // A task of its own, so that it goes on while the reader is busy with what came before.
                let part = AbortOnDropHandle::new(tokio::spawn(async move {
                    let patience = Patience::begin();
                    loop {
                        match segments.get_part(slice.segment, slice.range.clone()).await {
                            Err(_) if patience.lasts().await => {}
                            got => break got.map_err(|error| unreadable(&path, error.into())),
                        }
                    }
                }));
                async move { part.await.map_err(|error| failed("read a segment", io::Error::other(error)))? }
            })
            .buffered(self.inner.options.read_ahead.max(1))
            .boxed()
    }
}

/// Why a file's segments cannot be told.
#[derive(Debug, thiserror::Error)]
enum ManifestFault {
    #[error(transparent)]
    Gather(#[from] GatherError),
    #[error(transparent)]
    Malformed(#[from] ManifestError),
    #[error("the manifest is of another file")]
    Other,
}

async fn manifest_of(file: &FileContent, segments: &Segments) -> Result<Manifest, ManifestFault> {
    let manifest = match &file.body {
        Body::Inline(_) => return Err(ManifestFault::Other),
        Body::Manifest(bytes) => Manifest::decode(bytes)?,
        Body::ManifestBlob(blob) => {
            let len = blob.len.min(MAX_MANIFEST as u64);
            Manifest::decode(&segments.get(blob.hash, len).await?)?
        }
    };
    let is_this = manifest.hash() == file.hash && manifest.size() == file.size;
    if is_this { Ok(manifest) } else { Err(ManifestFault::Other) }
}

/// All that must be kept for a file's content: its segments, and its manifest if that is a blob. `None` where the
/// content is no file, or needs nothing; an error, in words, while that cannot be told.
pub(crate) async fn segments_of(
    content: Option<Content>,
    segments: &Segments,
) -> Result<Option<Vec<Segment>>, String> {
    let Some(Content::File(file)) = content else { return Ok(None) };
    if matches!(file.body, Body::Inline(_)) {
        return Ok(None);
    }
    let manifest = manifest_of(&file, segments).await.map_err(|error| error.to_string())?;
    let mut all = manifest.segments().to_vec();
    all.extend(manifest_segment(&file.body));
    Ok(Some(all))
}

/// The segments of all that is kept of a file: of what it is, and of what it was not too long ago.
pub(crate) async fn all_segments_of(
    tree: &TreeStore,
    inode: Inode,
    segments: &Segments,
) -> Result<Option<Vec<Segment>>, String> {
    let retained = async { tree.retained(inode, super::now_ms(), tree.retention().await?).await };
    let (contents, _) = retained.await.map_err(|error| error.to_string())?;
    segments_of_all(contents, segments).await
}

/// The segments of several contents; see [`segments_of`].
pub(crate) async fn segments_of_all(
    contents: Vec<Content>,
    segments: &Segments,
) -> Result<Option<Vec<Segment>>, String> {
    let mut all: Option<Vec<Segment>> = None;
    for content in contents {
        if let Some(of_content) = segments_of(Some(content), segments).await? {
            all.get_or_insert_default().extend(of_content);
        }
    }
    Ok(all)
}

/// The manifest as one more thing to keep, where it is a blob.
pub(super) fn manifest_segment(body: &Body) -> Option<Segment> {
    match body {
        Body::ManifestBlob(blob) => Some(Segment { hash: blob.hash, len: u32::try_from(blob.len).ok()? }),
        Body::Inline(_) | Body::Manifest(_) => None,
    }
}

fn unreadable(path: &VfsPath, fault: ManifestFault) -> VfsError {
    match fault {
        ManifestFault::Gather(error) => {
            VfsError::Unavailable { path: path.clone(), hash: error.segment.to_string(), asked: error.asked }
        }
        other => failed("read the manifest", io::Error::other(other)),
    }
}

fn failed(what: &str, source: io::Error) -> VfsError {
    VfsError::Io { what: format!("could not {what}"), source }
}

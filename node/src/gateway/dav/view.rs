//! The tree as `dav-server` wants to see it: what there is, what it is like, and new folders.
//!
//! Content never passes here.

use std::future::ready;
use std::io::SeekFrom;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use dav_server::davpath::DavPath;
use dav_server::fs::{
    DavDirEntry, DavFile, DavFileSystem, DavMetaData, DavProp, FsError, FsFuture, FsResult, FsStream,
    OpenOptions, ReadDirMeta,
};
use futures::{FutureExt, StreamExt, stream};
use http::StatusCode;
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Attributes, Entry, Kind, Parents, Vfs, VfsError, stream_of};

use starfish_fs::links;

/// The tree.
#[derive(Clone)]
pub(super) struct Tree(pub(super) Arc<dyn Vfs>);

/// What an entry is like.
#[derive(Clone, Debug)]
struct Meta(Entry);

/// An entry of a folder.
struct Child {
    files: Arc<dyn Vfs>,
    path: VfsPath,
    entry: Entry,
    follows: bool,
}

/// A file that a lock has made. It is written by other ways.
#[derive(Debug)]
struct Made(Entry);

impl DavFileSystem for Tree {
    /// Called for a lock on what is not there: an empty file is made for it.
    fn open<'a>(&'a self, path: &'a DavPath, options: OpenOptions) -> FsFuture<'a, Box<dyn DavFile>> {
        async move {
            let path = vfs_path(path)?;
            match self.0.stat(&path).await {
                Ok(_) => return Err(FsError::Exists),
                Err(VfsError::NotFound { .. }) if options.write && options.create => {}
                Err(error) => return Err(fs_error(&error)),
            }
            let made = self.0.write(&path, stream_of(Bytes::new()), Attributes::default()).await;
            let made = made.map_err(|error| fs_error(&error))?;
            Ok(Box::new(Made(made)) as Box<dyn DavFile>)
        }
        .boxed()
    }

    fn read_dir<'a>(
        &'a self,
        path: &'a DavPath,
        meta: ReadDirMeta,
    ) -> FsFuture<'a, FsStream<Box<dyn DavDirEntry>>> {
        async move {
            let folder = vfs_path(path)?;
            let entries = self.0.list(&folder).await.map_err(|error| fs_error(&error))?;
            let (files, follows) = (self.0.clone(), meta == ReadDirMeta::Data);
            let children = stream::iter(entries).map(move |entry| {
                let path = folder.join(&entry.name).map_err(|_| FsError::PathTooLong)?;
                Ok(Box::new(Child { files: files.clone(), path, entry, follows }) as Box<dyn DavDirEntry>)
            });
            Ok(children.boxed() as FsStream<Box<dyn DavDirEntry>>)
        }
        .boxed()
    }

    fn metadata<'a>(&'a self, path: &'a DavPath) -> FsFuture<'a, Box<dyn DavMetaData>> {
        async move { meta(links::stat(&*self.0, &vfs_path(path)?).await) }.boxed()
    }

    fn symlink_metadata<'a>(&'a self, path: &'a DavPath) -> FsFuture<'a, Box<dyn DavMetaData>> {
        async move { meta(self.0.stat(&vfs_path(path)?).await) }.boxed()
    }

    /// The tree keeps no properties but its own, and says so of each.
    fn patch_props<'a>(
        &'a self,
        _: &'a DavPath,
        patch: Vec<(bool, DavProp)>,
    ) -> FsFuture<'a, Vec<(StatusCode, DavProp)>> {
        let refused = patch.into_iter().map(|(_, property)| (StatusCode::FORBIDDEN, property));
        ready(Ok(refused.collect())).boxed()
    }

    fn create_dir<'a>(&'a self, path: &'a DavPath) -> FsFuture<'a, ()> {
        async move {
            let made = self.0.mkdir(&vfs_path(path)?, Parents::MustExist).await;
            made.map(drop).map_err(|error| fs_error(&error))
        }
        .boxed()
    }
}

impl DavDirEntry for Child {
    fn name(&self) -> Vec<u8> {
        self.entry.name.clone().into_bytes()
    }

    fn metadata(&'_ self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        if !self.follows || self.entry.kind != Kind::Symlink {
            return ready(meta(Ok(self.entry.clone()))).boxed();
        }
        // A link to nothing is not shown: a client could do nothing with it.
        async move { meta(links::stat(&*self.files, &self.path).await) }.boxed()
    }
}

impl DavMetaData for Meta {
    fn len(&self) -> u64 {
        self.0.size
    }

    fn modified(&self) -> FsResult<SystemTime> {
        Ok(UNIX_EPOCH + Duration::from_millis(self.0.mtime_ms))
    }

    fn is_dir(&self) -> bool {
        self.0.kind == Kind::Dir
    }

    fn is_symlink(&self) -> bool {
        self.0.kind == Kind::Symlink
    }

    /// The same as in `ETag`, without its quotes.
    fn etag(&self) -> Option<String> {
        self.0.hash.clone()
    }

    fn executable(&self) -> FsResult<bool> {
        Ok(self.0.mode & 0o111 != 0)
    }
}

impl DavFile for Made {
    fn metadata(&'_ mut self) -> FsFuture<'_, Box<dyn DavMetaData>> {
        ready(meta(Ok(self.0.clone()))).boxed()
    }

    fn write_buf(&'_ mut self, _: Box<dyn Buf + Send>) -> FsFuture<'_, ()> {
        ready(Err(FsError::NotImplemented)).boxed()
    }

    fn write_bytes(&'_ mut self, _: Bytes) -> FsFuture<'_, ()> {
        ready(Err(FsError::NotImplemented)).boxed()
    }

    fn read_bytes(&'_ mut self, _: usize) -> FsFuture<'_, Bytes> {
        ready(Err(FsError::NotImplemented)).boxed()
    }

    fn seek(&'_ mut self, _: SeekFrom) -> FsFuture<'_, u64> {
        ready(Err(FsError::NotImplemented)).boxed()
    }

    fn flush(&'_ mut self) -> FsFuture<'_, ()> {
        ready(Ok(())).boxed()
    }
}

fn meta(entry: Result<Entry, VfsError>) -> FsResult<Box<dyn DavMetaData>> {
    entry.map(|entry| Box::new(Meta(entry)) as Box<dyn DavMetaData>).map_err(|error| fs_error(&error))
}

fn vfs_path(path: &DavPath) -> FsResult<VfsPath> {
    let text = str::from_utf8(path.as_bytes()).map_err(|_| FsError::NotFound)?;
    VfsPath::parse(text).map_err(|error| fs_error(&error.into()))
}

fn fs_error(error: &VfsError) -> FsError {
    match error {
        VfsError::NotFound { .. } | VfsError::NotADirectory { .. } => FsError::NotFound,
        VfsError::Exists { .. } => FsError::Exists,
        VfsError::Path(_) => FsError::PathTooLong,
        VfsError::IsADirectory { .. } | VfsError::NotEmpty { .. } | VfsError::Invalid { .. } => {
            FsError::Forbidden
        }
        VfsError::LinkLoop { .. } => FsError::LoopDetected,
        VfsError::NoSpace { .. } => FsError::InsufficientStorage,
        VfsError::Unavailable { .. } | VfsError::Io { .. } => FsError::GeneralFailure,
    }
}

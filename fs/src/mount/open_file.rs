//! A file that is open, shared by all of its handles: where its bytes are, and whether the tree has them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::attributes::{Shown, now_ms};
use super::stage::Stage;
use crate::vfs::{Entry, Kind};

/// How a file here stands to the one in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The same.
    Clean,
    /// Changed here.
    Dirty,
    /// Made here; the tree has never heard of it.
    Fresh,
    /// It has no name any more, and will never be in the tree again.
    Removed,
}

/// One open file. Everything about it but its content is at hand without waiting.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) ino: u64,
    state: Mutex<State>,
    /// Held by whoever changes the content or brings it to the tree, which may take long.
    changing: tokio::sync::Mutex<()>,
    /// What was last read from the tree.
    pub(super) window: tokio::sync::Mutex<Option<Window>>,
}

#[derive(Debug)]
struct State {
    standing: Standing,
    size: u64,
    mode: u32,
    mtime_ms: u64,
    /// The content in the tree that is meant while clean.
    hash: Option<String>,
    stage: Option<Stage>,
}

/// What is to be brought to the tree.
#[derive(Debug)]
pub(super) struct Draft {
    /// `None` is an empty file that nobody wrote to.
    pub(super) stage: Option<Stage>,
    pub(super) size: u64,
    /// Only for a new file; the tree knows the mode of others.
    pub(super) mode: Option<u32>,
    pub(super) mtime_ms: u64,
}

/// A part of a file's content in the tree.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) start: u64,
    pub(super) bytes: Bytes,
    /// Of which content.
    pub(super) hash: Option<String>,
}

impl Window {
    /// The byte after the last.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The bytes of `range`, if all of them are here.
    pub(super) fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let is_here = self.start <= range.start && range.end <= self.end();
        is_here
            .then(|| self.bytes.slice((range.start - self.start) as usize..(range.end - self.start) as usize))
    }
}

impl OpenFile {
    /// One that the tree has.
    pub(super) fn known(ino: u64, entry: &Entry) -> Self {
        Self::new(ino, Standing::Clean, Shown::from(entry), entry.hash.clone())
    }

    /// One that is made here.
    pub(super) fn fresh(ino: u64, mode: u32) -> Self {
        let shown = Shown { kind: Kind::File, size: 0, mode, mtime_ms: now_ms(), is_named: true };
        Self::new(ino, Standing::Fresh, shown, None)
    }

    fn new(ino: u64, standing: Standing, shown: Shown, hash: Option<String>) -> Self {
        let Shown { size, mode, mtime_ms, .. } = shown;
        let state = Mutex::new(State { standing, size, mode, mtime_ms, hash, stage: None });
        Self { ino, state, changing: tokio::sync::Mutex::default(), window: tokio::sync::Mutex::default() }
    }

    /// Waits until nobody else changes the file.
    pub(super) async fn change(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looking.
impl OpenFile {
    /// How it is shown, where the tree is not the one to ask.
    pub(super) fn shown(&self) -> Option<Shown> {
        let state = self.state();
        let State { size, mode, mtime_ms, .. } = *state;
        let is_named = state.standing != Standing::Removed;
        let shown = Shown { kind: Kind::File, size, mode, mtime_ms, is_named };
        (state.standing != Standing::Clean).then_some(shown)
    }

    /// Whether the tree has never heard of it.
    pub(super) fn is_fresh(&self) -> bool {
        self.state().standing == Standing::Fresh
    }

    /// Whether it has no name any more.
    pub(super) fn is_removed(&self) -> bool {
        self.state().standing == Standing::Removed
    }

    /// The content, if it is staged.
    pub(super) fn stage(&self) -> Option<Stage> {
        self.state().stage.clone()
    }

    /// Which content of the tree is meant, and its size.
    pub(super) fn version(&self) -> (Option<String>, u64) {
        let state = self.state();
        (state.hash.clone(), state.size)
    }

    /// What the tree does not have yet. (A file that is changed has a stage; without one there is nothing to bring.)
    pub(super) fn draft(&self) -> Option<Draft> {
        let state = self.state();
        let mode = match (state.standing, &state.stage) {
            (Standing::Fresh, _) => Some(state.mode),
            (Standing::Dirty, Some(_)) => None,
            (Standing::Dirty, None) | (Standing::Clean | Standing::Removed, _) => return None,
        };
        Some(Draft { stage: state.stage.clone(), size: state.size, mode, mtime_ms: state.mtime_ms })
    }
}

/// Changing; callers hold [`OpenFile::change`].
impl OpenFile {
    /// The whole content is staged now.
    pub(super) fn staged(&self, stage: Stage, size: u64) {
        let mut state = self.state();
        state.stage = Some(stage);
        state.size = size;
    }

    /// The stage was written up to `end`.
    pub(super) fn written(&self, end: u64) {
        let size = self.state().size;
        self.resized(size.max(end));
    }

    /// The stage has this size now.
    pub(super) fn resized(&self, size: u64) {
        let mut state = self.state();
        state.size = size;
        state.mtime_ms = now_ms();
        if state.standing == Standing::Clean {
            state.standing = Standing::Dirty;
        }
    }

    /// Its attributes were changed.
    pub(super) fn attributed(&self, mode: Option<u32>, mtime_ms: Option<u64>) {
        let mut state = self.state();
        state.mode = mode.unwrap_or(state.mode);
        state.mtime_ms = mtime_ms.unwrap_or(state.mtime_ms);
    }

    /// The tree has all of it now.
    pub(super) fn committed(&self, entry: &Entry) {
        let mut state = self.state();
        state.standing = Standing::Clean;
        (state.mode, state.mtime_ms, state.hash) = (entry.mode, entry.mtime_ms, entry.hash.clone());
    }

    /// It has no name any more.
    pub(super) fn removed(&self) {
        self.state().standing = Standing::Removed;
    }

    /// The tree was asked and said this. What is staged of an older content is dropped, unless somebody is at it.
    pub(super) fn seen(&self, entry: &Entry) {
        let Ok(_changing) = self.changing.try_lock() else { return };
        let mut state = self.state();
        if state.standing != Standing::Clean {
            return;
        }
        if state.hash != entry.hash {
            state.stage = None;
        }
        (state.size, state.hash) = (entry.size, entry.hash.clone());
        (state.mode, state.mtime_ms) = (entry.mode, entry.mtime_ms);
    }
}

/// All open files, each as long as it has handles; how many there are is for the system's limits to say.
#[derive(Debug, Default)]
pub(super) struct OpenFiles(Mutex<HashMap<u64, (Arc<OpenFile>, usize)>>);

impl OpenFiles {
    /// The file, if it is open.
    pub(super) fn get(&self, ino: u64) -> Option<Arc<OpenFile>> {
        self.lock().get(&ino).map(|(file, _)| Arc::clone(file))
    }

    /// One more handle of a file, which may be the first.
    pub(super) fn hold(&self, ino: u64, first: impl FnOnce() -> OpenFile) -> Arc<OpenFile> {
        let mut files = self.lock();
        let (file, handles) = files.entry(ino).or_insert_with(|| (Arc::new(first()), 0));
        *handles += 1;
        Arc::clone(file)
    }

    /// One handle less.
    pub(super) fn let_go(&self, ino: u64) {
        let mut files = self.lock();
        if let Some((_, handles)) = files.get_mut(&ino) {
            *handles -= 1;
            if *handles == 0 {
                files.remove(&ino);
            }
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Arc<OpenFile>> {
        self.lock().values().map(|(file, _)| Arc::clone(file)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Arc<OpenFile>, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(hash: &str, size: u64) -> Entry {
        Entry {
            name: "f".to_owned(),
            kind: Kind::File,
            size,
            mode: 0o644,
            mtime_ms: 1,
            hash: Some(hash.to_owned()),
            target: None,
            inode: "1".to_owned(),
        }
    }

    async fn stage() -> Stage {
        Stage::new(&std::env::temp_dir()).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_written_is_brought_to_the_tree_once() {
        let file = OpenFile::known(2, &entry("a", 3));
        assert!(file.draft().is_none() && file.shown().is_none());
        file.staged(stage().await, 3);
        file.written(10);
        file.written(5);
        assert_eq!(file.shown().unwrap().size, 10);
        let draft = file.draft().unwrap();
        assert_eq!((draft.size, draft.mode), (10, None));
        file.committed(&entry("b", 10));
        assert!(file.draft().is_none() && file.shown().is_none());
        assert!(file.stage().is_some(), "it need not be fetched again");
    }

    #[tokio::test]
    async fn what_another_node_wrote_replaces_the_stage_of_a_file_that_is_not_changed_here() {
        let file = OpenFile::known(2, &entry("a", 3));
        file.staged(stage().await, 3);
        file.seen(&entry("a", 3));
        assert!(file.stage().is_some());
        file.seen(&entry("b", 4));
        assert!(file.stage().is_none());
        file.staged(stage().await, 4);
        file.written(9);
        file.seen(&entry("c", 5));
        assert!(file.stage().is_some(), "what is written here is not lost");
    }

    #[test]
    fn a_file_that_is_made_and_removed_never_reaches_the_tree() {
        let file = OpenFile::fresh(2, 0o600);
        assert_eq!(file.draft().unwrap().mode, Some(0o600));
        file.removed();
        assert!(file.draft().is_none());
        assert!(!file.shown().unwrap().is_named);
    }

    #[test]
    fn a_file_is_held_as_long_as_it_has_handles() {
        let files = OpenFiles::default();
        files.hold(2, || OpenFile::fresh(2, 0o600));
        files.hold(2, || OpenFile::fresh(2, 0o644));
        files.let_go(2);
        assert_eq!(files.get(2).unwrap().shown().unwrap().mode, 0o600, "handles share one file");
        files.let_go(2);
        assert!(files.get(2).is_none() && files.all().is_empty());
    }
}

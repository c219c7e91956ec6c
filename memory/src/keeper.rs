//! Large values: their bytes are put away before a cell speaks of them, and let go of when none does.

use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    blobs::{BlobError, Blobs, ByteStream, stream_of},
    cell::MAX_VALUE,
    clock::now_ms,
    leftovers::{MAX_STASHED, Suspects},
    memory::Memory,
    store::{ReadError, Reference},
    value::{BlobName, Held, Large, MAX_LARGE, Payload, Value},
    writer::WriteError,
};

/// Large values that are held in memory as a whole, all together, in steps of [`STEP`] bytes.
const MAX_WHOLE: u32 = 256;
const STEP: u64 = 1 << 20;
/// How long is waited for room among them.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a value is looked for whose cell is here already: its name may be on its way still.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);
/// How long is waited for what was damaged on this node's disk: the rest of the store is saved first.
const MENDED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How often replaced values are let go of, ...
const TEND_EVERY: Duration = Duration::from_secs(2);
/// ... and how often values that nobody refers to are looked for.
const REVIEW_EVERY: Duration = Duration::from_secs(300);
/// How long a value must have been over before its bytes go: by so much clocks may differ, and more.
const EXPIRY_SLACK: Duration = Duration::from_secs(120);

/// Who keeps large values, and how many are in memory.
#[derive(Debug)]
pub(crate) struct Keeper {
    blobs: RwLock<Option<Weak<dyn Blobs>>>,
    whole: Arc<Semaphore>,
}

impl Default for Keeper {
    fn default() -> Self {
        Self { blobs: RwLock::default(), whole: Arc::new(Semaphore::new(MAX_WHOLE as usize)) }
    }
}

impl Keeper {
    fn blobs(&self) -> Result<Arc<dyn Blobs>, BlobError> {
        let blobs = self.blobs.read().unwrap_or_else(PoisonError::into_inner);
        blobs.as_ref().and_then(Weak::upgrade).ok_or(BlobError::NoKeeper)
    }
}

/// A large value in memory: its room is given back with it.
struct Whole {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Memory {
    /// Has large values kept by `blobs` from now on, for as long as somebody else holds it: it may hold this memory.
    pub fn keep_large_values(&self, blobs: &Arc<dyn Blobs>) {
        let mut slot = self.shared().keeper.blobs.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::downgrade(blobs));
    }

    /// Makes a value of a stream, which is to be written soon. One that is too large for a cell is on this node's disk when
    /// this returns; if it is not written, its bytes go again.
    pub async fn stash(&self, mut content: ByteStream) -> Result<Payload, WriteError> {
        let (mut parts, mut len) = (Vec::new(), 0);
        while let Some(part) = content.try_next().await? {
            len += part.len();
            parts.push(part);
            if len > MAX_VALUE {
                let content = stream::iter(parts.into_iter().map(Ok)).chain(content);
                return self.put_away(content.boxed()).await;
            }
        }
        Ok(Payload(Held::Inline(join(parts))))
    }

    /// The same with bytes that are at hand.
    pub async fn payload(&self, bytes: Bytes) -> Result<Payload, WriteError> {
        match bytes.len() > MAX_VALUE {
            true => self.stash(stream_of(bytes)).await,
            false => Ok(Payload(Held::Inline(bytes))),
        }
    }

    async fn put_away(&self, content: ByteStream) -> Result<Payload, WriteError> {
        let blobs = self.shared().keeper.blobs()?;
        let (sum, counted) = Sum::over(content);
        let name = BlobName::draw();
        let kept = blobs.put(name, counted).await;
        let Sum { hasher, len } = sum.take();
        if len > MAX_LARGE {
            return Err(WriteError::ValueTooLong { len });
        }
        kept?;
        let large = Large { name, len, hash: *hasher.finalize().as_bytes() };
        Ok(Payload(Held::Large { large, since: Instant::now() }))
    }

    /// A value to be written that has the same bytes, without carrying them.
    pub(crate) async fn copy_of(&self, value: Value) -> Result<Payload, WriteError> {
        match value {
            Value::Inline(bytes) => Ok(Payload(Held::Inline(bytes))),
            Value::Large(large) => {
                let name = BlobName::draw();
                self.shared().keeper.blobs()?.copy(large.name, name).await?;
                let since = Instant::now();
                Ok(Payload(Held::Large { large: Large { name, ..large }, since }))
            }
        }
    }

    /// The bytes of a large value, from wherever they are.
    pub async fn open_value(&self, large: &Large) -> Result<ByteStream, ReadError> {
        Ok(self.shared().keeper.blobs()?.fetch(large.name, &large.hash).await?)
    }

    /// The same as one piece. Only so many are in memory at a time; who waits too long for room is told so.
    pub async fn whole_value(&self, value: Value) -> Result<Bytes, ReadError> {
        let large = match value {
            Value::Inline(bytes) => return Ok(bytes),
            Value::Large(large) => large,
        };
        let steps = u32::try_from(large.len.div_ceil(STEP)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared().keeper.whole).acquire_many_owned(steps);
        let room = tokio::time::timeout(PATIENCE, room).await;
        let Ok(Ok(_room)) = room else { return Err(BlobError::Busy.into()) };
        let mut content = self.open_value(&large).await?;
        // Its length was checked when the cell was let in.
        let mut bytes = BytesMut::with_capacity(usize::try_from(large.len).unwrap_or(0));
        while let Some(part) = content.try_next().await? {
            bytes.extend_from_slice(&part);
        }
        Ok(Bytes::from_owner(Whole { bytes: bytes.freeze(), _room }))
    }

    /// Lets go of what was put away and is not written after all.
    pub(crate) fn discard(&self, large: Option<Large>) {
        self.shared().leftovers.offer(large.map(|large| large.name), true);
    }

    /// Lets go of the bytes of values that are gone, for ever.
    pub async fn tend_large_values(&self) {
        let (mut suspects, mut review_at) = (Suspects::default(), Instant::now() + REVIEW_EVERY);
        loop {
            tokio::time::sleep(TEND_EVERY).await;
            let mut gone = self.shared().leftovers.due(Instant::now());
            if Instant::now() >= review_at {
                gone.extend(self.review(&mut suspects).await);
                review_at = Instant::now() + REVIEW_EVERY;
            }
            self.let_go(gone).await;
        }
    }

    /// Those of all blobs that nobody will refer to any more.
    async fn review(&self, suspects: &mut Suspects) -> Vec<BlobName> {
        // What is missing here may be what refers to them.
        let Ok(blobs) = self.shared().keeper.blobs() else { return Vec::new() };
        if !self.is_whole() {
            return Vec::new();
        }
        let names = match blobs.names().await {
            Ok(names) => names,
            Err(error) => {
                tracing::debug!(%error, "cannot tell what large values there are");
                return Vec::new();
            }
        };
        let (mut over, mut unreferred) = (Vec::new(), Vec::new());
        for (name, reference) in self.references(names).await {
            match reference {
                Reference::None => unreferred.push(name),
                Reference::Over => over.push(name),
                Reference::Live => {}
            }
        }
        over.extend(suspects.review(&unreferred, Instant::now(), self.shared().met_all()));
        over
    }

    async fn let_go(&self, names: Vec<BlobName>) {
        let Ok(blobs) = self.shared().keeper.blobs() else { return };
        let references = if names.is_empty() { Vec::new() } else { self.references(names).await };
        for (name, _) in references.into_iter().filter(|(_, reference)| *reference != Reference::Live) {
            if let Err(error) = blobs.remove(name).await {
                tracing::debug!(%error, %name, "the bytes of a value that is gone stay for now");
            }
        }
    }

    /// What the cells of this replica say of these blobs.
    async fn references(&self, names: Vec<BlobName>) -> Vec<(BlobName, Reference)> {
        let shared = Arc::clone(self.shared());
        let slack_ms = u64::try_from(EXPIRY_SLACK.as_millis()).unwrap_or(u64::MAX);
        let at_ms = now_ms().saturating_sub(slack_ms);
        let look = move || {
            // Of what cannot be read nothing is concluded.
            let said = |name| Some((name, shared.store.reference(name, at_ms).ok()?));
            names.into_iter().filter_map(said).collect()
        };
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }
}

/// Waits for a value whose cell is here already: its name may be on its way still. Or it was replaced between the look
/// at the cell and the look for its bytes: then the next look finds what took its place. Or the cell was damaged on this
/// node's disk, and others have it.
pub(crate) struct Arrival(Instant);

impl Arrival {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Whether it is worth another look in a moment.
    pub(crate) fn may_come<T>(&self, outcome: &Result<T, ReadError>) -> bool {
        let within = match outcome {
            Err(ReadError::Blob(BlobError::NotFound)) => ARRIVES_WITHIN,
            Err(error) if error.may_pass() => MENDED_WITHIN,
            Ok(_) | Err(_) => return false,
        };
        self.0.elapsed() < within
    }

    /// Reads, again and again while it may still come.
    pub(crate) async fn wait_for<T>(read: impl Fn() -> Result<T, ReadError>) -> Result<T, ReadError> {
        let arrival = Self::begin();
        loop {
            let outcome = read();
            if !arrival.may_come(&outcome) {
                return outcome;
            }
            Self::pause().await;
        }
    }

    pub(crate) async fn pause() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

impl Payload {
    /// Fails if its bytes were put away so long ago that they may be let go of already.
    pub(crate) fn check_fresh(&self) -> Result<(), WriteError> {
        match &self.0 {
            Held::Large { since, .. } if since.elapsed() > MAX_STASHED => Err(WriteError::Late),
            Held::Large { .. } | Held::Inline(_) => Ok(()),
        }
    }

    /// Where its bytes were put away.
    pub(crate) fn large(&self) -> Option<Large> {
        match &self.0 {
            Held::Large { large, .. } => Some(*large),
            Held::Inline(_) => None,
        }
    }
}

/// What has gone through a stream.
#[derive(Default)]
struct Sum {
    hasher: blake3::Hasher,
    len: u64,
}

/// The sum that a stream adds to.
struct Adding(Arc<std::sync::Mutex<Sum>>);

impl Sum {
    /// A stream of the same bytes that ends with an error where they are too many for a value.
    fn over(content: ByteStream) -> (Adding, ByteStream) {
        let sum = Arc::new(std::sync::Mutex::new(Self::default()));
        let adding = Arc::clone(&sum);
        let counted = content.map(move |part| {
            let part = part?;
            let mut sum = adding.lock().unwrap_or_else(PoisonError::into_inner);
            sum.len += part.len() as u64;
            if sum.len > MAX_LARGE {
                let cause = std::io::Error::from(std::io::ErrorKind::FileTooLarge);
                return Err(BlobError::Failed(Arc::new(cause)));
            }
            sum.hasher.update(&part);
            Ok(part)
        });
        (Adding(sum), counted.boxed())
    }
}

impl Adding {
    fn take(self) -> Sum {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    match parts.len() {
        0 => Bytes::new(),
        1 => parts.swap_remove(0),
        _ => parts.concat().into(),
    }
}

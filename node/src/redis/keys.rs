//! Keys, whatever they hold.

use bytes::Bytes;
use futures::future::poll_immediate;
use starfish_memory::{KeyKind, KeyRange, Space, Value};
use tokio::task::unconstrained;

use super::args::Args;
use super::command::{Access, Command};
use super::cursors::Cursors;
use super::expiry::{self, When};
use super::glob;
use super::pipeline::MAX_KEYS;
use super::refusal::Refusal;
use super::reply::Reply;

/// Keys that one `KEYS` lists. With the longest keys that is 100 MiB; `SCAN` has no such end.
const MAX_LISTED: usize = 100_000;
/// Keys that are read at once for `KEYS` and `DBSIZE`, and by `SCAN` at the most.
pub(super) const MAX_PAGE: usize = 1000;
/// Keys that `SCAN` looks at when nobody says how many.
const DEFAULT_PAGE: usize = 10;

/// A command of keys.
#[derive(Debug)]
pub(super) enum Keys {
    Del(Vec<Bytes>),
    Exists(Vec<Bytes>),
    Kind(Bytes),
    /// From now on; not in the future is at once.
    Expire {
        key: Bytes,
        ms: i64,
        when: When,
    },
    Persist(Bytes),
    /// In units of so many milliseconds.
    Ttl {
        key: Bytes,
        unit_ms: u64,
    },
    List(Bytes),
    Scan {
        scan: Scan,
        kind: Option<Bytes>,
    },
    Size,
}

/// The options that all scans have.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) cursor: u64,
    pub(super) pattern: Option<Bytes>,
    pub(super) count: usize,
}

type Parsed = Result<Command, Refusal>;

impl Keys {
    pub(super) fn del(args: Args) -> Parsed {
        Ok(Command::Keys(Self::Del(args.all())))
    }

    pub(super) fn exists(args: Args) -> Parsed {
        Ok(Command::Keys(Self::Exists(args.all())))
    }

    pub(super) fn kind(mut args: Args) -> Parsed {
        Ok(Command::Keys(Self::Kind(args.next()?)))
    }

    pub(super) fn expire(mut args: Args) -> Parsed {
        let (key, ms) = (args.next()?, expiry::from_now(&mut args, 1000)?);
        Ok(Command::Keys(Self::Expire { key, ms, when: When::read(args)? }))
    }

    pub(super) fn expire_ms(mut args: Args) -> Parsed {
        let (key, ms) = (args.next()?, expiry::from_now(&mut args, 1)?);
        Ok(Command::Keys(Self::Expire { key, ms, when: When::read(args)? }))
    }

    pub(super) fn persist(mut args: Args) -> Parsed {
        Ok(Command::Keys(Self::Persist(args.next()?)))
    }

    pub(super) fn ttl(mut args: Args) -> Parsed {
        Ok(Command::Keys(Self::Ttl { key: args.next()?, unit_ms: 1000 }))
    }

    pub(super) fn ttl_ms(mut args: Args) -> Parsed {
        Ok(Command::Keys(Self::Ttl { key: args.next()?, unit_ms: 1 }))
    }

    pub(super) fn list(mut args: Args) -> Parsed {
        Ok(Command::Keys(Self::List(args.pattern()?)))
    }

    pub(super) fn scan(args: Args) -> Parsed {
        let (scan, kind) = Scan::read(args)?;
        Ok(Command::Keys(Self::Scan { scan, kind }))
    }

    pub(super) fn size(_: Args) -> Parsed {
        Ok(Command::Keys(Self::Size))
    }

    pub(super) fn access(&self) -> Access {
        match self {
            Self::Del(keys) if keys.len() > MAX_KEYS => Access::Alone,
            Self::Del(keys) => Access::Writes(keys.clone(), None),
            Self::Expire { key, .. } | Self::Persist(key) => Access::writes(key, None),
            Self::Exists(keys) => Access::Reads(keys.clone()),
            Self::Kind(key) | Self::Ttl { key, .. } => Access::reads(key),
            Self::List(_) | Self::Scan { .. } | Self::Size => Access::Alone,
        }
    }

    /// Whether it takes more than one job for the writer: then nothing may be begun behind it before it is done.
    pub(super) async fn takes_steps(&self, space: &Space) -> Result<bool, Refusal> {
        Ok(match self {
            // A large value is written anew, from a copy.
            Self::Expire { key, .. } | Self::Persist(key) => {
                matches!(space.value(key).await?, Some(Value::Large(_)))
            }
            _ => false,
        })
    }

    pub(super) async fn run(self, space: &Space, cursors: &Cursors) -> Result<Reply, Refusal> {
        Ok(match self {
            Self::Del(keys) => delete(space, keys).await?,
            Self::Exists(keys) => {
                let mut there = 0;
                for (key, value) in keys.iter().zip(space.values(&keys).await?) {
                    // A value that has come since does not count: others that came with it were not there.
                    let is_there =
                        value.is_some() || space.kind(key).await?.is_some_and(|kind| kind != KeyKind::Value);
                    there += usize::from(is_there);
                }
                Reply::count(there)
            }
            Self::Kind(key) => Reply::Word(space.kind(&key).await?.map_or("none", name)),
            Self::Expire { key, ms, when } => expiry::expire(space, &key, ms, when).await?,
            Self::Persist(key) => expiry::persist(space, &key).await?,
            Self::Ttl { key, unit_ms } => expiry::ttl(space, &key, unit_ms).await?,
            Self::List(pattern) => list(space, &pattern).await?,
            Self::Scan { scan, kind } => scan_keys(space, cursors, scan, kind.as_deref()).await?,
            Self::Size => size(space).await?,
        })
    }
}

impl Scan {
    /// The cursor and what stands behind it; what is given besides is a `TYPE`.
    pub(super) fn read(mut args: Args) -> Result<(Self, Option<Bytes>), Refusal> {
        let cursor = args.next()?;
        let cursor = str::from_utf8(&cursor).ok().and_then(|cursor| cursor.parse().ok());
        let cursor = cursor.ok_or(Refusal::Cursor)?;
        let (mut scan, mut kind) = (Self { cursor, pattern: None, count: DEFAULT_PAGE }, None);
        while let Some(option) = args.option() {
            match option.as_str() {
                "MATCH" => scan.pattern = Some(args.pattern()?),
                "COUNT" => {
                    let count = usize::try_from(args.integer()?).ok().filter(|count| *count > 0);
                    scan.count = count.ok_or(Refusal::Syntax)?.min(MAX_PAGE);
                }
                "TYPE" => kind = Some(args.value()?),
                _ => return Err(Refusal::Syntax),
            }
        }
        Ok((scan, kind))
    }

    pub(super) fn fits(&self, text: &[u8]) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| glob::fits(pattern, text))
    }
}

/// Fails if `key` holds something else than `wanted`.
pub(super) async fn require(space: &Space, key: &[u8], wanted: KeyKind) -> Result<(), Refusal> {
    // Most keys that are written again hold a plain value, and that is known after one look.
    if wanted == KeyKind::Value && space.value(key).await?.is_some() {
        return Ok(());
    }
    match space.kind(key).await? {
        Some(kind) if kind != wanted => Err(Refusal::WrongType),
        _ => Ok(()),
    }
}

fn name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Value => "string",
        KeyKind::Fields => "hash",
        KeyKind::Members => "set",
    }
}

/// All deletions are with the writer before the first of them is waited for.
async fn delete(space: &Space, keys: Vec<Bytes>) -> Result<Reply, Refusal> {
    let mut begun = Vec::with_capacity(keys.len());
    for key in &keys {
        let mut deletion = Box::pin(unconstrained(space.delete(key)));
        let done = poll_immediate(&mut deletion).await;
        begun.push((deletion, done));
    }
    let mut deleted = 0;
    for (deletion, done) in begun {
        let existed = match done {
            Some(done) => done?,
            None => deletion.await?,
        };
        deleted += usize::from(existed);
    }
    Ok(Reply::count(deleted))
}

async fn list(space: &Space, pattern: &[u8]) -> Result<Reply, Refusal> {
    let mut range = KeyRange::prefix(glob::prefix(pattern));
    let mut listed = Vec::new();
    loop {
        let page = space.keys(range.clone(), MAX_PAGE).await?;
        let is_last = page.len() < MAX_PAGE;
        range.after = page.last().map(|(key, _)| key.clone());
        listed.extend(page.into_iter().map(|(key, _)| key).filter(|key| glob::fits(pattern, key)));
        if listed.len() > MAX_LISTED {
            return Err(Refusal::TooManyKeys(MAX_LISTED));
        }
        if is_last {
            return Ok(Reply::Array(Reply::values(listed)));
        }
    }
}

async fn size(space: &Space) -> Result<Reply, Refusal> {
    let (mut range, mut keys) = (KeyRange::default(), 0);
    loop {
        let page = space.keys(range.clone(), MAX_PAGE).await?;
        keys += page.len();
        if page.len() < MAX_PAGE {
            return Ok(Reply::count(keys));
        }
        range.after = page.last().map(|(key, _)| key.clone());
    }
}

async fn scan_keys(
    space: &Space,
    cursors: &Cursors,
    scan: Scan,
    kind: Option<&[u8]>,
) -> Result<Reply, Refusal> {
    let prefix = scan.pattern.as_deref().map(glob::prefix).unwrap_or_default();
    let range = KeyRange { after: cursors.resume(scan.cursor)?, ..KeyRange::prefix(prefix) };
    let page = space.keys(range, scan.count).await?;
    let last = page.last().filter(|_| page.len() == scan.count).map(|(key, _)| key.clone());
    let of_kind = |of: KeyKind| kind.is_none_or(|kind| kind.eq_ignore_ascii_case(name(of).as_bytes()));
    let fitting = page.into_iter().filter(|(key, of)| of_kind(*of) && scan.fits(key)).map(|(key, _)| key);
    Ok(cursors.page(last, Reply::values(fitting)))
}

//! When plain values expire: `EXPIRE`, `PERSIST` and `TTL`, and times as Redis counts them.

use std::cmp::Ordering;
use std::time::Duration;

use starfish_memory::{Change, KeyKind, Lifetime, Space, Value};

use super::args::Args;
use super::clock;
use super::refusal::Refusal;
use super::reply::Reply;

/// On what an `EXPIRE` depends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct When {
    /// Whether there must be an expiry already, or must be none.
    expires: Option<bool>,
    /// How the new one must be to that. A value that does not expire counts as one that does so after all others.
    order: Option<Ordering>,
}

impl When {
    /// The options behind the time.
    pub(super) fn read(mut args: Args) -> Result<Self, Refusal> {
        let mut when = Self::default();
        while let Some(option) = args.option() {
            let (expires, order) = match option.as_str() {
                "NX" => (Some(false), None),
                "XX" => (Some(true), None),
                "GT" => (None, Some(Ordering::Greater)),
                "LT" => (None, Some(Ordering::Less)),
                _ => return Err(Refusal::UnsupportedOption(option)),
            };
            let is_other_order = order.is_some() && when.order.is_some_and(|known| Some(known) != order);
            let is_other_state =
                expires.is_some() && when.expires.is_some_and(|known| Some(known) != expires);
            when = Self { expires: expires.or(when.expires), order: order.or(when.order) };
            if is_other_state || (when.expires == Some(false) && when.order.is_some()) {
                return Err(Refusal::Incompatible("NX and XX, GT or LT"));
            }
            if is_other_order {
                return Err(Refusal::Incompatible("GT and LT"));
            }
        }
        Ok(when)
    }

    fn holds(self, before: Option<u64>, at_ms: u64) -> bool {
        let order = before.map_or(Ordering::Less, |before| at_ms.cmp(&before));
        self.expires.is_none_or(|expires| expires == before.is_some())
            && self.order.is_none_or(|wanted| wanted == order)
    }
}

/// From so many milliseconds, how long something is to count: it must not be over beyond the signed numbers.
pub(super) fn lasting(args: &mut Args, unit_ms: u64) -> Result<Duration, Refusal> {
    let time = until(args, unit_ms)?;
    match in_time(i64::try_from(time.as_millis()).ok()) {
        Some(_) => Ok(time),
        None => Err(Refusal::ExpireTime(args.command())),
    }
}

/// A time that is said in such units since 1970, and not before that.
pub(super) fn until(args: &mut Args, unit_ms: u64) -> Result<Duration, Refusal> {
    let number = args.integer()?;
    let ms = u64::try_from(number).ok().filter(|number| *number > 0);
    let ms = ms.and_then(|number| number.checked_mul(unit_ms)).filter(|ms| i64::try_from(*ms).is_ok());
    ms.map(Duration::from_millis).ok_or(Refusal::ExpireTime(args.command()))
}

/// What `EXPIRE` has behind its key: so many milliseconds from now on, which may be in the past.
pub(super) fn from_now(args: &mut Args, unit_ms: i64) -> Result<i64, Refusal> {
    let ms = args.integer()?.checked_mul(unit_ms);
    ms.filter(|_| in_time(ms).is_some()).ok_or(Refusal::ExpireTime(args.command()))
}

/// When that is.
fn in_time(ms: Option<i64>) -> Option<i64> {
    i64::try_from(clock::now_ms()).ok()?.checked_add(ms?)
}

/// Lets the value of `key` count so long from now on; not in the future is at once.
pub(super) async fn expire(space: &Space, key: &[u8], ms: i64, when: When) -> Result<Reply, Refusal> {
    let at_ms = in_time(Some(ms)).and_then(|at_ms| u64::try_from(at_ms).ok()).unwrap_or(0);
    let lifetime = Lifetime::Until(at_ms);
    let (written, is_large) = space
        .modify(key, move |before| {
            let before = before.filter(|before| when.holds(before.expires_ms, at_ms));
            Ok(match before.map(|before| &before.value) {
                Some(_) if ms <= 0 => (Change::Delete, false),
                Some(Value::Inline(_)) => (Change::Last(lifetime), false),
                Some(Value::Large(_)) => (Change::Keep, true),
                None => (Change::Keep, false),
            })
        })
        .await?;
    let is_done = written.is_some() || (is_large && space.expire(key, lifetime).await?);
    if !is_done && space.kind(key).await?.is_some_and(|kind| kind != KeyKind::Value) {
        return Err(Refusal::NoExpiry);
    }
    Ok(Reply::Integer(is_done.into()))
}

/// Lets the value of `key` last.
pub(super) async fn persist(space: &Space, key: &[u8]) -> Result<Reply, Refusal> {
    let (written, is_large) = space
        .modify(key, |before| {
            let change = match before.filter(|before| before.expires_ms.is_some()).map(|before| &before.value)
            {
                Some(Value::Inline(_)) => (Change::Last(Lifetime::Forever), false),
                Some(Value::Large(_)) => (Change::Keep, true),
                None => (Change::Keep, false),
            };
            Ok(change)
        })
        .await?;
    let lasts = written.is_some() || (is_large && space.expire(key, Lifetime::Forever).await?);
    Ok(Reply::Integer(lasts.into()))
}

/// How long the value of `key` counts yet, in such units.
pub(super) async fn ttl(space: &Space, key: &[u8], unit_ms: u64) -> Result<Reply, Refusal> {
    const NO_EXPIRY: Reply = Reply::Integer(-1);
    const NO_KEY: Reply = Reply::Integer(-2);
    let Some(entry) = space.entry(key).await? else {
        return Ok(if space.kind(key).await?.is_some() { NO_EXPIRY } else { NO_KEY });
    };
    Ok(entry.expires_ms.map_or(NO_EXPIRY, |expires_ms| {
        let left = expires_ms.saturating_sub(clock::now_ms());
        // To the nearest, as Redis has it.
        Reply::Integer(i64::try_from(left.saturating_add(unit_ms / 2) / unit_ms).unwrap_or(i64::MAX))
    }))
}

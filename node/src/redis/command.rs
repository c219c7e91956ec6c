//! What a client may ask for: one table of all commands, from which requests are read and `COMMAND` is answered.

use bytes::Bytes;
use starfish_memory::KeyKind;

use super::args::Args;
use super::channels::Channels;
use super::client::Client;
use super::hashes::Hashes;
use super::keys::Keys;
use super::refusal::Refusal;
use super::reply::Reply;
use super::request::Request;
use super::session::{Catalogue, Session};
use super::sets::Sets;
use super::strings::Strings;

/// A command with all that belongs to it, read and checked.
#[derive(Debug)]
pub(super) enum Command {
    /// Of the connection itself.
    Session(Session),
    /// Of keys, whatever they hold.
    Keys(Keys),
    /// Of plain values.
    Strings(Strings),
    /// Of named fields.
    Hashes(Hashes),
    /// Of members.
    Sets(Sets),
    /// Of messages to all who listen.
    Channels(Channels),
}

/// What a command touches: that decides which commands of a pipeline may be at work together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It reads these keys: what was written to them before must be there.
    Reads(Vec<Bytes>),
    /// It writes to these keys, in jobs that are all with the writer when its future was polled once. They must hold
    /// what is named here, or nothing; if nothing is named, they may hold whatever it is.
    Writes(Vec<Bytes>, Option<KeyKind>),
    /// Everything before it must be done.
    Alone,
}

impl Access {
    pub(super) fn reads(key: &Bytes) -> Self {
        Self::Reads(vec![key.clone()])
    }

    pub(super) fn writes(key: &Bytes, kind: Option<KeyKind>) -> Self {
        Self::Writes(vec![key.clone()], kind)
    }
}

type Parse = fn(Args) -> Result<Command, Refusal>;

/// One command as it stands in the table.
struct Spec {
    name: &'static str,
    /// How many words it has, itself among them; if negative, at least so many.
    arity: i64,
    flag: &'static str,
    /// The places of the first and the last key, and how far it is from one to the next.
    keys: (i64, i64, i64),
    parse: Parse,
}

impl Spec {
    /// Whether it may have so many words, itself among them.
    fn takes(&self, n_words: usize) -> bool {
        let n_words = i64::try_from(n_words).unwrap_or(i64::MAX);
        if self.arity < 0 { n_words >= -self.arity } else { n_words == self.arity }
    }

    /// As `COMMAND` shows it.
    fn row(&self) -> Reply {
        let (first, last, step) = self.keys;
        let places = [first, last, step].map(Reply::Integer);
        let words =
            [Reply::text(self.name), Reply::Integer(self.arity), Reply::Array(vec![Reply::Word(self.flag)])];
        Reply::Array(words.into_iter().chain(places).collect())
    }

    /// The keys that a request of this command names.
    fn keys_in<'a>(&self, request: &'a [Bytes]) -> impl Iterator<Item = &'a Bytes> {
        let (first, last, step) = self.keys;
        let place = |at: i64| usize::try_from(at).unwrap_or(request.len());
        let until = if last < 0 { request.len() } else { place(last) + 1 };
        let n_keys = if first == 0 { 0 } else { until.saturating_sub(place(first)) };
        request.iter().skip(place(first)).take(n_keys).step_by(place(step).max(1))
    }
}

/// Longer than any name.
const MAX_NAME: usize = 16;

const NONE: (i64, i64, i64) = (0, 0, 0);
const ONE: (i64, i64, i64) = (1, 1, 1);
const ALL: (i64, i64, i64) = (1, -1, 1);

const fn spec(
    name: &'static str,
    arity: i64,
    flag: &'static str,
    keys: (i64, i64, i64),
    parse: Parse,
) -> Spec {
    Spec { name, arity, flag, keys, parse }
}

/// All commands, in order.
static TABLE: &[Spec] = &[
    spec("append", 3, "write", ONE, Strings::append),
    spec("auth", -2, "fast", NONE, Session::auth),
    spec("client", -2, "fast", NONE, Client::read),
    spec("command", -1, "fast", NONE, Session::command),
    spec("dbsize", 1, "readonly", NONE, Keys::size),
    spec("decr", 2, "write", ONE, Strings::decr),
    spec("decrby", 3, "write", ONE, Strings::decr_by),
    spec("del", -2, "write", ALL, Keys::del),
    spec("exists", -2, "readonly", ALL, Keys::exists),
    spec("expire", -3, "write", ONE, Keys::expire),
    spec("get", 2, "readonly", ONE, Strings::get),
    spec("getdel", 2, "write", ONE, Strings::get_del),
    spec("hdel", -3, "write", ONE, Hashes::del),
    spec("hello", -1, "fast", NONE, Session::hello),
    spec("hget", 3, "readonly", ONE, Hashes::get),
    spec("hgetall", 2, "readonly", ONE, Hashes::get_all),
    spec("hincrby", 4, "write", ONE, Hashes::incr_by),
    spec("hlen", 2, "readonly", ONE, Hashes::len),
    spec("hmget", -3, "readonly", ONE, Hashes::get_many),
    spec("hscan", -3, "readonly", ONE, Hashes::scan),
    spec("hset", -4, "write", ONE, Hashes::set),
    spec("incr", 2, "write", ONE, Strings::incr),
    spec("incrby", 3, "write", ONE, Strings::incr_by),
    spec("incrbyfloat", 3, "write", ONE, Strings::incr_by_float),
    spec("info", -1, "readonly", NONE, Session::info),
    spec("keys", 2, "readonly", NONE, Keys::list),
    spec("mget", -2, "readonly", ALL, Strings::get_many),
    spec("mset", -3, "write", (1, -1, 2), Strings::set_many),
    spec("persist", 2, "write", ONE, Keys::persist),
    spec("pexpire", -3, "write", ONE, Keys::expire_ms),
    spec("ping", -1, "fast", NONE, Session::ping),
    spec("psubscribe", -2, "pubsub", NONE, Channels::subscribe_patterns),
    spec("pttl", 2, "readonly", ONE, Keys::ttl_ms),
    spec("publish", 3, "pubsub", NONE, Channels::publish),
    spec("punsubscribe", -1, "pubsub", NONE, Channels::unsubscribe_patterns),
    spec("quit", -1, "fast", NONE, Session::quit),
    spec("sadd", -3, "write", ONE, Sets::add),
    spec("scan", -2, "readonly", NONE, Keys::scan),
    spec("scard", 2, "readonly", ONE, Sets::len),
    spec("select", 2, "fast", NONE, Session::select),
    spec("set", -3, "write", ONE, Strings::set),
    spec("sismember", 3, "readonly", ONE, Sets::is_member),
    spec("smembers", 2, "readonly", ONE, Sets::members),
    spec("srem", -3, "write", ONE, Sets::remove),
    spec("strlen", 2, "readonly", ONE, Strings::len),
    spec("subscribe", -2, "pubsub", NONE, Channels::subscribe),
    spec("ttl", 2, "readonly", ONE, Keys::ttl),
    spec("type", 2, "readonly", ONE, Keys::kind),
    spec("unsubscribe", -1, "pubsub", NONE, Channels::unsubscribe),
];

impl Command {
    /// Reads a request. With the command comes its name, as the table has it.
    pub(super) fn parse(request: Request) -> Result<(&'static str, Self), Refusal> {
        let Some(spec) = request.first().and_then(|name| find(name)) else {
            return Err(Refusal::unknown_command(&request));
        };
        if !spec.takes(request.len()) {
            return Err(Refusal::Arity(spec.name));
        }
        // What versions before this one let in can still be deleted.
        if spec.name != "del" && spec.keys_in(&request).any(Bytes::is_empty) {
            return Err(Refusal::Empty("key"));
        }
        Ok((spec.name, (spec.parse)(Args::new(spec.name, request))?))
    }
}

fn find(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0; MAX_NAME];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let at = TABLE.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
    TABLE.get(at)
}

/// What `COMMAND` tells.
pub(super) fn described(what: Catalogue) -> Result<Reply, Refusal> {
    Ok(match what {
        Catalogue::All => Reply::Array(TABLE.iter().map(Spec::row).collect()),
        Catalogue::Count => Reply::count(TABLE.len()),
        Catalogue::Docs => Reply::Map(Vec::new()),
        Catalogue::Names => Reply::Array(TABLE.iter().map(|spec| Reply::text(spec.name)).collect()),
        Catalogue::Info(names) => {
            Reply::Array(names.iter().map(|name| find(name).map_or(Reply::Null, Spec::row)).collect())
        }
        Catalogue::Keys(request) => Reply::Array(Reply::values(keys_of(&request)?)),
    })
}

fn keys_of(request: &[Bytes]) -> Result<Vec<Bytes>, Refusal> {
    let spec = request.first().and_then(|name| find(name)).ok_or(Refusal::NoSuchCommand)?;
    if !spec.takes(request.len()) {
        return Err(Refusal::NoSuchArguments);
    }
    let keys: Vec<Bytes> = spec.keys_in(request).cloned().collect();
    if keys.is_empty() { Err(Refusal::NoKeys) } else { Ok(keys) }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn refused(line: &str) -> String {
        let request = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        match Command::parse(request) {
            Ok((name, command)) => panic!("{name}: {command:?}"),
            Err(refusal) => refusal.to_string(),
        }
    }

    #[test]
    fn the_table_is_in_order_and_no_name_is_too_long() {
        assert!(TABLE.is_sorted_by(|a, b| a.name < b.name));
        for spec in TABLE {
            assert!(spec.name.len() <= MAX_NAME);
            assert!(std::ptr::eq(find(spec.name.to_uppercase().as_bytes()).unwrap(), spec));
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_redis_own_words() {
        for (line, words) in [
            ("FLUSHALL", "ERR unknown command 'FLUSHALL', with args beginning with: "),
            ("foo a b", "ERR unknown command 'foo', with args beginning with: 'a' 'b' "),
            (
                "a-name-longer-than-any",
                "ERR unknown command 'a-name-longer-than-any', with args beginning with: ",
            ),
            ("GET", "ERR wrong number of arguments for 'get' command"),
            ("get a b", "ERR wrong number of arguments for 'get' command"),
            ("MSET a 1 b", "ERR wrong number of arguments for 'mset' command"),
            ("HSET h a 1 b", "ERR wrong number of arguments for 'hset' command"),
            ("SET a 1 HOW", "ERR syntax error"),
            ("SET a 1 NX XX", "ERR syntax error"),
            ("SET a 1 EX 1 PX 1", "ERR syntax error"),
            ("SET a 1 EX", "ERR syntax error"),
            ("SET a 1 EX x", "ERR value is not an integer or out of range"),
            ("SET a 1 EX 0", "ERR invalid expire time in 'set' command"),
            ("SET a 1 EX 9223372036854775807", "ERR invalid expire time in 'set' command"),
            ("INCRBY a 9223372036854775808", "ERR value is not an integer or out of range"),
            ("DECRBY a -9223372036854775808", "ERR increment or decrement would overflow"),
            ("INCRBYFLOAT a x", "ERR value is not a valid float"),
            ("SET a 1 PX 9223372036854775807", "ERR invalid expire time in 'set' command"),
            ("EXPIRE a 9223372036854775", "ERR invalid expire time in 'expire' command"),
            ("EXPIRE a -9223372036854776", "ERR invalid expire time in 'expire' command"),
            ("PEXPIRE a 9223372036854775807", "ERR invalid expire time in 'pexpire' command"),
            ("EXPIRE a 1 YX", "ERR Unsupported option YX"),
            ("EXPIRE a 1 NX XX", "ERR NX and XX, GT or LT options at the same time are not compatible"),
            ("EXPIRE a 1 LT NX", "ERR NX and XX, GT or LT options at the same time are not compatible"),
            ("EXPIRE a 1 XX GT LT", "ERR GT and LT options at the same time are not compatible"),
            ("EXPIRE a soon", "ERR value is not an integer or out of range"),
            ("SCAN x", "ERR invalid cursor: it is none, or so old that it was forgotten; begin again with 0"),
            ("SCAN 0 COUNT 0", "ERR syntax error"),
            ("SELECT 1", "ERR DB index is out of range"),
            ("GET ", "ERR a key must not be empty"),
            ("MGET a ", "ERR a key must not be empty"),
            ("MSET a 1  2", "ERR a key must not be empty"),
            ("SADD s a ", "ERR a member must not be empty"),
            ("SISMEMBER s ", "ERR a member must not be empty"),
            ("HSET h a 1  2", "ERR a field must not be empty"),
            ("HMGET h ", "ERR a field must not be empty"),
            ("COMMAND COUNT x", "ERR wrong number of arguments for 'command' command"),
            ("COMMAND nonsense", "ERR unknown subcommand 'NONSENSE' of 'command'"),
            ("HELLO 4", "NOPROTO unsupported protocol version"),
        ] {
            assert_eq!(refused(line), words, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_arguments_make_it_panic(
            spec in 0..TABLE.len(),
            words in vec(prop_oneof![
                Just(Vec::new()), vec(any::<u8>(), 0..6), "[-0-9.e]{1,20}".prop_map(String::into_bytes),
                "(?i)(nx|xx|get|ex|px|keepttl|match|count|type|auth)".prop_map(String::into_bytes),
            ], 0..7),
        ) {
            let name = Bytes::from_static(TABLE[spec].name.as_bytes());
            let request = std::iter::once(name).chain(words.into_iter().map(Bytes::from)).collect();
            let _ = Command::parse(request);
        }
    }
}

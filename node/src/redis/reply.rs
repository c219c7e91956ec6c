//! What a client is answered, and how that looks in each version of the protocol.

use bytes::{Bytes, BytesMut};
use redis_protocol::error::RedisProtocolError;
use redis_protocol::resp2::types::BytesFrame as Frame2;
use redis_protocol::resp3::types::BytesFrame as Frame3;
use redis_protocol::{resp2, resp3};

/// The version of the protocol that a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Protocol {
    /// What every client speaks until it says `HELLO 3`.
    #[default]
    Resp2,
    /// It has maps, sets and messages that are no answers.
    Resp3,
}

/// An answer, or a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// A word of Redis' own.
    Word(&'static str),
    /// What went wrong; the first word says of what kind that is.
    Error(String),
    Integer(i64),
    Bytes(Bytes),
    /// There is no such thing.
    Null,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Set(Vec<Reply>),
    /// A message of a channel, or what comes of subscribing: in RESP3 it is no answer.
    Push(Vec<Reply>),
    /// As many answers as a client waits for that subscribed to as many channels.
    Several(Vec<Reply>),
}

impl Reply {
    pub(super) const OK: Self = Self::Word("OK");

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Bytes(text.into().into())
    }

    /// How many there are of something.
    pub(super) fn count(count: usize) -> Self {
        Self::Integer(i64::try_from(count).unwrap_or(i64::MAX))
    }

    pub(super) fn length(length: u64) -> Self {
        Self::Integer(i64::try_from(length).unwrap_or(i64::MAX))
    }

    /// A value, if there is one.
    pub(super) fn value(value: Option<Bytes>) -> Self {
        value.map_or(Self::Null, Self::Bytes)
    }

    pub(super) fn values(values: impl IntoIterator<Item = Bytes>) -> Vec<Self> {
        values.into_iter().map(Self::Bytes).collect()
    }

    /// About how much memory it takes.
    pub(super) fn weight(&self) -> usize {
        let of = |replies: &[Self]| replies.iter().map(Self::weight).sum();
        let more: usize = match self {
            Self::Word(_) | Self::Integer(_) | Self::Null => 0,
            Self::Error(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Array(inner) | Self::Set(inner) | Self::Push(inner) | Self::Several(inner) => of(inner),
            Self::Map(pairs) => pairs.iter().map(|(key, value)| key.weight() + value.weight()).sum(),
        };
        size_of::<Self>() + more
    }

    /// Writes it behind what is in `out`.
    pub(super) fn encode(self, protocol: Protocol, out: &mut BytesMut) -> Result<(), RedisProtocolError> {
        match (self, protocol) {
            (Self::Several(replies), _) => {
                replies.into_iter().try_for_each(|reply| reply.encode(protocol, out))
            }
            (reply, Protocol::Resp2) => resp2::encode::extend_encode(out, &reply.frame2(), false).map(drop),
            (reply, Protocol::Resp3) => {
                resp3::encode::complete::extend_encode(out, &reply.frame3(), false).map(drop)
            }
        }
    }

    fn frame2(self) -> Frame2 {
        let all = |replies: Vec<Self>| Frame2::Array(replies.into_iter().map(Self::frame2).collect());
        match self {
            Self::Word(word) => Frame2::SimpleString(Bytes::from_static(word.as_bytes())),
            Self::Error(text) => Frame2::Error(one_line(text).into()),
            Self::Integer(integer) => Frame2::Integer(integer),
            Self::Bytes(bytes) => Frame2::BulkString(bytes),
            Self::Null => Frame2::Null,
            Self::Array(inner) | Self::Set(inner) | Self::Push(inner) | Self::Several(inner) => all(inner),
            Self::Map(pairs) => all(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect()),
        }
    }

    fn frame3(self) -> Frame3 {
        let attributes = None;
        let all = |replies: Vec<Self>| replies.into_iter().map(Self::frame3);
        match self {
            Self::Word(word) => {
                Frame3::SimpleString { data: Bytes::from_static(word.as_bytes()), attributes }
            }
            Self::Error(text) => Frame3::SimpleError { data: one_line(text).into(), attributes },
            Self::Integer(data) => Frame3::Number { data, attributes },
            Self::Bytes(data) => Frame3::BlobString { data, attributes },
            Self::Null => Frame3::Null,
            Self::Array(inner) | Self::Several(inner) => {
                Frame3::Array { data: all(inner).collect(), attributes }
            }
            Self::Set(inner) => Frame3::Set { data: all(inner).collect(), attributes },
            Self::Push(inner) => Frame3::Push { data: all(inner).collect(), attributes },
            Self::Map(pairs) => {
                let pairs = pairs.into_iter().map(|(key, value)| (key.frame3(), value.frame3()));
                Frame3::Map { data: pairs.collect(), attributes }
            }
        }
    }
}

/// Errors end with their line, and some of them repeat what a client sent.
fn one_line(text: String) -> String {
    match text.contains(['\r', '\n']) {
        true => text.replace(['\r', '\n'], " "),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(reply: Reply, protocol: Protocol) -> String {
        let mut out = BytesMut::new();
        reply.encode(protocol, &mut out).unwrap();
        String::from_utf8(out.to_vec()).unwrap().replace("\r\n", " ")
    }

    #[test]
    fn both_versions_look_as_they_should() {
        let both = |reply: Reply| (shown(reply.clone(), Protocol::Resp2), shown(reply, Protocol::Resp3));
        let pair = |two: &str, three: &str| (two.to_owned(), three.to_owned());
        let (a, one) = (|| Reply::text("a"), || Reply::Integer(1));
        assert_eq!(both(Reply::OK), pair("+OK ", "+OK "));
        assert_eq!(both(one()), pair(":1 ", ":1 "));
        assert_eq!(both(a()), pair("$1 a ", "$1 a "));
        assert_eq!(both(Reply::Null), pair("$-1 ", "_ "));
        assert_eq!(both(Reply::Error("ERR a\r\nb".into())), pair("-ERR a  b ", "-ERR a  b "));
        assert_eq!(both(Reply::Array(vec![a(), one()])), pair("*2 $1 a :1 ", "*2 $1 a :1 "));
        assert_eq!(both(Reply::Map(vec![(a(), one())])), pair("*2 $1 a :1 ", "%1 $1 a :1 "));
        assert_eq!(both(Reply::Set(vec![a()])), pair("*1 $1 a ", "~1 $1 a "));
        assert_eq!(both(Reply::Push(vec![a()])), pair("*1 $1 a ", ">1 $1 a "));
        assert_eq!(both(Reply::Several(vec![a(), one()])), pair("$1 a :1 ", "$1 a :1 "));
    }
}

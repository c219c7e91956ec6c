//! Keys and values as JSON. Both are any bytes: keys are percent-encoded, as in URLs, and values are base64.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::percent;

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValueBody {
    /// The key.
    #[serde(with = "as_percent")]
    pub key: Bytes,
    /// The value; missing if it is too large to stand among others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Base64>,
    /// Then how long it is, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// One key with what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyKindBody {
    /// The key.
    #[serde(with = "as_percent")]
    pub key: Bytes,
    /// `value` (a plain value or counter), `fields` (a hash) or `members` (a set).
    pub kind: String,
    /// The plain value; missing if it is too large to stand among others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Base64>,
    /// Then how long it is, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// One version of a value or field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionBody {
    /// Its name.
    pub version: String,
    /// When it was written, in Unix milliseconds.
    pub at_ms: u64,
    /// Who wrote it: the second half of its name.
    pub author: String,
    /// How long it is, in bytes; missing if it was deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Whether it is what the key or field is worth now.
    pub current: bool,
    /// Whether the current one was written without knowledge of it, and the other way round.
    pub conflict: bool,
}

/// `POST /api/v1/mem/{space}/{key}/restore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreValueRequest {
    /// The version.
    pub version: String,
    /// Of which field; of the plain value if it is empty or missing.
    #[serde(with = "as_percent", default)]
    pub field: Bytes,
}

/// What a space is asked to do: `/api/v1/spaces/{space}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceBody {
    /// Its name.
    pub space: String,
    /// Versions of each value and field that are kept, the current one among them.
    pub versions: u16,
    /// How long a version counts after it was replaced, in milliseconds; for good if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_ms: Option<u64>,
}

/// `POST /api/v1/mem/{space}/{key}/incr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncrementRequest {
    /// What to add; may be negative.
    #[serde(default = "one")]
    pub by: i64,
}

/// The counter after an increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// As this node knows it.
    pub value: i64,
}

/// A named field of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldBody {
    /// Its name.
    #[serde(with = "as_percent")]
    pub field: Bytes,
    /// Its value; missing if it is too large to stand among others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Base64>,
    /// Then how long it is, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A member of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberBody {
    /// The member.
    #[serde(with = "as_percent")]
    pub member: Bytes,
}

/// `POST /api/v1/mem/{space}/{key}/members`: all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MembersRequest {
    /// Those to add.
    #[serde(default)]
    pub add: Vec<NameBody>,
    /// Those to remove; one that is among both is removed.
    #[serde(default)]
    pub remove: Vec<NameBody>,
}

/// What that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersChanged {
    /// How many are new.
    pub added: u64,
    /// How many were members and are not any more.
    pub removed: u64,
}

/// `POST /api/v1/mem/{space}/{key}/fields`: all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldsRequest {
    /// Those to delete.
    pub delete: Vec<NameBody>,
}

/// What that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldsChanged {
    /// How many there were.
    pub deleted: u64,
}

/// A member or field, percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NameBody(#[serde(with = "as_percent")] pub Bytes);

/// One write of `POST /api/v1/mem/{space}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteBody {
    /// The key.
    #[serde(with = "as_percent")]
    pub key: Bytes,
    /// The field; the plain value if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<NameBody>,
    /// The value; without one, what is there is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Base64>,
}

/// Any bytes, in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Base64(#[serde(with = "as_base64")] pub Bytes);

/// `POST /api/v1/mem/{space}/{key}/expire`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpireRequest {
    /// The value is gone after so many milliseconds; without, it lasts.
    #[serde(default)]
    pub ttl_ms: Option<u64>,
}

/// Whether a write changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Whether it did.
    pub changed: bool,
}

/// How long a value is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Length {
    /// How long.
    pub length: u64,
}

/// Whether there was something to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Whether there was.
    pub deleted: bool,
}

/// One event of `GET /api/v1/watch/{space}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum WatchEvent {
    /// The key has this value, from before the watch began or from now on.
    Value {
        /// The key.
        #[serde(with = "as_percent")]
        key: Bytes,
        /// The value.
        #[serde(with = "as_base64")]
        value: Bytes,
    },
    /// The key has a value that is too large to be told.
    Large {
        /// The key.
        #[serde(with = "as_percent")]
        key: Bytes,
        /// How long it is, in bytes.
        bytes: u64,
    },
    /// The key has no plain value any more. Its fields and members are told one by one.
    Deleted {
        /// The key.
        #[serde(with = "as_percent")]
        key: Bytes,
    },
    /// The key's field has this value, from before the watch began or from now on.
    Field {
        /// The key.
        #[serde(with = "as_percent")]
        key: Bytes,
        /// The field.
        #[serde(with = "as_percent")]
        field: Bytes,
        /// Its value.
        #[serde(with = "as_base64")]
        value: Bytes,
    },
    /// The key's field has a value that is too large to be told.
    #[serde(rename = "large-field")]
    LargeField {
        /// The key.
        #[serde(with = "as_percent")]
        key: Bytes,
        /// The field.
        #[serde(with = "as_percent")]
        field: Bytes,
        /// How long the value is, in bytes.
        bytes: u64,
    },
    /// The key has no such field any more.
    #[serde(rename = "field-deleted")]
    FieldDeleted {
        /// The key.
        #[serde(with = "as_percent")]
        key: Bytes,
        /// The field.
        #[serde(with = "as_percent")]
        field: Bytes,
    },
    /// The key has this member, from before the watch began or from now on.
    Member {
        /// The key.
        #[serde(with = "as_percent")]
        key: Bytes,
        /// The member.
        #[serde(with = "as_percent")]
        member: Bytes,
    },
    /// The key does not have this member any more.
    #[serde(rename = "member-removed")]
    MemberRemoved {
        /// The key.
        #[serde(with = "as_percent")]
        key: Bytes,
        /// The member.
        #[serde(with = "as_percent")]
        member: Bytes,
    },
    /// All that was there has been told; what follows are changes.
    Live,
    /// The watcher was too slow and missed events: what it knows may be out of date.
    Lagged,
}

const fn one() -> i64 {
    1
}

mod as_percent {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&percent::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        percent::decode(&text).map(Bytes::from).ok_or_else(|| D::Error::custom("a broken % escape"))
    }
}

mod as_base64 {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::BASE64.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        data_encoding::BASE64.decode(text.as_bytes()).map(Bytes::from).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive() {
        let event =
            WatchEvent::Value { key: Bytes::from_static(b"a/\xff"), value: Bytes::from_static(b"\0\xfe") };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"event":"value","key":"a%2F%FF","value":"AP4="}"#);
        assert_eq!(serde_json::from_str::<WatchEvent>(&json).unwrap(), event);
        let event =
            WatchEvent::FieldDeleted { key: Bytes::from_static(b"k"), field: Bytes::from_static(b"\xff") };
        let json = serde_json::to_string(&event).unwrap();
        assert_eq!(json, r#"{"event":"field-deleted","key":"k","field":"%FF"}"#);
        assert_eq!(serde_json::from_str::<WatchEvent>(&json).unwrap(), event);
    }
}

//! `starfish mem watch`: each event as a line of JSON.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::Value;
use starfish_node::ClientError;
use starfish_node::client::RemoteSpace;
use starfish_node::wire::{Base64, WatchEvent};
use tokio::io::AsyncWriteExt;

use super::Context;

/// Prints what there is and what comes, until the node goes away.
pub(super) async fn run(
    context: &mut Context,
    space: &RemoteSpace,
    prefix: &str,
    with_cursors: bool,
    from: Option<&str>,
) -> anyhow::Result<()> {
    let mut watch = space.watch_from(prefix.as_bytes(), from).await?;
    while let Some(event) = watch.next().await? {
        // Without cursors nobody needs to know when all has been told.
        if event == WatchEvent::Live && !with_cursors {
            continue;
        }
        let mut line = line(event);
        if let Some(cursor) = watch.cursor().filter(|_| with_cursors) {
            line.0.push(said("cursor", cursor));
        }
        context.print(harmless(&serde_json::to_string(&line)?)).await?;
        context.io.stdout.flush().await?;
    }
    // A watch has no end of its own: who counts on it must not take this for one.
    let data_dir = context.client.data_dir().path().to_owned();
    Err(ClientError::Interrupted { data_dir, source: "the node ended the watch".into() }.into())
}

/// A JSON object, in this order.
struct Line(Vec<(String, Value)>);

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

fn line(event: WatchEvent) -> Line {
    match event {
        WatchEvent::Value { key, value } => object([text("key", key), text("value", value)]),
        WatchEvent::Large { key, bytes } => object([text("key", key), said("bytes", bytes)]),
        WatchEvent::Deleted { key } => object([text("key", key), said("deleted", true)]),
        WatchEvent::Field { key, field, value } => {
            object([text("key", key), text("field", field), text("value", value)])
        }
        WatchEvent::LargeField { key, field, bytes } => {
            object([text("key", key), text("field", field), said("bytes", bytes)])
        }
        WatchEvent::FieldDeleted { key, field } => {
            object([text("key", key), text("field", field), said("deleted", true)])
        }
        WatchEvent::Member { key, member } => object([text("key", key), text("member", member)]),
        WatchEvent::MemberRemoved { key, member } => {
            object([text("key", key), text("member", member), said("removed", true)])
        }
        WatchEvent::Live => object([said("live", true)]),
        WatchEvent::Lagged => object([said("lagged", true)]),
    }
}

fn object<const N: usize>(pairs: [(String, Value); N]) -> Line {
    Line(pairs.into())
}

fn said(name: &str, value: impl Into<Value>) -> (String, Value) {
    (name.to_owned(), value.into())
}

/// Text as it is, other bytes in base64 and under a name that says so.
fn text(name: &str, bytes: Bytes) -> (String, Value) {
    match str::from_utf8(&bytes) {
        Ok(text) => said(name, text),
        Err(_) => said(&format!("{name}_base64"), serde_json::to_value(Base64(bytes)).unwrap_or_default()),
    }
}

/// JSON has newlines and the like escaped, but not the control characters beyond ASCII, which would disturb a terminal.
fn harmless(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        match character.is_control() {
            true => shown.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &'static [u8]) -> String {
        let event = WatchEvent::Value { key: "k".into(), value: Bytes::from_static(value) };
        harmless(&serde_json::to_string(&line(event)).unwrap())
    }

    #[test]
    fn text_is_escaped_once_and_bytes_are_told_as_such() {
        assert_eq!(shown(b"a\nb\"\\"), r#"{"key":"k","value":"a\nb\"\\"}"#);
        assert_eq!(shown("grün \u{9b}".as_bytes()), r#"{"key":"k","value":"grün \u009b"}"#);
        assert_eq!(shown(b"\xff\x00"), r#"{"key":"k","value_base64":"/wA="}"#);
    }
}

//! `starfish mem batch`: writes that come as lines of JSON, of which all are made or none.

use anyhow::Context as _;
use serde::Deserialize;
use starfish_node::client::RemoteSpace;
use starfish_node::wire::{Base64, NameBody, WriteBody};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Context;

/// The longest input, in bytes: twice what the node takes at once, for names, quotes and escapes. It is held in memory.
const MAX_TEXT: u64 = 8 << 20;

/// A line of a batch, in text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    key: String,
    /// Of the plain value if it is missing.
    field: Option<String>,
    value: Option<String>,
}

/// Makes the writes that standard input names.
pub(super) async fn run(context: &mut Context, space: &RemoteSpace) -> anyhow::Result<()> {
    let writes = writes_in(&whole(&mut context.io.stdin).await?)?;
    Ok(space.write(&writes).await?)
}

/// All that comes. What is cut short would be another batch than the one that was meant.
async fn whole(input: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<String> {
    let mut text = Vec::new();
    input.take(MAX_TEXT + 1).read_to_end(&mut text).await?;
    anyhow::ensure!(
        text.len() as u64 <= MAX_TEXT,
        "the batch is too large: it has more than {MAX_TEXT} bytes. Write it in parts"
    );
    String::from_utf8(text).context("the batch is not UTF-8")
}

fn writes_in(text: &str) -> anyhow::Result<Vec<WriteBody>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let writes = lines.map(|(number, line)| write_in(line).with_context(|| format!("line {}", number + 1)));
    writes.collect()
}

fn write_in(line: &str) -> anyhow::Result<WriteBody> {
    let Write { key, field, value } = serde_json::from_str(line)?;
    let value = value.map(|value| Base64(value.into()));
    anyhow::ensure!(field.as_deref() != Some(""), "a field must not be empty");
    Ok(WriteBody { key: key.into(), field: field.map(|field| NameBody(field.into())), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str) -> anyhow::Result<Vec<WriteBody>> {
        writes_in(&whole(&mut text.as_bytes()).await?)
    }

    #[tokio::test]
    async fn a_batch_is_read_whole_or_not_at_all() {
        let line = |number| format!("{:<4095}\n", format!(r#"{{"key":"cut/{number:05}","value":"x"}}"#));
        let lines = |count| (0..count).map(line).collect::<String>();
        assert_eq!(read(&lines(2048)).await.unwrap().len(), 2048);
        for too_much in [lines(2048) + "\n", lines(2300), "x".repeat(9 << 20), "ä".repeat(5 << 20)] {
            let refused = read(&too_much).await.unwrap_err().to_string();
            assert!(refused.contains("too large: it has more than 8388608 bytes"), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_line_that_makes_no_sense_is_named() {
        let refused = read("{\"key\":\"a\",\"value\":\"1\"}\n\n{\"kee\":1}\n").await.unwrap_err();
        assert_eq!(refused.to_string(), "line 3");
    }

    #[tokio::test]
    async fn a_field_that_is_missing_is_the_plain_value_and_one_that_is_empty_a_mistake() {
        assert_eq!(read(r#"{"key":"a","value":"1"}"#).await.unwrap()[0].field, None);
        let refused = read(r#"{"key":"a","field":"","value":"2"}"#).await.unwrap_err();
        assert_eq!(format!("{refused:#}"), "line 1: a field must not be empty");
    }
}

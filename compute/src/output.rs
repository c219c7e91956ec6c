//! What a job says, kept by its keeper: written by one attempt after the other, read by any number of clients.
//!
//! Tasks are pure, so a second attempt says what the first one said. What readers were already given is not
//! written again but compared, by hash, so that the output goes on exactly where it broke off; a task that
//! says something else the second time is found out, instead of being stitched together.

use std::path::PathBuf;

use bytes::Bytes;
use tokio::sync::{Mutex, watch};

use crate::spool::{End, Spool, SpoolReader};
use crate::task::{Digest, Outcome, OutputFrame};
use crate::wire::CHUNK;

/// Kind and length in front of every piece in the file.
const HEADER: usize = 5;

/// Which of the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout = 0,
    Stderr = 1,
}

/// Why output was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    #[error("another attempt has begun")]
    Stale,
    #[error("it printed more than its limit allows")]
    TooMuch,
    #[error("it is not pure: it was run again, and its standard {0} differs from the first time")]
    Differs(&'static str),
    #[error("the output cannot be kept")]
    Disk(#[from] std::io::Error),
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Output {
    spool: Spool,
    limit: u64,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    attempt: u32,
    streams: [Progress; 2],
}

/// One stream: what readers have, and how far the current attempt is.
#[derive(Debug, Default)]
struct Progress {
    kept: u64,
    kept_hash: Option<blake3::Hash>,
    seen: u64,
    hasher: blake3::Hasher,
}

impl Output {
    pub(crate) async fn create(path: PathBuf, limit: u64) -> std::io::Result<Self> {
        Ok(Self { spool: Spool::create(path).await?, limit, said: Mutex::default() })
    }

    /// From now on, only this attempt is listened to.
    pub(crate) async fn begin(&self, attempt: u32) {
        let mut said = self.said.lock().await;
        said.attempt = said.attempt.max(attempt);
        said.streams.iter_mut().for_each(Progress::restart);
    }

    /// Takes a piece from an attempt.
    pub(crate) async fn append(&self, attempt: u32, stream: Stream, bytes: Bytes) -> Result<(), OutputError> {
        let mut said = self.said.lock().await;
        if said.attempt != attempt {
            return Err(OutputError::Stale);
        }
        let new = said.streams[stream as usize].advance(bytes).ok_or(OutputError::Differs(stream.name()))?;
        if said.streams.iter().map(|stream| stream.seen).sum::<u64>() > self.limit {
            return Err(OutputError::TooMuch);
        }
        for start in (0..new.len()).step_by(CHUNK) {
            let piece = &new[start..new.len().min(start + CHUNK)];
            let length = u32::try_from(piece.len()).map_err(std::io::Error::other)?;
            let record = [&[stream as u8][..], &length.to_be_bytes(), piece].concat();
            self.spool.append(&record).await?;
        }
        Ok(())
    }

    /// The attempt has said everything: what it said on each stream, by hash.
    pub(crate) async fn finish(&self, attempt: u32) -> Result<[Digest; 2], OutputError> {
        let said = self.said.lock().await;
        if said.attempt != attempt {
            return Err(OutputError::Stale);
        }
        for (progress, stream) in said.streams.iter().zip([Stream::Stdout, Stream::Stderr]) {
            if progress.seen < progress.kept {
                return Err(OutputError::Differs(stream.name()));
            }
        }
        Ok(said.streams.each_ref().map(|progress| Digest(*progress.hasher.finalize().as_bytes())))
    }

    /// Nothing more comes, from anybody.
    pub(crate) fn end(&self) {
        self.spool.end(End::Complete);
    }

    /// Bytes on the disk.
    pub(crate) fn size(&self) -> u64 {
        self.spool.level().length
    }

    /// Reads it from the beginning. `outcome` is where the job's end will be.
    pub(crate) async fn read(
        &self,
        outcome: watch::Receiver<Option<Outcome>>,
    ) -> std::io::Result<OutputReader> {
        Ok(OutputReader { reader: self.spool.read().await?, outcome: Some(outcome) })
    }
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "output",
            Self::Stderr => "error",
        }
    }
}

impl Progress {
    fn restart(&mut self) {
        if self.seen >= self.kept {
            (self.kept, self.kept_hash) = (self.seen, Some(self.hasher.finalize()));
        }
        (self.seen, self.hasher) = (0, blake3::Hasher::new());
    }

    /// Counts `bytes`, and returns those that are new; `None` if the old ones are not what they were.
    fn advance(&mut self, mut bytes: Bytes) -> Option<Bytes> {
        let known =
            usize::try_from(self.kept.saturating_sub(self.seen)).unwrap_or(usize::MAX).min(bytes.len());
        let known = bytes.split_to(known);
        self.hasher.update(&known);
        self.seen += known.len() as u64;
        if !known.is_empty() && self.seen == self.kept && self.kept_hash != Some(self.hasher.finalize()) {
            return None;
        }
        self.hasher.update(&bytes);
        self.seen += bytes.len() as u64;
        Some(bytes)
    }
}

/// Reads the output of a job, from its beginning to its end, waiting where the job has not got so far yet.
#[derive(Debug)]
pub struct OutputReader {
    reader: SpoolReader,
    outcome: Option<watch::Receiver<Option<Outcome>>>,
}

impl OutputReader {
    /// The next piece; [`OutputFrame::Exit`] is the last. Not cancel-safe.
    pub async fn next(&mut self) -> std::io::Result<Option<OutputFrame>> {
        let Some(outcome) = &mut self.outcome else { return Ok(None) };
        let Ok(header) = self.reader.exactly(HEADER).await? else {
            let ended = outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
            self.outcome = None;
            let gone = || Outcome::Failed { reason: "the node has stopped".to_owned() };
            return Ok(Some(OutputFrame::Exit(ended.unwrap_or_else(gone))));
        };
        let [kind, length @ ..] = <[u8; HEADER]>::try_from(&header[..]).map_err(std::io::Error::other)?;
        let length = u32::from_be_bytes(length) as usize;
        let Ok(bytes) = self.reader.exactly(length).await? else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        let is_stdout = kind == Stream::Stdout as u8;
        Ok(Some(if is_stdout { OutputFrame::Stdout(bytes) } else { OutputFrame::Stderr(bytes) }))
    }

    /// The same as a stream, which ends after [`OutputFrame::Exit`] or the first error.
    pub fn into_stream(self) -> impl futures::Stream<Item = std::io::Result<OutputFrame>> + Send {
        futures::stream::try_unfold(self, |mut reader: Self| async move {
            Ok(reader.next().await?.map(|frame| (frame, reader)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn output(limit: u64) -> (tempfile::TempDir, Output) {
        let dir = tempfile::tempdir().unwrap();
        let output = Output::create(dir.path().join("output"), limit).await.unwrap();
        (dir, output)
    }

    async fn say(output: &Output, attempt: u32, text: &'static str) -> Result<(), OutputError> {
        output.append(attempt, Stream::Stdout, Bytes::from_static(text.as_bytes())).await
    }

    async fn text_of(output: &Output, outcome: Outcome) -> String {
        let (_sender, receiver) = watch::channel(Some(outcome));
        let mut reader = output.read(receiver).await.unwrap();
        let mut text = String::new();
        while let Some(frame) = reader.next().await.unwrap() {
            match frame {
                OutputFrame::Stdout(bytes) | OutputFrame::Stderr(bytes) => {
                    text += std::str::from_utf8(&bytes).unwrap();
                }
                OutputFrame::Exit(outcome) => text += &format!(" {outcome}"),
            }
        }
        text
    }

    #[tokio::test]
    async fn a_second_attempt_goes_on_where_the_first_broke_off() {
        let (_dir, output) = output(100).await;
        output.begin(1).await;
        say(&output, 1, "one two").await.unwrap();
        output.begin(2).await;
        assert!(matches!(say(&output, 1, "late").await, Err(OutputError::Stale)));
        say(&output, 2, "one ").await.unwrap();
        output.begin(3).await;
        say(&output, 3, "one two three").await.unwrap();
        let [stdout, stderr] = output.finish(3).await.unwrap();
        assert_eq!((stdout, stderr), (Digest::of(b"one two three"), Digest::of(b"")));
        output.end();
        assert_eq!(text_of(&output, Outcome::Exited(0)).await, "one two three exited with code 0");
    }

    #[tokio::test]
    async fn a_task_that_says_something_else_is_found_out() {
        let (_dir, output) = output(100).await;
        output.begin(1).await;
        say(&output, 1, "one two").await.unwrap();
        output.begin(2).await;
        say(&output, 2, "one ").await.unwrap();
        assert!(matches!(say(&output, 2, "2").await, Ok(())), "not yet known to differ");
        assert!(matches!(output.finish(2).await, Err(OutputError::Differs("output"))), "it says less");
        assert!(matches!(say(&output, 2, "22").await, Err(OutputError::Differs("output"))));
    }

    #[tokio::test]
    async fn the_limit_holds_here_too() {
        let (_dir, output) = output(3).await;
        output.begin(1).await;
        assert!(matches!(say(&output, 1, "four").await, Err(OutputError::TooMuch)));
    }
}

//! Jobs through a running node.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use starfish_compute::batch::Suspect;
use starfish_compute::task::{JobId, OutputFrame};
use starfish_compute::{JobReport, JobSummary};
use starfish_dht::PeerId;

use super::connection::{Answer, empty, streamed};
use super::{Client, ClientError, request};
use crate::percent;
use crate::wire::frame::{self, Decoder};
use crate::wire::{BatchRequest, Submitted, TaskRequest};

impl Client {
    /// Submits a task; `program` if it is not in the tree.
    pub async fn submit(&self, task: &TaskRequest, program: Option<Bytes>) -> Result<JobId, ClientError> {
        let path = "/api/v1/jobs";
        let Some(program) = program else {
            return self.post::<Submitted>(path, task).await.map(|answer| answer.id);
        };
        let task = serde_json::to_vec(task)
            .map_err(|error| ClientError::Nonsense { what: path.to_owned(), source: error.into() })?;
        let head = frame::encode(frame::submit::TASK, &task);
        let program = Chunks(program).map(|chunk| frame::encode(frame::submit::MODULE, &chunk));
        let body = stream::iter(std::iter::once(head).chain(program).map(Ok));
        let mut request = request(Method::POST, path, streamed(body));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        self.send(request).await?.json::<Submitted>().await.map(|answer| answer.id)
    }

    /// Submits a batch; `program` if it is not in the tree, and the list whose lines are its items if there is one.
    pub async fn submit_batch(
        &self,
        batch: &BatchRequest,
        program: Option<Bytes>,
        lines: Option<Bytes>,
    ) -> Result<Submitted, ClientError> {
        let path = "/api/v1/batches";
        if program.is_none() && lines.is_none() {
            return self.post(path, batch).await;
        }
        let batch = serde_json::to_vec(batch)
            .map_err(|error| ClientError::Nonsense { what: path.to_owned(), source: error.into() })?;
        let head = frame::encode(frame::submit::TASK, &batch);
        let frames = |kind, bytes: Option<Bytes>| {
            Chunks(bytes.unwrap_or_default()).map(move |chunk| frame::encode(kind, &chunk))
        };
        let rest = frames(frame::submit::MODULE, program).chain(frames(frame::submit::LINES, lines));
        let body = stream::iter(std::iter::once(head).chain(rest).map(Ok));
        let mut request = request(Method::POST, path, streamed(body));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        self.send(request).await?.json().await
    }

    /// Nodes that were outvoted where several ran the same tasks.
    pub async fn suspects(&self) -> Result<Vec<Suspect>, ClientError> {
        self.get("/api/v1/suspects").await
    }

    /// Trusts such a node again.
    pub async fn forgive(&self, node: &PeerId) -> Result<(), ClientError> {
        self.send(request(Method::DELETE, &format!("/api/v1/suspects/{node}"), empty())).await.map(drop)
    }

    /// Waits for the end of a batch.
    pub async fn job_end(&self, job: &str) -> Result<JobReport, ClientError> {
        self.get(&format!("{}/end", at(job))).await
    }

    /// Runs the failed tasks of a batch again.
    pub async fn retry(&self, job: &str) -> Result<JobId, ClientError> {
        let answer = self.send(request(Method::POST, &format!("{}/retry", at(job)), empty())).await?;
        answer.json::<Submitted>().await.map(|answer| answer.id)
    }

    /// The tasks of a batch in order, as they end: lines of JSON, each a [`crate::wire::TaskLine`]. The batch of an owner
    /// is killed if they are not heard to the end.
    pub async fn tasks(
        &self,
        job: &str,
        owner: bool,
    ) -> Result<BoxStream<'static, Result<Bytes, ClientError>>, ClientError> {
        let what = format!("{}/tasks?owner={owner}", at(job));
        Ok(self.send(request(Method::GET, &what, empty())).await?.chunks().boxed())
    }

    /// Sends a job its input and the end of it. An error in `input` breaks the input off, and the job fails.
    pub async fn feed(
        &self,
        job: JobId,
        input: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), ClientError> {
        let request = request(Method::PUT, &format!("/api/v1/jobs/{job}/stdin"), streamed(input));
        self.send(request).await?.done().await
    }

    /// What a job says, from its beginning. The job of an owner is killed if it is not heard to its end.
    pub async fn output(&self, job: &str, owner: bool) -> Result<JobOutput, ClientError> {
        let what = format!("{}/output?owner={owner}", at(job));
        let answer = self.send(request(Method::GET, &what, empty())).await?;
        Ok(self.heard(what, answer))
    }

    /// What is said in the frames of an answer.
    pub(super) fn heard(&self, what: String, answer: Answer) -> JobOutput {
        let (dir, chunks) = (self.data_dir().path().to_owned(), answer.chunks().boxed());
        JobOutput { what, dir, chunks, decoder: Decoder::default() }
    }

    /// The swarm's jobs.
    pub async fn jobs(&self) -> Result<Vec<JobSummary>, ClientError> {
        self.get("/api/v1/jobs").await
    }

    /// All about a job; any unique beginning of its id will do, here and below.
    pub async fn job(&self, job: &str) -> Result<JobReport, ClientError> {
        self.get(&at(job)).await
    }

    /// Ends a job.
    pub async fn kill(&self, job: &str) -> Result<JobId, ClientError> {
        let answer = self.send(request(Method::DELETE, &at(job), empty())).await?;
        answer.json::<Submitted>().await.map(|answer| answer.id)
    }
}

fn at(job: &str) -> String {
    format!("/api/v1/jobs/{}", percent::encode(job.as_bytes()))
}

/// What a job says, as it says it.
#[must_use]
pub struct JobOutput {
    what: String,
    dir: PathBuf,
    chunks: BoxStream<'static, Result<Bytes, ClientError>>,
    decoder: Decoder,
}

impl JobOutput {
    /// The next piece; [`OutputFrame::Exit`] is the last, and an end without it is an error.
    pub async fn next(&mut self) -> Result<OutputFrame, ClientError> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(|error| self.nonsense(error))? {
                match frame.kind {
                    frame::output::STDOUT => return Ok(OutputFrame::Stdout(frame.payload)),
                    frame::output::STDERR => return Ok(OutputFrame::Stderr(frame.payload)),
                    frame::output::EXIT => {
                        let outcome = serde_json::from_slice(&frame.payload);
                        return outcome.map(OutputFrame::Exit).map_err(|error| self.nonsense(error));
                    }
                    // Of a newer version.
                    _ => continue,
                }
            }
            match self.chunks.try_next().await? {
                Some(chunk) => self.decoder.feed(&chunk),
                None => {
                    let source = "the node stopped before the job did".into();
                    return Err(ClientError::Interrupted { data_dir: self.dir.clone(), source });
                }
            }
        }
    }

    fn nonsense(&self, error: impl std::error::Error + Send + Sync + 'static) -> ClientError {
        ClientError::Nonsense { what: self.what.clone(), source: error.into() }
    }
}

impl std::fmt::Debug for JobOutput {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("JobOutput").field("what", &self.what).finish_non_exhaustive()
    }
}

/// Bytes in pieces of a frame's size, without copying.
pub(super) struct Chunks(pub(super) Bytes);

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let size = self.0.len().min(frame::MAX_FRAME);
        (size > 0).then(|| self.0.split_to(size))
    }
}

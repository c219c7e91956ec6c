//! `/api/v1/jobs`: tasks are submitted, fed, listened to and ended.

use axum::Json as JsonAnswer;
use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::de::DeserializeOwned;
use starfish_compute::batch::{BatchError, Suspect};
use starfish_compute::task::{JobId, MAX_MODULE_BYTES, Module, OutputFrame, TaskSpec};
use starfish_compute::{Compute, JobError, JobReport, JobSummary, SubmitError};
use starfish_dht::PeerId;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;

use super::error::{ApiError, chain};
use super::extract::{Json, Query, Segments};
use super::route::{Content, Route, Verb};
use crate::wire::frame::{self, Decoder, Frame, FrameError};
use crate::wire::{StdinSource, Submitted, TaskRequest};

/// What this resource needs.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) compute: Compute,
    /// Ends the listening.
    pub(super) stopping: CancellationToken,
}

/// The query of those who listen to a job that is theirs.
pub(super) const OWNER: (&str, &str) = ("owner", "true: the job is killed if this request ends before it");

pub(super) fn routes(state: &Resource) -> Vec<Route> {
    vec![
        Route::new(Verb::Post, "/api/v1/jobs", "Submit a task", state, submit)
            .takes(Content::Json(
                "{name, program, args, env, grants, reach, limits, on, stdin}; or, as application/octet-stream, a program \
                 that is not in the tree in frames: kind 1 this JSON without `program`, then kind 2 the program's bytes",
            ))
            .gives(Content::Json("{id}")),
        Route::new(Verb::Get, "/api/v1/jobs", "The swarm's jobs, as far as this node knows", state, list)
            .gives(Content::Json("[JobSummary]")),
        Route::new(Verb::Get, "/api/v1/jobs/{id}", "All about a job; a unique prefix of the id will do", state, report)
            .gives(Content::Json("JobReport")),
        Route::new(Verb::Delete, "/api/v1/jobs/{id}", "End a job", state, kill).gives(Content::Json("{id}")),
        Route::new(Verb::Put, "/api/v1/jobs/{id}/stdin", "The input of a job whose `stdin` is `stream`", state, feed)
            .takes(Content::Bytes("the input, whole: its end is the end of the body")),
        Route::new(Verb::Get, "/api/v1/suspects", "Nodes that were outvoted where several ran the same tasks", state, suspects)
            .gives(Content::Json("[{node, job, tasks, example, at_ms, by}]")),
        Route::new(Verb::Delete, "/api/v1/suspects/{peer}", "Trust such a node again", state, forgive),
        Route::new(Verb::Get, "/api/v1/jobs/{id}/output", "What a job says, from its beginning to its end", state, output)
            .query(&[OWNER])
            .gives(Content::Bytes(
                "frames (a byte for the kind, four for the length, big endian, and the payload) of kind 1 (standard \
                 output), 2 (standard error) and, last, 3 (how it ended, as JSON)",
            )),
    ]
}

async fn submit(
    State(state): State<Resource>,
    request: Request,
) -> Result<(StatusCode, JsonAnswer<Submitted>), ApiError> {
    let in_frames =
        request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    let (task, program) = if in_frames {
        let Framed { request, program, lines: _ } = read_frames(request.into_body(), "task", None).await?;
        (request, Some(program.unwrap_or_default()))
    } else {
        let Json(task) = Json::<TaskRequest>::from_request(request, &()).await?;
        (task, None)
    };
    let stdin = task.stdin;
    let id = state.compute.submit(spec(task, program)?).await?;
    if stdin == StdinSource::Empty {
        // A job waits for the end of its input, so nothing is an input too.
        let ended = state.compute.feed(id)?.shutdown().await;
        ended.map_err(|error| ApiError::internal(&error))?;
    }
    Ok((StatusCode::CREATED, JsonAnswer(Submitted { id, cached: false })))
}

async fn list(State(state): State<Resource>) -> JsonAnswer<Vec<JobSummary>> {
    JsonAnswer(state.compute.jobs())
}

async fn report(
    State(state): State<Resource>,
    segments: Segments,
) -> Result<JsonAnswer<JobReport>, ApiError> {
    Ok(JsonAnswer(state.compute.job(segments.text(1)?).await?))
}

async fn kill(State(state): State<Resource>, segments: Segments) -> Result<JsonAnswer<Submitted>, ApiError> {
    let id = state.compute.kill(segments.text(1)?).await?;
    Ok(JsonAnswer(Submitted { id, cached: false }))
}

async fn suspects(State(state): State<Resource>) -> JsonAnswer<Vec<Suspect>> {
    JsonAnswer(state.compute.suspects())
}

async fn forgive(State(state): State<Resource>, segments: Segments) -> Result<StatusCode, ApiError> {
    let node = segments.text(1)?.parse::<PeerId>();
    let node = node.map_err(|_| ApiError::bad_request("bad-peer", "that is no node's id"))?;
    if state.compute.forgive(&node).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::new(StatusCode::NOT_FOUND, "not-found", format!("{node} is no suspect")))
}

async fn feed(
    State(state): State<Resource>,
    segments: Segments,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let mut stdin = state.compute.feed(find(&state, &segments)?)?;
    let mut body = request.into_body().into_data_stream();
    // If the body breaks off, so does the input: the writer is dropped, not shut down.
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| ApiError::bad_request("broken-body", chain(&error)))?;
        if stdin.write_all(&bytes).await.is_err() {
            // The job is over, or has all that it may get; what it thinks of that is in its output.
            return Ok(StatusCode::NO_CONTENT);
        }
    }
    stdin.shutdown().await.map_err(|error| ApiError::internal(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn output(
    State(state): State<Resource>,
    segments: Segments,
    query: Query,
) -> Result<Response, ApiError> {
    let summary = state.compute.find(segments.text(1)?)?;
    let owner = Owner::of(&state, summary.id, &query)?;
    if summary.progress.is_some() {
        let results = state.compute.results(summary.id).await?;
        let frames = super::batches::output(results, &state, summary.id);
        let frames = owner.over(frames).take_until(state.stopping.cancelled_owned());
        return Ok(in_frames(Body::from_stream(frames)));
    }
    let reader = state.compute.output(summary.id).await?;
    let frames = reader.into_stream().and_then(async |said| {
        Ok(match said {
            OutputFrame::Stdout(bytes) => frame::encode(frame::output::STDOUT, &bytes),
            OutputFrame::Stderr(bytes) => frame::encode(frame::output::STDERR, &bytes),
            OutputFrame::Exit(outcome) => frame::encode(frame::output::EXIT, &serde_json::to_vec(&outcome)?),
        })
    });
    Ok(in_frames(Body::from_stream(owner.over(frames).take_until(state.stopping.cancelled_owned()))))
}

/// Whoever listens to a job that is to end with them. However they go away, the job is killed: a client can be killed
/// itself, and then nobody else would say so.
pub(super) struct Owner(Option<(Compute, JobId)>);

impl Owner {
    pub(super) fn of(state: &Resource, job: JobId, query: &Query) -> Result<Self, ApiError> {
        let is_owner = query.parsed::<bool>("owner")?.unwrap_or(false);
        Ok(Self(is_owner.then(|| (state.compute.clone(), job))))
    }

    /// Lets go of the job at the end of `stream`, and not before.
    pub(super) fn over<S: Stream>(self, stream: S) -> impl Stream<Item = S::Item> {
        let mut owner = self;
        let end = stream::poll_fn(move |_| {
            owner.let_go();
            std::task::Poll::Ready(None)
        });
        stream.chain(end)
    }

    fn let_go(&mut self) {
        self.0 = None;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some((compute, job)) = self.0.take() {
            tokio::spawn(async move {
                if let Err(error) = compute.kill(&job.to_string()).await {
                    tracing::debug!(%job, %error, "a job whose owner is gone cannot be ended");
                }
            });
        }
    }
}

fn in_frames(body: Body) -> Response {
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn find(state: &Resource, segments: &Segments) -> Result<JobId, ApiError> {
    Ok(state.compute.find(segments.text(1)?)?.id)
}

fn spec(task: TaskRequest, program: Option<Bytes>) -> Result<TaskSpec, ApiError> {
    let TaskRequest { name, program: path, args, env, grants, reach, limits, on, stdin: _ } = task;
    let module = match (path, program) {
        (Some(path), None) => Module::Path(path),
        (None, Some(bytes)) => Module::Bytes(bytes),
        _ => {
            return Err(ApiError::bad_request(
                "no-program",
                "a task needs one program: a path, or its bytes",
            ));
        }
    };
    Ok(TaskSpec { name, module, args, env, grants, reach, limits: limits.into(), on })
}

/// What comes in frames: a request as JSON, the bytes of a program, and those of a list.
pub(super) struct Framed<T> {
    pub(super) request: T,
    pub(super) program: Option<Bytes>,
    pub(super) lines: Bytes,
}

/// Reads a body in frames; `what` is asked for in it, and with `max_lines` a list of so many bytes may be. Holds as much as
/// a program and a list may be long, and not more.
pub(super) async fn read_frames<T: DeserializeOwned>(
    body: Body,
    what: &str,
    max_lines: Option<usize>,
) -> Result<Framed<T>, ApiError> {
    let (mut decoder, mut body) = (Decoder::default(), body.into_data_stream());
    let (mut request, mut program, mut lines) = (None, None::<BytesMut>, BytesMut::new());
    while let Some(bytes) = body.next().await {
        decoder.feed(&bytes.map_err(|error| ApiError::bad_request("broken-body", chain(&error)))?);
        while let Some(Frame { kind, payload }) = decoder.next_frame()? {
            match (kind, max_lines) {
                (frame::submit::TASK, _) if request.is_none() => {
                    let parsed = serde_json::from_slice::<T>(&payload);
                    request =
                        Some(parsed.map_err(|error| ApiError::bad_request("bad-json", error.to_string()))?);
                }
                (frame::submit::MODULE, _) => {
                    let program = program.get_or_insert_default();
                    if program.len() + payload.len() > MAX_MODULE_BYTES {
                        return Err(SubmitError::TooLarge.into());
                    }
                    program.extend_from_slice(&payload);
                }
                (frame::submit::LINES, Some(max)) => {
                    if lines.len() + payload.len() > max {
                        return Err(BatchError::TooMany.into());
                    }
                    lines.extend_from_slice(&payload);
                }
                _ => {
                    let message = format!("unexpected frame of kind {kind}");
                    return Err(ApiError::bad_request("bad-frames", message));
                }
            }
        }
    }
    decoder.finish()?;
    let request =
        request.ok_or_else(|| ApiError::bad_request("bad-frames", format!("the {what} is missing")))?;
    Ok(Framed { request, program: program.map(BytesMut::freeze), lines: lines.freeze() })
}

impl From<FrameError> for ApiError {
    fn from(error: FrameError) -> Self {
        Self::bad_request("bad-frames", error.to_string())
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = chain(&error);
        match error {
            SubmitError::Program(source) => {
                let mut refusal = Self::from(source);
                refusal.body.message = message;
                refusal
            }
            SubmitError::TooLarge => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message),
            SubmitError::Full(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-jobs", message)
                .with_hint("wait for some of them to end"),
            SubmitError::Disk(_) | SubmitError::Encode(_) => Self::internal(&error),
            _ => Self::bad_request("bad-task", message),
        }
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        let message = chain(&error);
        match error {
            JobError::TooShort(_) => Self::bad_request("too-short", message),
            JobError::NotFound(_) => Self::not_found("no-such-job", message),
            JobError::Ambiguous(_) => {
                Self::new(StatusCode::CONFLICT, "ambiguous", message).with_hint("give more digits of the id")
            }
            JobError::KeptElsewhere { .. } => Self::new(StatusCode::CONFLICT, "kept-elsewhere", message)
                .with_hint("ask the node where the job was submitted"),
            JobError::AlreadyFed(_) => Self::new(StatusCode::CONFLICT, "already-fed", message),
            JobError::Unreachable { .. } => Self::unavailable("keeper-unreachable", message),
            JobError::NothingToRetry(_) => Self::new(StatusCode::CONFLICT, "nothing-to-retry", message),
            JobError::Store(_) | JobError::Disk { .. } => Self::internal(&error),
        }
    }
}

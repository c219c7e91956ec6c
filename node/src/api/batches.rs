//! `/api/v1/batches`, and what batches have beyond other jobs: the ends of their tasks, their own end, another try.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as JsonAnswer;
use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use starfish_compute::JobReport;
use starfish_compute::batch::{
    BatchError, BatchStoreError, Ended, OutputStream, Results, ResultsError, Said,
};
use starfish_compute::task::{JobId, Module, Outcome};

use super::error::{ApiError, chain};
use super::extract::{Json, Query, Segments};
use super::jobs::{Framed, OWNER, Owner, Resource, read_frames};
use super::ndjson;
use super::route::{Content, Route, Verb};
use crate::wire::frame;
use crate::wire::{BatchRequest, Submitted, TaskLine};

/// All lines of a list, with their ends.
const MAX_LINES_BYTES: usize = 65 << 20;

/// How often the end of a job is looked for that only its keeper knows.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) fn routes(state: &Resource) -> Vec<Route> {
    vec![
        Route::new(Verb::Post, "/api/v1/batches", "Submit a batch, which outlives this node", state, submit)
            .takes(Content::Json(
                "{name, program, args, env, grants, reach, limits, on, items, input, out, after, priority, deadline_ms, anywhere, \
                 verify, retries, keep_ms, no_cache}; or, as application/octet-stream, frames: kind 1 this JSON, then kind 2 the bytes of \
                 a program that is not in the tree, and kind 3 those of a list whose lines are the items",
            ))
            .gives(Content::Json("{id, cached}")),
        Route::new(Verb::Get, "/api/v1/jobs/{id}/tasks", "The tasks of a batch in order, as they end", state, tasks)
            .query(&[OWNER])
            .gives(Content::Bytes("a TaskLine in JSON on each line, until the batch has ended")),
        Route::new(Verb::Get, "/api/v1/jobs/{id}/end", "Waits for the end of a batch", state, end)
            .gives(Content::Json("JobReport")),
        Route::new(Verb::Post, "/api/v1/jobs/{id}/retry", "Run the failed tasks of a batch again", state, retry)
            .gives(Content::Json("{id}")),
    ]
}

async fn submit(
    State(state): State<Resource>,
    request: Request,
) -> Result<(StatusCode, JsonAnswer<Submitted>), ApiError> {
    let in_frames =
        request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    let Framed { request: batch, program, lines } = if in_frames {
        read_frames::<BatchRequest>(request.into_body(), "job", Some(MAX_LINES_BYTES)).await?
    } else {
        let Json(request) = Json::<BatchRequest>::from_request(request, &()).await?;
        Framed { request, program: None, lines: Bytes::new() }
    };
    let lines = lines_of(&lines)?;
    let module = match (batch.program.clone(), program) {
        (Some(path), None) => Module::Path(path),
        (None, Some(bytes)) => Module::Bytes(bytes),
        _ => {
            let message = "a job needs one program: a path, or its bytes";
            return Err(ApiError::bad_request("no-program", message));
        }
    };
    let (id, cached) = state.compute.submit_batch(batch.into_spec(module, lines)).await?;
    let status = if cached { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, JsonAnswer(Submitted { id, cached })))
}

/// The items of a list.
fn lines_of(lines: &[u8]) -> Result<Vec<String>, ApiError> {
    let lines = std::str::from_utf8(lines)
        .map_err(|_| ApiError::bad_request("bad-lines", "the list is not UTF-8"))?;
    Ok(lines.lines().map(str::to_owned).collect())
}

async fn tasks(
    State(state): State<Resource>,
    segments: Segments,
    query: Query,
) -> Result<Response, ApiError> {
    let job = find(&state, &segments)?;
    let owner = Owner::of(&state, job, &query)?;
    let results = state.compute.results(job).await?;
    let lines = stream::try_unfold(results, async |mut results| {
        let Some(ended) = results.next().await? else { return Ok::<_, ResultsError>(None) };
        Ok(Some((ndjson::line(&line(ended)), results)))
    });
    Ok(ndjson::answer(owner.over(lines).take_until(state.stopping.cancelled_owned())))
}

async fn end(State(state): State<Resource>, segments: Segments) -> Result<JsonAnswer<JobReport>, ApiError> {
    let summary = state.compute.find(segments.text(1)?)?;
    let job = summary.id;
    let ending = async {
        match summary.progress {
            Some(_) => state.compute.wait(job).await.map(drop).map_err(ApiError::from),
            None => wait_for_the_only(&state, job).await,
        }
    };
    tokio::select! {
        end = ending => end?,
        () = state.stopping.cancelled() => {
            return Err(ApiError::unavailable("stopping", "this node stops; the job goes on elsewhere"));
        }
    }
    Ok(JsonAnswer(state.compute.job(&job.to_string()).await?))
}

/// Waits for the end of a job that is one task with streams, which its keeper alone knows.
async fn wait_for_the_only(state: &Resource, job: JobId) -> Result<(), ApiError> {
    while state.compute.job(&job.to_string()).await?.outcome.is_none() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn retry(State(state): State<Resource>, segments: Segments) -> Result<JsonAnswer<Submitted>, ApiError> {
    let id = state.compute.retry(segments.text(1)?).await?;
    Ok(JsonAnswer(Submitted { id, cached: false }))
}

fn find(state: &Resource, segments: &Segments) -> Result<JobId, ApiError> {
    let summary = state.compute.find(segments.text(1)?)?;
    match summary.progress {
        Some(_) => Ok(summary.id),
        None => Err(ApiError::new(
            StatusCode::CONFLICT,
            "not-a-batch",
            format!("job {} is one task with streams: see its output", summary.id),
        )),
    }
}

/// What all tasks of a batch say, one after the other, and how it ended, in frames.
pub(super) fn output(
    results: Results,
    state: &Resource,
    job: JobId,
) -> impl Stream<Item = FrameResult> + use<> {
    let results = Arc::new(tokio::sync::Mutex::new(results));
    let compute = state.compute.clone();
    let said = stream::try_unfold(results, async |results| {
        let mut reading = results.lock().await;
        let Some(ended) = reading.next().await? else { return Ok::<_, ResultsError>(None) };
        let stdout = reading.said(&ended, OutputStream::Stdout).await?;
        let stderr = reading.said(&ended, OutputStream::Stderr).await?;
        drop(reading);
        let frames = |kind, said: futures::stream::BoxStream<'static, _>| {
            said.map_ok(move |bytes: Bytes| frame::encode(kind, &bytes))
                .map_err(|error| ResultsError::Store(starfish_compute::batch::BatchStoreError::Files(error)))
        };
        let both = frames(frame::output::STDOUT, stdout).chain(frames(frame::output::STDERR, stderr));
        Ok(Some((both, results)))
    });
    let end = stream::once(async move {
        // The last task may have ended before its batch.
        let _ = compute.wait(job).await;
        let report = compute.job(&job.to_string()).await.ok();
        let outcome = report.and_then(|report| report.outcome).unwrap_or(Outcome::Killed);
        Ok(frame::encode(frame::output::EXIT, &serde_json::to_vec(&outcome).unwrap_or_default()))
    });
    said.try_flatten().chain(end)
}

pub(super) type FrameResult = Result<Bytes, ResultsError>;

fn line(ended: Ended) -> TaskLine {
    let Ended { task, item, by, result, .. } = ended;
    let text = |said: &Said| match said {
        Said::Here(text) if text.bytes().is_empty() => None,
        Said::Here(text) => Some(String::from_utf8_lossy(text.bytes()).into_owned()),
        Said::Kept { .. } => None,
    };
    TaskLine {
        task,
        item,
        by,
        stdout_bytes: result.stdout.size(),
        stderr_bytes: result.stderr.size(),
        stdout: text(&result.stdout),
        stderr: text(&result.stderr),
        outcome: result.outcome,
        tries: result.tries,
        elapsed_ms: result.elapsed_ms,
    }
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        let message = chain(&error);
        match error {
            BatchError::Task(error) => error.into(),
            BatchError::Full => Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-jobs", message)
                .with_hint("wait until the results of some are no longer kept"),
            BatchError::NotFound(_) => Self::not_found("no-such-job", message),
            BatchError::Input(source) => {
                let mut refusal = Self::from(source);
                refusal.body.message = message;
                refusal
            }
            BatchError::Store(_) => Self::internal(&error),
            _ => Self::bad_request("bad-job", message),
        }
    }
}

impl From<BatchStoreError> for ApiError {
    fn from(error: BatchStoreError) -> Self {
        Self::internal(&error)
    }
}

impl From<ResultsError> for ApiError {
    fn from(error: ResultsError) -> Self {
        match error {
            ResultsError::Gone(_) => Self::not_found("no-such-job", error.to_string()),
            ResultsError::Store(_) => Self::internal(&error),
        }
    }
}

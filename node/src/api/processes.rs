//! `/api/v1/processes`: state with handlers, that outlives its nodes.

use axum::Json as JsonAnswer;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use starfish_compute::process::{MAX_DATA, ProcessError, ProcessName, ProcessStatus, SendSpec};

use super::error::{ApiError, chain};
use super::extract::{Json, Query, Segments};
use super::jobs::Resource;
use super::route::{Content, Route, Verb};
use crate::wire::{EventAnswer, EventSent, ProcessLine, SpawnRequest};

pub(super) fn routes(state: &Resource) -> Vec<Route> {
    const ONE: &str = "/api/v1/processes/{name}";
    const LINE: Content = Content::Json(
        "{name, function, owner, handled, failed, pending, why, state_bytes, by, since_ms, last_ms}",
    );
    vec![
        Route::new(Verb::Get, "/api/v1/processes", "The swarm's processes", state, list)
            .gives(Content::Json("as many of these as there are")),
        Route::new(Verb::Get, ONE, "How a process goes", state, one).gives(LINE),
        Route::new(Verb::Put, ONE, "Begin a process", state, spawn)
            .takes(Content::Json("{function}"))
            .gives(LINE),
        Route::new(Verb::Delete, ONE, "End a process, and forget it with its state", state, kill),
        Route::new(Verb::Get, "/api/v1/processes/{name}/state", "The state of a process", state, look)
            .gives(Content::Bytes("as its handlers wrote it")),
        Route::new(
            Verb::Post,
            "/api/v1/processes/{name}/events/{handler}",
            "Send an event to a process: it is journaled when this is answered",
            state,
            send,
        )
        .query(&[("id", "how the event is called, in hex: one that was sent before is not another one")])
        .takes(Content::Bytes("what the handler is told"))
        .gives(Content::Json("{id, copies}")),
        Route::new(
            Verb::Get,
            "/api/v1/processes/{name}/answers/{id}",
            "Waits until an event was handled",
            state,
            answer,
        )
        .gives(Content::Json("{reply, failed, by, at_ms}, the reply in base64")),
    ]
}

async fn list(State(state): State<Resource>) -> JsonAnswer<Vec<ProcessLine>> {
    JsonAnswer(state.compute.processes().await.into_iter().map(Into::into).collect())
}

async fn one(State(state): State<Resource>, segments: Segments) -> Result<JsonAnswer<ProcessLine>, ApiError> {
    Ok(JsonAnswer(find(&state, &segments).await?.into()))
}

async fn look(State(state): State<Resource>, segments: Segments) -> Result<Response, ApiError> {
    let snapshot = find(&state, &segments).await?.snapshot.unwrap_or_default();
    let mut response = Response::new(snapshot.state.into());
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

async fn spawn(
    State(state): State<Resource>,
    segments: Segments,
    Json(asked): Json<SpawnRequest>,
) -> Result<(StatusCode, JsonAnswer<ProcessLine>), ApiError> {
    state.compute.spawn(segments.parsed(1)?, asked.function).await?;
    Ok((StatusCode::CREATED, JsonAnswer(find(&state, &segments).await?.into())))
}

async fn kill(State(state): State<Resource>, segments: Segments) -> Result<StatusCode, ApiError> {
    state.compute.end_process(&segments.parsed(1)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn send(
    State(state): State<Resource>,
    segments: Segments,
    query: Query,
    request: Request,
) -> Result<(StatusCode, JsonAnswer<EventSent>), ApiError> {
    // One byte more than is allowed, so that more is noticed.
    let data = axum::body::to_bytes(request.into_body(), MAX_DATA + 1).await;
    let data = data.map_err(|_| ProcessError::TooLong)?;
    let event = SendSpec {
        process: segments.parsed(1)?,
        handler: segments.parsed(3)?,
        data,
        id: query.parsed("id")?,
    };
    Ok((StatusCode::CREATED, JsonAnswer(state.compute.send(event).await?.into())))
}

async fn answer(
    State(state): State<Resource>,
    segments: Segments,
) -> Result<JsonAnswer<EventAnswer>, ApiError> {
    let (name, id) = (segments.parsed::<ProcessName>(1)?, segments.parsed(3)?);
    tokio::select! {
        answer = state.compute.answer(&name, id) => Ok(JsonAnswer(answer?.into())),
        () = state.stopping.cancelled() => {
            Err(ApiError::unavailable("stopping", "this node stops; the event is handled elsewhere"))
        }
    }
}

async fn find(state: &Resource, segments: &Segments) -> Result<ProcessStatus, ApiError> {
    let name = segments.parsed::<ProcessName>(1)?;
    let found = state.compute.processes().await.into_iter().find(|process| process.name == name);
    Ok(found.ok_or(ProcessError::NotFound(name))?)
}

impl From<ProcessError> for ApiError {
    fn from(error: ProcessError) -> Self {
        let message = chain(&error);
        match error {
            ProcessError::NotFound(_) => Self::not_found("no-such-process", message),
            ProcessError::NoFunction(_) => Self::not_found("no-such-function", message)
                .with_hint("starfish deploy gives a program a name"),
            ProcessError::Exists(_) => Self::new(StatusCode::CONFLICT, "process-exists", message),
            ProcessError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, "too-many-processes", message),
            ProcessError::TooLong => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message).with_hint("put it into a file")
            }
            ProcessError::Busy(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message),
            ProcessError::Store(error) => error.into(),
        }
    }
}

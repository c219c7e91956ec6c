//! `/api/v1/cron` and `/api/v1/on`: functions that run by the clock, or when something changes.

use axum::Json as JsonAnswer;
use axum::extract::State;
use http::StatusCode;
use starfish_compute::RecordError;
use starfish_compute::schedule::{CronError, CronSpec, Source, TriggerError, TriggerSpec};

use super::error::{ApiError, chain};
use super::extract::{Json, Segments};
use super::jobs::Resource;
use super::route::{Content, Route, Verb};
use crate::wire::{CronEntry, CronRequest, TriggerEntry, TriggerRequest};

pub(super) fn routes(state: &Resource) -> Vec<Route> {
    let (one, on) = ("/api/v1/cron/{name}", "/api/v1/on/{name}");
    vec![
        Route::new(Verb::Get, "/api/v1/cron", "The swarm's cron lines", state, list)
            .gives(Content::Json("[{name, schedule, function, args, by, since_ms, next_ms, last}]")),
        Route::new(Verb::Put, one, "Have a function called by the clock", state, add)
            .takes(Content::Json("{schedule, function, args}"))
            .gives(Content::Json("{name, schedule, function, args, by, since_ms, next_ms, last}")),
        Route::new(Verb::Delete, one, "Forget a cron line", state, remove),
        Route::new(Verb::Get, "/api/v1/on", "The swarm's triggers", state, list_triggers)
            .gives(Content::Json("[{name, source, function, args, allow_loop, by, since_ms, last}]")),
        Route::new(Verb::Put, on, "Have a function called when a file or key changes", state, add_trigger)
            .takes(Content::Json(
                "{source, function, args, allow_loop}, with {files: PATTERN} or {keys: {space, pattern}} as source",
            ))
            .gives(Content::Json("{name, source, function, args, allow_loop, by, since_ms, last}")),
        Route::new(Verb::Delete, on, "Forget a trigger", state, remove_trigger),
    ]
}

async fn list(State(state): State<Resource>) -> Result<JsonAnswer<Vec<CronEntry>>, ApiError> {
    let lines = state.compute.cron().await?;
    Ok(JsonAnswer(lines.into_iter().map(Into::into).collect()))
}

async fn add(
    State(state): State<Resource>,
    segments: Segments,
    Json(asked): Json<CronRequest>,
) -> Result<(StatusCode, JsonAnswer<CronEntry>), ApiError> {
    let CronRequest { schedule, function, args } = asked;
    let spec = CronSpec { name: segments.parsed(1)?, schedule, function, args };
    let added = state.compute.add_cron(spec).await?;
    Ok((StatusCode::CREATED, JsonAnswer(added.into())))
}

async fn remove(State(state): State<Resource>, segments: Segments) -> Result<StatusCode, ApiError> {
    state.compute.remove_cron(&segments.parsed(1)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list_triggers(State(state): State<Resource>) -> Result<JsonAnswer<Vec<TriggerEntry>>, ApiError> {
    let triggers = state.compute.triggers().await?;
    Ok(JsonAnswer(triggers.into_iter().map(Into::into).collect()))
}

async fn add_trigger(
    State(state): State<Resource>,
    segments: Segments,
    Json(asked): Json<TriggerRequest>,
) -> Result<(StatusCode, JsonAnswer<TriggerEntry>), ApiError> {
    let TriggerRequest { source, function, args, allow_loop } = asked;
    if let Source::Keys { space, .. } = &source {
        super::memory::not_of_the_system(space)?;
    }
    let spec = TriggerSpec { name: segments.parsed(1)?, source, function, args, allow_loop };
    let added = state.compute.add_trigger(spec).await?;
    Ok((StatusCode::CREATED, JsonAnswer(added.into())))
}

async fn remove_trigger(State(state): State<Resource>, segments: Segments) -> Result<StatusCode, ApiError> {
    state.compute.remove_trigger(&segments.parsed(1)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<TriggerError> for ApiError {
    fn from(error: TriggerError) -> Self {
        let message = chain(&error);
        match error {
            TriggerError::Source(_) | TriggerError::Space(_) => Self::bad_request("bad-source", message),
            TriggerError::Arguments => Self::bad_request("bad-arguments", message),
            TriggerError::Loop(_) => Self::new(StatusCode::CONFLICT, "loop", message),
            TriggerError::NoFunction(_) => Self::not_found("no-such-function", message)
                .with_hint("starfish deploy gives a program a name"),
            TriggerError::NotFound(_) => Self::not_found("no-such-trigger", message),
            TriggerError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, "too-many-triggers", message),
            TriggerError::Store(error) => error.into(),
        }
    }
}

impl From<CronError> for ApiError {
    fn from(error: CronError) -> Self {
        let message = chain(&error);
        match error {
            CronError::Schedule(_) => Self::bad_request("bad-schedule", message)
                .with_hint("five fields in UTC: minute hour day month weekday, such as '*/5 * * * *'"),
            CronError::Arguments => Self::bad_request("bad-arguments", message),
            CronError::NoFunction(_) => Self::not_found("no-such-function", message)
                .with_hint("starfish deploy gives a program a name"),
            CronError::NotFound(_) => Self::not_found("no-such-line", message),
            CronError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, "too-many-lines", message),
            CronError::Store(error) => error.into(),
        }
    }
}

impl From<RecordError> for ApiError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Read(error) => error.into(),
            RecordError::Write(error) => error.into(),
            RecordError::Encode(_) => Self::internal(&error),
        }
    }
}

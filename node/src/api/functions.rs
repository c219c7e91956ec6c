//! `/api/v1/functions`: programs are given names, and called by them.

use axum::Json as JsonAnswer;
use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use starfish_compute::SubmitError;
use starfish_compute::function::version::{FunctionName, RollbackError};
use starfish_compute::function::{
    CallError, CallSpec, DeployError, FunctionError, FunctionSpec, FunctionStoreError, Running, Said,
};
use starfish_compute::task::{MAX_MODULE_BYTES, Module, Outcome};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::error::{ApiError, chain};
use super::extract::{Json, Segments};
use super::jobs::Resource;
use super::route::{Content, Route, Verb};
use crate::wire::frame::{self, Decoder, Frame};
use crate::wire::{DeployRequest, Deployed, FunctionLine, InvokeRequest, RollbackRequest};

/// How much input of a call goes on at a time.
const CHUNK: usize = 64 << 10;

pub(super) fn routes(state: &Resource) -> Vec<Route> {
    let one = "/api/v1/functions/{name}";
    vec![
        Route::new(Verb::Get, "/api/v1/functions", "The swarm's functions", state, list)
            .gives(Content::Json("[{name, current, versions}]")),
        Route::new(Verb::Put, one, "Make a new version of a function, or the first", state, deploy)
            .takes(Content::Json(
                "{program, env, grants, reach, limits, http}; or, as application/octet-stream, a program that is not in the \
                 tree in frames: kind 1 this JSON without `program`, then kind 2 the program's bytes",
            ))
            .gives(Content::Json("{name, version}")),
        Route::new(Verb::Delete, one, "Forget a function with all of its versions", state, undeploy),
        Route::new(
            Verb::Post,
            "/api/v1/functions/{name}/rollback",
            "Make another version the current one",
            state,
            rollback,
        )
        .takes(Content::Json("{version}: its number or its name; by default the one before the current one"))
        .gives(Content::Json("{name, version}")),
        Route::new(Verb::Post, "/api/v1/functions/{name}/call", "Call a function", state, call)
            .takes(Content::Bytes(
                "frames: kind 1 {args} as JSON, then kind 4 the bytes of its standard input, as they come",
            ))
            .gives(Content::Bytes("frames as those of a job's output")),
    ]
}

async fn list(State(state): State<Resource>) -> Result<JsonAnswer<Vec<FunctionLine>>, ApiError> {
    let functions = state.compute.functions().await?;
    Ok(JsonAnswer(functions.into_iter().map(Into::into).collect()))
}

async fn deploy(
    State(state): State<Resource>,
    segments: Segments,
    request: Request,
) -> Result<(StatusCode, JsonAnswer<Deployed>), ApiError> {
    let name = segments.parsed::<FunctionName>(1)?;
    let in_frames =
        request.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    let (asked, program) = if in_frames {
        read_program(Frames::new(request.into_body())).await?
    } else {
        let Json(asked) = Json::<DeployRequest>::from_request(request, &()).await?;
        (asked, None)
    };
    let DeployRequest { program: path, env, grants, reach, limits, http, replicas } = asked;
    let module = match (path, program) {
        (Some(path), None) => Module::Path(path),
        (None, Some(bytes)) => Module::Bytes(bytes),
        _ => {
            let message = "a function needs one program: a path, or its bytes";
            return Err(ApiError::bad_request("no-program", message));
        }
    };
    let (name_of_it, limits) = (name.clone(), limits.into());
    let spec = FunctionSpec { name: name_of_it, module, env, grants, reach, limits, http, replicas };
    let version = state.compute.deploy(spec).await?;
    Ok((StatusCode::CREATED, JsonAnswer(Deployed { name, version })))
}

async fn undeploy(State(state): State<Resource>, segments: Segments) -> Result<StatusCode, ApiError> {
    state.compute.undeploy(&segments.parsed(1)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn rollback(
    State(state): State<Resource>,
    segments: Segments,
    Json(asked): Json<RollbackRequest>,
) -> Result<JsonAnswer<Deployed>, ApiError> {
    let name = segments.parsed::<FunctionName>(1)?;
    let version = state.compute.rollback(&name, asked.version.as_deref()).await?;
    Ok(JsonAnswer(Deployed { name, version }))
}

async fn call(
    State(state): State<Resource>,
    segments: Segments,
    request: Request,
) -> Result<Response, ApiError> {
    let name = segments.parsed::<FunctionName>(1)?;
    let mut frames = Frames::new(request.into_body());
    let asked = match frames.next().await? {
        Some(Frame { kind: frame::call::CALL, payload }) => serde_json::from_slice::<InvokeRequest>(&payload),
        _ => return Err(ApiError::bad_request("bad-frames", "the call is missing")),
    };
    let InvokeRequest { args } =
        asked.map_err(|error| ApiError::bad_request("bad-json", error.to_string()))?;
    let spec = CallSpec { name, args, handler: None, request: None };
    let Running { stdin, said } = state.compute.call(spec).await?;
    // Most calls have no input, and its end is here already.
    let feeding = match frames.next().now_or_never() {
        Some(Ok(None)) => None,
        first => Some(AbortOnDropHandle::new(tokio::spawn(feed(first, frames, stdin)))),
    };
    let frames = stream::unfold(Some((said, feeding)), async |state| {
        let (mut said, feeding) = state?;
        let (bytes, is_last) = encode(said.recv().await?);
        Some((Ok::<_, std::convert::Infallible>(bytes), (!is_last).then_some((said, feeding))))
    });
    let body = Body::from_stream(frames.take_until(state.stopping.cancelled_owned()));
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// One word of a call as a frame, and whether it is the last.
fn encode(said: Said) -> (Bytes, bool) {
    let outcome = match said {
        // Commands say nothing of this kind.
        Said::Head(_) => return (Bytes::new(), false),
        Said::Stdout(bytes) => return (frame::encode(frame::output::STDOUT, &bytes), false),
        Said::Stderr(bytes) => return (frame::encode(frame::output::STDERR, &bytes), false),
        Said::Ended(outcome) => outcome,
        Said::Lost(why) => Outcome::Failed { reason: format!("its node was lost: {why}") },
    };
    (frame::encode(frame::output::EXIT, &serde_json::to_vec(&outcome).unwrap_or_default()), true)
}

/// Gives a call its input. If the body breaks off, its input does not end: the call does, with whoever listens.
async fn feed(
    mut first: Option<Result<Option<Frame>, ApiError>>,
    mut frames: Frames,
    stdin: mpsc::Sender<Bytes>,
) {
    loop {
        let next = match first.take() {
            Some(next) => next,
            None => frames.next().await,
        };
        match next {
            Ok(Some(Frame { kind: frame::call::STDIN, mut payload })) => {
                while !payload.is_empty() {
                    let part = payload.split_to(payload.len().min(CHUNK));
                    if stdin.send(part).await.is_err() {
                        return;
                    }
                }
            }
            Ok(None) => return,
            Ok(Some(_)) | Err(_) => return stdin.closed().await,
        }
    }
}

/// The frames of a body.
struct Frames {
    decoder: Decoder,
    body: BodyDataStream,
}

impl Frames {
    fn new(body: Body) -> Self {
        Self { decoder: Decoder::default(), body: body.into_data_stream() }
    }

    async fn next(&mut self) -> Result<Option<Frame>, ApiError> {
        loop {
            if let Some(frame) = self.decoder.next_frame()? {
                return Ok(Some(frame));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.decoder.feed(&bytes),
                Some(Err(error)) => return Err(ApiError::bad_request("broken-body", chain(&error))),
                None => return self.decoder.finish().map(|()| None).map_err(Into::into),
            }
        }
    }
}

async fn read_program(mut frames: Frames) -> Result<(DeployRequest, Option<Bytes>), ApiError> {
    let (mut asked, mut program) = (None, BytesMut::new());
    while let Some(Frame { kind, payload }) = frames.next().await? {
        match kind {
            frame::submit::TASK if asked.is_none() => {
                let parsed = serde_json::from_slice::<DeployRequest>(&payload);
                asked = Some(parsed.map_err(|error| ApiError::bad_request("bad-json", error.to_string()))?);
            }
            frame::submit::MODULE if program.len() + payload.len() <= MAX_MODULE_BYTES => {
                program.extend_from_slice(&payload);
            }
            frame::submit::MODULE => return Err(SubmitError::TooLarge.into()),
            _ => {
                let message = format!("unexpected frame of kind {kind}");
                return Err(ApiError::bad_request("bad-frames", message));
            }
        }
    }
    let asked = asked.ok_or_else(|| ApiError::bad_request("bad-frames", "the function is missing"))?;
    Ok((asked, Some(program.freeze())))
}

impl From<DeployError> for ApiError {
    fn from(error: DeployError) -> Self {
        let message = chain(&error);
        match error {
            DeployError::Task(error) => error.into(),
            DeployError::Program(_) => Self::bad_request("bad-program", message),
            DeployError::Path(_) | DeployError::TooLong => Self::bad_request("bad-function", message),
            DeployError::PathTaken(..) => Self::new(StatusCode::CONFLICT, "path-taken", message),
            DeployError::Full => Self::new(StatusCode::INSUFFICIENT_STORAGE, "too-many-functions", message),
            DeployError::Store(error) => error.into(),
            DeployError::Compile(_) => Self::internal(&error),
        }
    }
}

impl From<FunctionError> for ApiError {
    fn from(error: FunctionError) -> Self {
        let message = chain(&error);
        match error {
            FunctionError::NotFound(_) => Self::not_found("no-such-function", message),
            FunctionError::Rollback(RollbackError::Ambiguous(..)) => {
                Self::new(StatusCode::CONFLICT, "ambiguous", message)
            }
            FunctionError::Rollback(_) => Self::not_found("no-such-version", message),
            FunctionError::Store(error) => error.into(),
        }
    }
}

impl From<FunctionStoreError> for ApiError {
    fn from(error: FunctionStoreError) -> Self {
        match error {
            FunctionStoreError::Files(error) => error.into(),
            FunctionStoreError::Write(error) => error.into(),
            other => Self::internal(&other),
        }
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let message = chain(&error);
        match error {
            CallError::NotFound(_) => Self::not_found("no-such-function", message),
            CallError::Busy(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message)
                .with_hint("try again in a moment, or add a node to the swarm"),
            CallError::Arguments => Self::bad_request("bad-call", message),
            CallError::Memory(error) => error.into(),
        }
    }
}

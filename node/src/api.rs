//! The HTTP API: everything that a user can ask of a node, one file a resource.
//!
//! A request passes, from the outside in: the doors ([`serve`]: so many connections, headers in time), the
//! answer's finish ([`answer`]: request id, error body, count), the [`guard`], the table of routes ([`route`]),
//! a handler. JSON bodies are at most [`MAX_JSON`], those of batches and documents some times that; bodies that are streams
//! have no limit and are never held, the sender waits while the reader is slow.

mod answer;
mod batches;
pub(crate) mod content;
mod docs;
pub(crate) mod error;
pub(crate) mod extract;
mod files;
mod functions;
pub(crate) mod guard;
mod health;
pub(crate) mod host_files;
mod jobs;
mod keys;
mod memory;
mod ndjson;
mod node;
mod object;
mod processes;
pub(crate) mod route;
mod schedule;
pub(crate) mod serve;
mod spaces;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use starfish_compute::Compute;
use starfish_fs::Vfs;

use self::error::ApiError;
use self::guard::Guard;
use self::route::{Content, Route, Verb};
use crate::control::Control;
use crate::gateway;
use crate::metrics::Metrics;

/// The largest JSON body: a batch of paths or a task's arguments fit many times over.
const MAX_JSON: usize = 1 << 20;

/// What the API speaks for.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) control: Arc<Control>,
    pub(crate) metrics: Arc<Metrics>,
}

/// The whole API behind `guard`.
pub(crate) fn router(services: &Services, guard: Guard) -> Router {
    // Layers wrap what is there already, so the last one is the first to see a request.
    let tree: Arc<dyn Vfs> = Arc::new(services.control.files.clone());
    let compute = services.control.compute.clone();
    route::router(table(services))
        .merge(gateway::dav(&tree))
        .merge(gateway::functions(&services.control.compute))
        .fallback(move |request| elsewhere(compute, request))
        .method_not_allowed_fallback(async || {
            let status = http::StatusCode::METHOD_NOT_ALLOWED;
            ApiError::new(status, "no-such-method", "the resource does not know this method")
        })
        .layer(DefaultBodyLimit::max(MAX_JSON))
        .layer(from_fn_with_state(guard, guard::check))
        .layer(from_fn_with_state(Arc::clone(&services.metrics), answer::finish))
}

/// What no route is for. A name that is empty is told of, and the rest may be a function's own path.
async fn elsewhere(compute: Compute, request: Request) -> Result<Response, ApiError> {
    memory::check_named(request.uri().path())?;
    gateway::own_path(compute, request).await
}

/// Every route there is.
fn table(services: &Services) -> Vec<Route> {
    let document = Arc::new(OnceLock::new());
    let mut table = vec![
        Route::new(Verb::Get, "/api/v1/openapi.json", "This document", &document, openapi)
            .gives(Content::Json("OpenAPI 3.1")),
    ];
    let Services { control, metrics } = services;
    let (memory, compute) = (control.memory.clone(), control.compute.clone());
    let stopping = control.tasks.stopping().clone();
    let tree: Arc<dyn Vfs> = Arc::new(control.files.clone());
    table.extend(health::routes(metrics));
    table.extend(node::routes(control));
    table.extend(files::routes(&tree));
    table.extend(files::usage_routes(&control.files));
    table.extend(content::routes(&tree));
    table.extend(host_files::routes(&tree));
    let memory = memory::Resource { memory, stopping: stopping.clone() };
    table.extend(memory::routes(&memory));
    table.extend(keys::routes(&memory));
    table.extend(spaces::routes(&memory));
    table.extend(docs::routes(&control.documents));
    let jobs = jobs::Resource { compute, stopping };
    table.extend(jobs::routes(&jobs));
    table.extend(batches::routes(&jobs));
    table.extend(functions::routes(&jobs));
    table.extend(schedule::routes(&jobs));
    table.extend(processes::routes(&jobs));
    table.extend(gateway::routes(&tree, control));
    let _ = document.set(Bytes::from(route::openapi(&table).to_string()));
    table
}

async fn openapi(
    State(document): State<Arc<OnceLock<Bytes>>>,
) -> ([(http::HeaderName, &'static str); 1], Bytes) {
    ([(CONTENT_TYPE, "application/json")], document.get().cloned().unwrap_or_default())
}

//! The table of routes: the router and the OpenAPI document are both made from it, so they agree.

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, on};
use http::Method;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::extract::Query;

/// One method on one path.
pub(crate) struct Route {
    pub(crate) method: Verb,
    /// In the pattern language of OpenAPI, which is also the router's: `/api/v1/jobs/{id}`. What is behind a `{*name}`
    /// may hold slashes; OpenAPI knows no such thing and is told `{name}`.
    pub(crate) path: &'static str,
    /// What it does, in a line.
    pub(crate) summary: &'static str,
    query: &'static [(&'static str, &'static str)],
    takes: Content,
    gives: Content,
    handler: MethodRouter,
}

/// The methods that this API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

/// What a body holds, in words; `Nothing` for no body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Content {
    Nothing,
    Json(&'static str),
    Bytes(&'static str),
    Events(&'static str),
    Text(&'static str),
}

impl Verb {
    pub(crate) fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Put => Method::PUT,
            Self::Post => Method::POST,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }

    fn filter(self) -> axum::routing::MethodFilter {
        match self {
            Self::Get => axum::routing::MethodFilter::GET,
            Self::Put => axum::routing::MethodFilter::PUT,
            Self::Post => axum::routing::MethodFilter::POST,
            Self::Patch => axum::routing::MethodFilter::PATCH,
            Self::Delete => axum::routing::MethodFilter::DELETE,
        }
    }
}

impl Route {
    pub(crate) fn new<H, T, S>(
        method: Verb,
        path: &'static str,
        summary: &'static str,
        state: &S,
        handler: H,
    ) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
        S: Clone + Send + Sync + 'static,
    {
        let handler = on(method.filter(), handler).with_state(state.clone());
        Self { method, path, summary, query: &[], takes: Content::Nothing, gives: Content::Nothing, handler }
    }

    /// The parameters after `?`, each with what it means.
    pub(crate) fn query(mut self, query: &'static [(&'static str, &'static str)]) -> Self {
        self.query = query;
        self
    }

    pub(crate) fn takes(mut self, takes: Content) -> Self {
        self.takes = takes;
        self
    }

    pub(crate) fn gives(mut self, gives: Content) -> Self {
        self.gives = gives;
        self
    }

    fn describe(&self) -> Value {
        let in_path = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path = in_path.map(|name| name.trim_start_matches('*'));
        let in_path = in_path
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
        let in_query = self.query.iter().map(|(name, meaning)| {
            json!({"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}})
        });
        let mut operation = json!({
            "summary": self.summary,
            "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
            "responses": {
                "2XX": answer(self.gives),
                "default": {"description": "A problem", "content": {"application/json": {
                    "schema": {"$ref": "#/components/schemas/Problem"}}}},
            },
        });
        if let Some((media, meaning)) = self.takes.media() {
            operation["requestBody"] =
                json!({"description": meaning, "required": true, "content": {media: {}}});
        }
        operation
    }
}

impl Content {
    fn media(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Nothing => None,
            Self::Json(meaning) => Some(("application/json", meaning)),
            Self::Bytes(meaning) => Some(("application/octet-stream", meaning)),
            Self::Events(meaning) => Some(("text/event-stream", meaning)),
            Self::Text(meaning) => Some(("text/plain", meaning)),
        }
    }
}

fn answer(gives: Content) -> Value {
    match gives.media() {
        None => json!({"description": "Done"}),
        Some((media, meaning)) => json!({"description": meaning, "content": {media: {}}}),
    }
}

/// The router of the table. A parameter that a route does not know is refused: whoever sent it meant something by it.
pub(crate) fn router(table: Vec<Route>) -> Router {
    table.into_iter().fold(Router::new(), |router, Route { path, query: known, handler, .. }| {
        let check = move |query: Result<Query, ApiError>, request: Request, next: Next| async move {
            match query.and_then(|query| query.check(known)) {
                Ok(()) => next.run(request).await,
                Err(error) => error.into_response(),
            }
        };
        router.route(path, handler.route_layer(middleware::from_fn(check)))
    })
}

/// The OpenAPI document of the table.
pub(crate) fn openapi(table: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in table {
        let path = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
        path[route.method.method().as_str().to_ascii_lowercase()] = route.describe();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Starfish node",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "On the Unix socket `api.sock` of the data folder, and on loopback TCP with the bearer token of `api.token`.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": {
                "type": "object",
                "required": ["code", "message", "request_id"],
                "properties": {
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "hint": {"type": "string"},
                    "request_id": {"type": "string"},
                    "detail": {"type": "object"},
                },
            }},
        },
        "security": [{"token": []}],
    })
}

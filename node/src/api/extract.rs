//! Extractors: what a handler is given is parsed, bounded and of its own type, or the request is refused.

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::MAX_JSON;
use super::error::ApiError;
use super::object::Strict;
use crate::percent;

/// A JSON body of at most [`MAX_JSON`] bytes.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let LongJson(body) = LongJson::<T, MAX_JSON>::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// A JSON body of at most `MAX` bytes, for what is more than most requests.
#[derive(Debug)]
pub(crate) struct LongJson<T, const MAX: usize>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned, const MAX: usize> FromRequest<S> for LongJson<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, ApiError> {
        DefaultBodyLimit::max(MAX).apply(&mut request);
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(Strict(body))) => Ok(Self(body)),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let message = format!("the body is longer than {MAX} bytes");
                let refusal = ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", message);
                Err(refusal.with_hint("send it in parts"))
            }
            Err(rejection) => Err(rejection.into()),
        }
    }
}

/// The query of the URL, its values any bytes; the first of a name counts.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let pairs = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                // Forms write a space as `+`; a plus sign itself is always escaped.
                Some((percent::decode(&name.replace('+', " "))?, percent::decode(&value.replace('+', " "))?))
            })
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(bad_escape)
    }
}

impl Query {
    /// The value as it came.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// Whether every parameter is one of those that are `known`, and there once.
    pub(super) fn check(&self, known: &[(&str, &str)]) -> Result<(), ApiError> {
        for (at, (name, _)) in self.0.iter().enumerate() {
            let name = String::from_utf8_lossy(name);
            if !known.iter().any(|(known, _)| *known == name) {
                let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                let there_are = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
                let message = format!("unknown parameter {name:?}: {there_are}");
                return Err(ApiError::bad_request("unknown-parameter", message));
            }
            if self.0[..at].iter().any(|(before, _)| before.as_slice() == name.as_bytes()) {
                let message = format!("the parameter {name} is there twice");
                return Err(ApiError::bad_request("bad-query", message));
            }
        }
        Ok(())
    }

    /// The value as text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let Some(value) = self.bytes(name) else { return Ok(None) };
        let text = std::str::from_utf8(value);
        text.map(Some).map_err(|_| ApiError::bad_request("bad-query", format!("{name} is not UTF-8")))
    }

    /// The value as a `T`.
    pub(super) fn parsed<T>(&self, name: &str) -> Result<Option<T>, ApiError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let parsed = text.parse();
        parsed.map(Some).map_err(|error| ApiError::bad_request("bad-query", format!("{name}: {error}")))
    }
}

/// The path's segments below `/api/v1`, decoded; unlike the framework's, they may be any bytes.
#[derive(Debug)]
pub(super) struct Segments(Vec<Vec<u8>>);

impl<S: Send + Sync> FromRequestParts<S> for Segments {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let path = parts.uri.path().strip_prefix("/api/v1/").unwrap_or_default();
        path.split('/').map(percent::decode).collect::<Option<_>>().map(Self).ok_or_else(bad_escape)
    }
}

impl Segments {
    /// The segment at `index`, which the route's pattern promises.
    pub(super) fn bytes(&self, index: usize) -> &[u8] {
        self.0.get(index).map_or(&[], Vec::as_slice)
    }

    /// The segment at `index` as text.
    pub(super) fn text(&self, index: usize) -> Result<&str, ApiError> {
        std::str::from_utf8(self.bytes(index))
            .map_err(|_| ApiError::bad_request("bad-url", "a name in the URL is not UTF-8"))
    }

    /// The segment at `index` as a `T`.
    pub(super) fn parsed<T>(&self, index: usize) -> Result<T, ApiError>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let text = self.text(index)?;
        text.parse().map_err(|error| ApiError::bad_request("bad-url", format!("{text:?}: {error}")))
    }
}

fn bad_escape() -> ApiError {
    ApiError::bad_request("bad-url", "the URL has a % that is not followed by two hex digits")
}

//! The pulse, and the numbers for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use http::header::CONTENT_TYPE;

use super::error::ApiError;
use super::route::{Content, Route, Verb};
use crate::metrics::Metrics;

pub(super) fn routes(metrics: &Arc<Metrics>) -> Vec<Route> {
    vec![
        Route::new(Verb::Get, "/healthz", "Whether the node answers; needs no token", &(), async || "ok\n")
            .gives(Content::Text("ok")),
        Route::new(Verb::Get, "/metrics", "Numbers for Prometheus", metrics, numbers)
            .gives(Content::Text("OpenMetrics 1.0")),
    ]
}

async fn numbers(
    State(metrics): State<Arc<Metrics>>,
) -> Result<([(http::HeaderName, &'static str); 1], String), ApiError> {
    let text = metrics.encode().map_err(|error| ApiError::internal(&error))?;
    Ok(([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

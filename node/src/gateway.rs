//! Files for programs that know nothing of Starfish: plain HTTP and WebDAV.
//!
//! - [`fs`]: `/fs/<path>` for browsers, curl and scripts.
//! - [`dav`]: `/dav/<path>` for file managers, `rclone` and mounts.
//!
//! They hang in the API's router, behind its guard. A URL becomes a path of the tree in [`place`] and nowhere else;
//! reading ([`download`]) and writing ([`upload`]) are the same for both. What is served may come from anybody,
//! under the origin of the API: so nothing that a browser could run is given out without a sandbox.

mod conditions;
mod dav;
mod download;
mod follow;
mod fs;
mod listing;
mod place;
mod range;
mod upload;

use std::sync::Arc;

use axum::Router;
use starfish_fs::Vfs;

use crate::api::route::Route;

/// The routes that the API's table lists.
pub(crate) fn routes(files: &Arc<dyn Vfs>) -> Vec<Route> {
    fs::routes(files)
}

/// WebDAV: methods that neither the table nor OpenAPI has words for.
pub(crate) fn dav(files: &Arc<dyn Vfs>) -> Router {
    dav::router(files)
}

/// Whether clients that know no bearer tokens come to this path.
pub(crate) fn takes_passwords(path: &str) -> bool {
    let is_below =
        |prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    is_below(fs::PREFIX) || is_below(dav::PREFIX)
}

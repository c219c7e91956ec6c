//! Files for programs that know nothing of Starfish: plain HTTP, WebDAV, and links to give away.
//!
//! - [`fs`]: `/fs/<path>` for browsers, curl and scripts.
//! - [`dav`]: `/dav/<path>` for file managers, `rclone` and mounts.
//! - [`share`]: `/s/<voucher>/<path>` for whoever has the link, to read and nothing else.
//! - [`function`]: `/fn/<name>/<path>`, and the paths that functions have of their own.
//!
//! They hang in the API's router, behind its guard. A URL becomes a path of the tree in [`place`] and nowhere else;
//! reading ([`download`]) and writing ([`upload`]) are the same for all of them. What is served may come from anybody,
//! under the origin of the API: so nothing that a browser could run is given out without a sandbox.

mod conditions;
mod dav;
mod download;
mod fs;
mod function;
mod listing;
mod place;
mod range;
mod share;
mod upload;

use std::sync::Arc;

use axum::Router;
use starfish_compute::Compute;
use starfish_fs::Vfs;

use crate::api::route::Route;
use crate::control::Control;

/// The routes that the API's table lists.
pub(crate) fn routes(files: &Arc<dyn Vfs>, control: &Arc<Control>) -> Vec<Route> {
    let mut table = fs::routes(files);
    table.extend(share::routes(files, control));
    table
}

/// WebDAV: methods that neither the table nor OpenAPI has words for.
pub(crate) fn dav(files: &Arc<dyn Vfs>) -> Router {
    dav::router(files)
}

/// Functions by their names, with any method.
pub(crate) fn functions(compute: &Compute) -> Router {
    function::router(compute)
}

/// What is asked for nowhere else may be a function's own path.
pub(crate) use self::function::own_path;

/// Whether clients that know no bearer tokens come to this path.
pub(crate) fn takes_passwords(path: &str) -> bool {
    let is_below =
        |prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    is_below(fs::PREFIX) || is_below(dav::PREFIX)
}

/// Whether the path is a share link, which needs no other token.
pub(crate) fn is_share(path: &str) -> bool {
    path.starts_with(share::PREFIX)
}

/// The identifier by which a share link is revoked, given the link or the voucher in it.
pub(crate) fn revocation_id(link: &str) -> Option<Vec<u8>> {
    share::revocation_id(link)
}

/// The path for the log, without the secret that a share link is.
pub(crate) fn loggable(path: &str) -> &str {
    if is_share(path) { share::PREFIX } else { path }
}

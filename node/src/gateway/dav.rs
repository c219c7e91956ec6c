//! `/dav/<path>`: the tree over WebDAV, for file managers, `rclone` and mounts.
//!
//! Reading and changing files is the same here as under `/fs`, so that every write streams and is whole or not at all.
//! `dav-server` speaks the rest of the protocol: properties, folders and locks. The locks are for show, since some
//! clients write to nothing that they cannot lock: in a swarm without a leader nobody could keep them.

mod transfer;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use dav_server::DavHandler;
use dav_server::fakels::FakeLs;
use http::{HeaderName, HeaderValue, StatusCode};
use starfish_fs::vfs::{Parents, Removal, Vfs};

use self::view::Tree;
use super::place::Place;
use super::{fs, upload};
use crate::api::error::ApiError;

/// Where it is, without the slash behind it.
pub(super) const PREFIX: &str = "/dav";

const DAV: HeaderName = HeaderName::from_static("dav");
const DEPTH: HeaderName = HeaderName::from_static("depth");

#[derive(Clone)]
struct Dav {
    files: Arc<dyn Vfs>,
    protocol: DavHandler,
}

pub(super) fn router(files: &Arc<dyn Vfs>) -> Router {
    let protocol = DavHandler::builder()
        .filesystem(Box::new(Tree(files.clone())))
        .locksystem(FakeLs::new())
        .strip_prefix(PREFIX)
        .hide_symlinks(false)
        .build_handler();
    Router::new()
        .route("/dav", any(handle))
        .route("/dav/", any(handle))
        .route("/dav/{*path}", any(handle))
        .with_state(Dav { files: files.clone(), protocol })
}

async fn handle(State(dav): State<Dav>, request: Request) -> Result<Response, ApiError> {
    match request.method().as_str() {
        "GET" | "HEAD" => fs::show(&dav.files, PREFIX, &request.into_parts().0).await,
        "PUT" => {
            let (asked, body) = request.into_parts();
            let place = Place::of(&asked.uri, PREFIX)?;
            upload::put(&dav.files, &place, &asked, body, Parents::MustExist).await
        }
        "DELETE" => {
            let asked = request.into_parts().0;
            let place = Place::of(&asked.uri, PREFIX)?;
            Ok(fs::delete(&dav.files, &place, &asked, Removal::Recursive).await?.into_response())
        }
        "COPY" | "MOVE" => transfer::transfer(&dav.files, &request.into_parts().0).await,
        "PROPFIND" if is_endless(&request) => Err(endless()),
        "OPTIONS" | "PROPFIND" | "PROPPATCH" | "MKCOL" | "LOCK" | "UNLOCK" => {
            Place::of(request.uri(), PREFIX)?;
            Ok(dav.speak(request).await)
        }
        _ => Err(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "no-such-method",
            "the resource does not know this method",
        )),
    }
}

impl Dav {
    async fn speak(&self, request: Request) -> Response {
        let mut response = self.protocol.handle(request).await.map(Body::new);
        // The library also offers to change parts of files, which here are written whole.
        if let Some(offered) = response.headers_mut().get_mut(DAV) {
            *offered = HeaderValue::from_static("1, 2");
        }
        response
    }
}

/// Whether the whole tree below is asked for at once, which has no bound, and with links no end.
fn is_endless(request: &Request) -> bool {
    request.headers().get(DEPTH).is_some_and(|depth| depth.as_bytes().eq_ignore_ascii_case(b"infinity"))
}

fn endless() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "propfind-finite-depth", "folders are listed one at a time")
        .with_hint("send `Depth: 1`")
}

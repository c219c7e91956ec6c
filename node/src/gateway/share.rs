//! `/s/<voucher>/<path>`: a link to give away. Whoever has it reads one path and what is below, until it ends.
//!
//! The link holds a [`Voucher`] of the node that made it, and the whole path, so any member can answer it without having
//! heard of it. To know the maker for a member, others need its pass; so a node that shares leaves its pass, which is of
//! no use to anybody else, in the shared memory. Each request is checked anew: the voucher, then the path that was
//! asked for, then the path where that really leads, links and all. Who is refused learns of nothing that lies there.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use starfish_dht::PeerId;
use starfish_dht::membership::{Good, Right, Token, Voucher, VoucherError, VoucherRefusal};
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Kind, Vfs};
use starfish_memory::{ReadError, Space, SpaceError, WriteError};

use super::download::{self, View};
use super::place::{self, Place};
use crate::api::error::{ApiError, chain};
use crate::api::extract::Json;
use crate::api::route::{Content, Route, Verb};
use crate::control::Control;
use crate::membership::swarm_of;
use crate::wire::{Share, ShareRequest};
use starfish_fs::links;

/// What every link's path begins with.
pub(super) const PREFIX: &str = "/s/";

/// How long a link is good for when nobody says otherwise.
const VALID: Duration = Duration::from_secs(24 * 3600);
/// As for tickets: a secret that is out for longer should be made anew.
const VALID_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// What keys of passes begin with, in the space `sys`. WIRE: then the PeerId; the value is [`PASS_VERSION`] and the pass.
const PASS_PREFIX: &[u8] = b"pass/";
const PASS_VERSION: u8 = 1;

/// What this resource needs.
#[derive(Clone, Debug)]
struct Shares {
    files: Arc<dyn Vfs>,
    node: Arc<Control>,
}

/// Why no link was made.
#[derive(Debug, thiserror::Error)]
enum ShareError {
    #[error("a link is good for a second at least and a year at most")]
    NoSuchTime,
    #[error("this node's membership does not allow it to let others in, not even to read")]
    MayNot,
    #[error("this node is only on its way into the swarm")]
    Provisional,
    #[error("cannot publish this node's pass")]
    Write(#[from] WriteError),
    #[error("cannot look up this node's pass")]
    Pass(#[from] PassError),
    #[error(transparent)]
    Voucher(#[from] VoucherError),
}

/// Why a pass could not be looked up.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error("the shared memory has no place for it")]
    Space(#[from] SpaceError),
    #[error("cannot read the shared memory")]
    Read(#[from] ReadError),
}

pub(super) fn routes(files: &Arc<dyn Vfs>, node: &Arc<Control>) -> Vec<Route> {
    let shares = Shares { files: files.clone(), node: node.clone() };
    let read = |path| {
        Route::new(Verb::Get, path, "What a share link opens; needs no token", &shares, read)
            .query(&[("json", "a folder as JSON; so does `Accept: application/json`")])
            .gives(Content::Bytes("the content, or what is in the folder"))
    };
    vec![
        Route::new(Verb::Post, "/api/v1/share", "Make a link that lets others read a path", &shares, make)
            .takes(Content::Json("{path, expires_s}, the second optional"))
            .gives(Content::Json("{url, path, expires_ms}")),
        read("/s/{token}"),
        read("/s/{token}/"),
        read("/s/{token}/{*path}"),
    ]
}

async fn make(
    State(shares): State<Shares>,
    Json(request): Json<ShareRequest>,
) -> Result<(StatusCode, axum::Json<Share>), ApiError> {
    // The link opens what is there and not a name for it, which may lead elsewhere tomorrow.
    let path = links::real_path(&*shares.files, &request.path).await?;
    let entry = shares.files.stat(&path).await?;
    let valid = request.expires_s.map_or(VALID, Duration::from_secs);
    if valid.is_zero() || valid > VALID_MAX {
        return Err(ShareError::NoSuchTime.into());
    }
    let end = SystemTime::now() + valid;
    let voucher = shares.vouch(&path, end).await?;
    let slash = if entry.kind == Kind::Dir { "/" } else { "" };
    let url = format!("http://{}{PREFIX}{voucher}{}{slash}", shares.node.api, place::encode(&path));
    tracing::info!(%path, valid_s = valid.as_secs(), "made a share link");
    let since = end.duration_since(UNIX_EPOCH).unwrap_or_default();
    let expires_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Ok((StatusCode::CREATED, axum::Json(Share { url, path, expires_ms })))
}

async fn read(State(shares): State<Shares>, asked: Parts) -> Result<Response, ApiError> {
    let rest = asked.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let (voucher, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let link = shares.check(&voucher.parse()?).await?;
    let place = &Place::parse(rest)?;
    link.opens(place.path.as_str())?;
    let path = &links::real_path(&*shares.files, &place.path).await?;
    link.opens(path.as_str())?;
    let has_parent = place.path.parent().is_some_and(|parent| link.opens(parent.as_str()).is_ok());
    let view = View { files: &shares.files, place, path, has_parent, shows_targets: false };
    download::answer(view, &asked).await
}

impl Shares {
    /// This node's word on `path`, in a form that every member can check.
    async fn vouch(&self, path: &VfsPath, end: SystemTime) -> Result<Voucher, ShareError> {
        let Control { network, credentials, .. } = &*self.node;
        let me = network.local_peer();
        let (verified, pass) = {
            let credentials = credentials.read().unwrap_or_else(PoisonError::into_inner);
            if credentials.is_provisional() {
                return Err(ShareError::Provisional);
            }
            (credentials.verified(me, network.revocations()), credentials.pass().clone())
        };
        if !verified.is_ok_and(|verified| verified.rights.contains(Right::Invite)) {
            return Err(ShareError::MayNot);
        }
        if self.pass_of(me).await?.as_ref() != Some(&pass) {
            let value = [&[PASS_VERSION], pass.as_bytes()].concat();
            self.space().map_err(PassError::from)?.set(&key(me), Bytes::from(value), None).await?;
        }
        Ok(Voucher::issue(network.identity(), path.as_str(), end)?)
    }

    /// The voucher, once its maker and signature are known to be good.
    async fn check(&self, voucher: &Voucher) -> Result<Good, ApiError> {
        let pass = self.pass_of(voucher.issuer()).await.map_err(|error| ApiError::internal(&error))?;
        let pass = pass.ok_or_else(|| refused("bad-link", "nobody here knows who made the link"))?;
        let swarm = swarm_of(&self.node.credentials);
        Ok(voucher.check(&pass, swarm, SystemTime::now(), self.node.network.revocations())?)
    }

    async fn pass_of(&self, peer: PeerId) -> Result<Option<Token>, PassError> {
        let value = self.space()?.get(&key(peer)).await?;
        Ok(value.and_then(|value| match value.split_first() {
            Some((&PASS_VERSION, token)) => Some(Token::from_bytes(token.to_vec())),
            _ => None,
        }))
    }

    fn space(&self) -> Result<Space, SpaceError> {
        self.node.memory.space("sys")
    }
}

/// The identifier by which a link is revoked.
pub(super) fn revocation_id(link: &str) -> Option<Vec<u8>> {
    let voucher = link.split_once(PREFIX).map_or(link, |(_, rest)| rest);
    voucher.split('/').next()?.parse::<Voucher>().ok()?.revocation_id()
}

fn key(peer: PeerId) -> Vec<u8> {
    [PASS_PREFIX, &peer.to_bytes()].concat()
}

fn refused(code: &str, message: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, code, message).with_hint("ask for a new link")
}

impl From<VoucherRefusal> for ApiError {
    fn from(refusal: VoucherRefusal) -> Self {
        match refusal {
            VoucherRefusal::Malformed | VoucherRefusal::BadSignature => {
                refused("bad-link", "this is no share link, or not all of it, or it was changed")
            }
            VoucherRefusal::Issuer(_) | VoucherRefusal::MayNot => {
                refused("bad-link", "who made the link may not share anything, or not any more")
            }
            VoucherRefusal::Revoked => refused("link-revoked", "the link was revoked"),
            VoucherRefusal::Expired => refused("link-expired", "the link has expired"),
            VoucherRefusal::Elsewhere => refused("link-elsewhere", "the link does not lead there"),
        }
    }
}

impl From<ShareError> for ApiError {
    fn from(error: ShareError) -> Self {
        let message = chain(&error);
        match error {
            ShareError::NoSuchTime => Self::bad_request("bad-share", message),
            ShareError::MayNot => Self::new(StatusCode::FORBIDDEN, "not-allowed", message)
                .with_hint("ask a member whose role is `peer` or `member`"),
            ShareError::Provisional => Self::unavailable("provisional", message),
            ShareError::Write(_) | ShareError::Pass(_) | ShareError::Voucher(_) => Self::internal(&error),
        }
    }
}

//! The node itself, its members, tickets and revocations.

use std::sync::Arc;

use axum::Json as JsonAnswer;
use axum::extract::State;
use http::StatusCode;
use starfish_dht::PeerId;
use starfish_dht::membership::CredentialsError;

use super::error::{ApiError, chain};
use super::extract::{Json, Segments};
use super::route::{Content, Route, Verb};
use crate::control::{Control, InviteError, RevocationError};
use crate::revocation::RevokeError;
use crate::task::WorkerInfo;
use crate::wire::{Invitation, InviteRequest, NodeId, Peer, RevokeRequest, Status};

type Node = State<Arc<Control>>;

pub(super) fn routes(node: &Arc<Control>) -> Vec<Route> {
    vec![
        Route::new(Verb::Get, "/api/v1/status", "How this node is", node, status)
            .gives(Content::Json("Status")),
        Route::new(Verb::Get, "/api/v1/id", "Who this node is", node, id)
            .gives(Content::Json("{peer, swarm}")),
        Route::new(Verb::Get, "/api/v1/peers", "The other members", node, peers)
            .gives(Content::Json("[{id, addrs, alive, ..}]")),
        Route::new(Verb::Get, "/api/v1/workers", "The node's long-lived tasks", node, workers)
            .gives(Content::Json("[{name, alive}]")),
        Route::new(Verb::Post, "/api/v1/invite", "Make a ticket", node, invite)
            .takes(Content::Json("{role, expires_s, for}, all optional; roles are peer, member, worker"))
            .gives(Content::Json("{ticket}")),
        Route::new(
            Verb::Post,
            "/api/v1/revoke",
            "End the rights of a member, a ticket or a share link, on every node",
            node,
            revoke,
        )
        .takes(Content::Json("{peer}, {ticket} or {link}")),
        Route::new(Verb::Put, "/api/v1/blocks/{peer}", "Refuse a peer on this node only", node, block),
        Route::new(Verb::Delete, "/api/v1/blocks/{peer}", "Refuse it no longer", node, unblock),
        Route::new(
            Verb::Post,
            "/api/v1/handover",
            "Give others what this node keeps of their files; breaking off is safe",
            node,
            hand_over,
        ),
        Route::new(Verb::Get, "/api/v1/handover", "How far that is", node, handover)
            .gives(Content::Json("{total, done}")),
        Route::new(Verb::Post, "/api/v1/leave", "Leave the swarm for good, and stop", node, leave),
        Route::new(Verb::Post, "/api/v1/stop", "Stop the node", node, stop),
    ]
}

async fn status(State(node): Node) -> JsonAnswer<Status> {
    JsonAnswer(node.status())
}

async fn id(State(node): Node) -> JsonAnswer<NodeId> {
    JsonAnswer(node.id())
}

async fn peers(State(node): Node) -> JsonAnswer<Vec<Peer>> {
    JsonAnswer(node.peers())
}

async fn workers(State(node): Node) -> JsonAnswer<Vec<WorkerInfo>> {
    JsonAnswer(node.workers())
}

async fn invite(
    State(node): Node,
    Json(request): Json<InviteRequest>,
) -> Result<(StatusCode, JsonAnswer<Invitation>), ApiError> {
    Ok((StatusCode::CREATED, JsonAnswer(node.invite(&request)?)))
}

async fn revoke(State(node): Node, Json(request): Json<RevokeRequest>) -> Result<StatusCode, ApiError> {
    node.revoke(request).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn block(State(node): Node, segments: Segments) -> Result<StatusCode, ApiError> {
    node.block(segments.parsed::<PeerId>(1)?).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn unblock(State(node): Node, segments: Segments) -> Result<StatusCode, ApiError> {
    node.unblock(segments.parsed::<PeerId>(1)?).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn hand_over(State(node): Node) -> Result<StatusCode, ApiError> {
    node.hand_over().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn handover(State(node): Node) -> JsonAnswer<starfish_fs::Handover> {
    JsonAnswer(node.files.handover())
}

async fn leave(State(node): Node) -> StatusCode {
    node.leave().await;
    StatusCode::ACCEPTED
}

async fn stop(State(node): Node) -> StatusCode {
    node.stop();
    StatusCode::ACCEPTED
}

impl From<starfish_fs::HandoverError> for ApiError {
    fn from(error: starfish_fs::HandoverError) -> Self {
        let refusal = Self::unavailable("not-handed-over", chain(&error));
        refusal.with_hint(
            "try again when others are there, or leave with --force: what this node keeps is then put aside as \
             left-... in its data folder",
        )
    }
}

impl From<InviteError> for ApiError {
    fn from(error: InviteError) -> Self {
        let message = chain(&error);
        match error {
            InviteError::Role(_) | InviteError::TooLong => Self::bad_request("bad-invitation", message),
            InviteError::Credentials(
                CredentialsError::MayNotInvite | CredentialsError::MoreThanOwn { .. },
            ) => Self::new(StatusCode::FORBIDDEN, "not-allowed", message)
                .with_hint("ask a member whose role is `peer`"),
            InviteError::Credentials(_) => Self::internal(&error),
        }
    }
}

impl From<RevocationError> for ApiError {
    fn from(error: RevocationError) -> Self {
        let message = chain(&error);
        match error {
            RevocationError::Ticket(_) | RevocationError::OtherSwarm | RevocationError::Link => {
                Self::bad_request("bad-ticket", message)
            }
            RevocationError::Oneself => {
                Self::bad_request("oneself", message).with_hint("run `starfish leave`")
            }
            RevocationError::Revoke(RevokeError::MayNot) => {
                Self::new(StatusCode::FORBIDDEN, "not-allowed", message)
            }
            RevocationError::Revoke(_) => Self::internal(&error),
        }
    }
}

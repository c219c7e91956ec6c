//! How errors end a verb: the exit status, and what to do about it.

use starfish_node::dht::SetupError;
use starfish_node::fs::copying::CopyError;
use starfish_node::fs::path::PathError;
use starfish_node::fs::vfs::VfsError;
use starfish_node::{ClientError, DataDir, StartError};

use super::program;

/// It failed, and trying the same again will fail again.
pub const FAILED: i32 = 1;
/// The command line makes no sense.
pub const USAGE: i32 = 2;
/// There is no node to ask.
pub const NOT_RUNNING: i32 = 3;
/// There is no such file, key, job or peer.
pub const NOT_FOUND: i32 = 4;
/// Trying again may help.
pub const TEMPORARY: i32 = 5;
/// Somebody with more rights must do this.
pub const NOT_ALLOWED: i32 = 6;
/// A program did not get to run, or not to its end, for a reason that is not its own: as `docker run`.
pub const NOT_RUN: i32 = 125;

/// What was asked for is not there. A verb returns it for what the node has no error of its own for.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotFound(pub String);

/// A program was not run, with its name. What a program itself exits with must not be mistaken for it, so errors
/// that would end in [`FAILED`] end in [`NOT_RUN`] under it.
#[derive(Debug, thiserror::Error)]
#[error("{0} was not run")]
pub struct NotRun(pub String);

/// A program was run, but what it said could not be passed on.
#[derive(Debug, thiserror::Error)]
#[error("what the program says cannot be written")]
pub struct Unheard(#[source] pub std::io::Error);

/// Neither a verb nor a built-in of the shell.
#[derive(Debug, thiserror::Error)]
#[error("{0}: no such verb")]
pub struct NoSuchVerb(pub String);

/// The swarm does not let the node in; what it said as it ended.
#[derive(Debug, thiserror::Error)]
#[error("the node did not start, since the swarm does not let it in:\n{0}")]
pub struct NotLetIn(pub String);

/// What went wrong with `program`, if it was not run.
pub(super) fn not_run(error: anyhow::Error, program: &str) -> anyhow::Error {
    if error.is::<Unheard>() { error } else { error.context(NotRun(program.to_owned())) }
}

/// The status that this error ends a verb with.
pub fn status(error: &anyhow::Error) -> i32 {
    let otherwise = if error.is::<NotRun>() || error.is::<Unheard>() { NOT_RUN } else { FAILED };
    error.chain().find_map(of_cause).unwrap_or(otherwise)
}

/// What the user can do next.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    if error.is::<NoSuchVerb>() {
        return Some("starfish --help lists the verbs".to_owned());
    }
    error.chain().find_map(|cause| match cause.downcast_ref::<ClientError>() {
        Some(ClientError::NotRunning { data_dir }) => {
            Some(format!("start a node: {} up", program(&DataDir::new(data_dir))))
        }
        Some(ClientError::Refused(problem)) => problem.body.hint.clone(),
        Some(_) => None,
        None => hint_of_start(cause.downcast_ref()?),
    })
}

fn hint_of_start(error: &StartError) -> Option<String> {
    let other = |flag: &str, variable: &str| {
        format!("take another port with {flag} or {variable}; 0 is any that is free")
    };
    match error {
        StartError::Api { .. } => Some(other("--api-port", "STARFISH_API_PORT")),
        StartError::Network(SetupError::Listen { .. }) => Some(other("--port", "STARFISH_PORT")),
        StartError::TurnedAway { .. } => {
            Some("ask for a new ticket: starfish invite, at a member".to_owned())
        }
        _ => None,
    }
}

/// Whether the reader of standard output left, which is a clean end. A node that went away in the middle of a request is
/// none, though its socket breaks in the same way: then this is the cause of another error, and not the error itself.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<i32> {
    if cause.is::<NoSuchVerb>() {
        return Some(USAGE);
    }
    if cause.is::<NotLetIn>() {
        return Some(NOT_ALLOWED);
    }
    if cause.is::<NotFound>() {
        return Some(NOT_FOUND);
    }
    if let Some(error) = cause.downcast_ref::<ClientError>() {
        return of_client(error);
    }
    if matches!(cause.downcast_ref(), Some(PathError::Empty)) {
        return Some(NOT_FOUND);
    }
    if let Some(error) = cause.downcast_ref::<VfsError>() {
        return of_tree(error);
    }
    match cause.downcast_ref::<CopyError>() {
        Some(CopyError::Tree(error)) => of_tree(error),
        Some(_) => Some(FAILED),
        None => match cause.downcast_ref()? {
            StartError::TurnedAway { .. } => Some(NOT_ALLOWED),
            _ => Some(FAILED),
        },
    }
}

fn of_client(error: &ClientError) -> Option<i32> {
    match error {
        ClientError::NotRunning { .. } => Some(NOT_RUNNING),
        ClientError::Interrupted { .. } => Some(TEMPORARY),
        ClientError::Refused(problem) if problem.is_not_found() => Some(NOT_FOUND),
        ClientError::Refused(problem) if problem.is_forbidden() => Some(NOT_ALLOWED),
        ClientError::Refused(problem) if problem.is_temporary() => Some(TEMPORARY),
        _ => None,
    }
}

fn of_tree(error: &VfsError) -> Option<i32> {
    match error {
        VfsError::NotFound { .. } | VfsError::Path(PathError::Empty) => Some(NOT_FOUND),
        VfsError::Unavailable { .. } => Some(TEMPORARY),
        _ => None,
    }
}

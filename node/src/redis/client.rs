//! `CLIENT`: what a client calls itself. Nothing depends on it; libraries set it when they connect.

use bytes::Bytes;

use super::args::Args;
use super::command::Command;
use super::refusal::Refusal;
use super::reply::Reply;
use super::session::Session;

/// The longest name of a client, in bytes; it is kept as long as its connection.
const MAX_NAME: usize = 1024;

/// What a client may say of itself, or ask about itself.
#[derive(Debug)]
pub(super) enum Client {
    SetName(Bytes),
    Name,
    Id,
    /// Which library it uses. Nobody asks for it here.
    SetInfo,
}

/// What is known of a client.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) id: i64,
    /// Empty if it has none.
    name: Bytes,
}

impl Client {
    pub(super) fn read(mut args: Args) -> Result<Command, Refusal> {
        let what = args.option().unwrap_or_default();
        let client = match (what.as_str(), args.len()) {
            ("SETNAME", 1) => Self::SetName(name(args.next()?)?),
            ("GETNAME", 0) => Self::Name,
            ("ID", 0) => Self::Id,
            ("SETINFO", 2) => Self::SetInfo,
            ("SETNAME" | "GETNAME" | "ID" | "SETINFO", _) => return Err(Refusal::Arity(args.command())),
            _ => return Err(Refusal::unknown_subcommand(args.command(), &what)),
        };
        Ok(Command::Session(Session::Client(client)))
    }
}

/// A name as it may be; an empty one takes the name away.
pub(super) fn name(name: Bytes) -> Result<Bytes, Refusal> {
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::ClientName);
    }
    match name.len() {
        // A copy: it may be a piece of something larger.
        ..=MAX_NAME => Ok(Bytes::copy_from_slice(&name)),
        _ => Err(Refusal::ClientNameTooLong(MAX_NAME)),
    }
}

impl Identity {
    pub(super) fn new(id: i64) -> Self {
        Self { id, name: Bytes::new() }
    }

    pub(super) fn rename(&mut self, name: Bytes) {
        self.name = name;
    }

    /// Does what the client says, or answers what it asks.
    pub(super) fn answer(&mut self, client: Client) -> Reply {
        match client {
            Client::SetName(name) => {
                self.rename(name);
                Reply::OK
            }
            Client::Name if self.name.is_empty() => Reply::Null,
            Client::Name => Reply::Bytes(self.name.clone()),
            Client::Id => Reply::Integer(self.id),
            Client::SetInfo => Reply::OK,
        }
    }
}

//! Why a command is refused, in the words that Redis has for it: clients tell errors apart by them.

use starfish_memory::{IncrementError, ReadError, WriteError};

use super::reply::Reply;
use crate::api::error::chain;

/// How much of what a client sent is repeated to it.
const MAX_REPEATED: usize = 128;

/// Why a command is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("ERR unknown command '{name}', with args beginning with: {args}")]
    UnknownCommand { name: String, args: String },
    #[error("ERR unknown subcommand '{name}' of '{command}'")]
    UnknownSubcommand { command: &'static str, name: String },
    #[error("ERR Invalid command specified")]
    NoSuchCommand,
    #[error("ERR Invalid number of arguments specified for command")]
    NoSuchArguments,
    #[error("ERR The command has no key arguments")]
    NoKeys,
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    #[error("ERR syntax error")]
    Syntax,
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    #[error("ERR hash value is not an integer")]
    FieldNotAnInteger,
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    #[error("ERR value is not a valid float")]
    NotAFloat,
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    #[error("ERR invalid expire time in '{0}' command")]
    ExpireTime(&'static str),
    #[error("ERR Unsupported option {0}")]
    UnsupportedOption(String),
    #[error("ERR {0} options at the same time are not compatible")]
    Incompatible(&'static str),
    #[error("ERR only plain values expire here, not hashes and sets")]
    NoExpiry,
    #[error("ERR Client names cannot contain spaces, newlines or special characters.")]
    ClientName,
    #[error("ERR Client names are up to {0} bytes long here")]
    ClientNameTooLong(usize),
    #[error("ERR DB index is out of range")]
    Database,
    #[error("ERR invalid cursor: it is none, or so old that it was forgotten; begin again with 0")]
    Cursor,
    #[error("ERR the values are longer than {0} bytes together: get them one by one")]
    TooMuchTogether(u64),
    #[error("ERR more than {0} keys: use SCAN")]
    TooManyKeys(usize),
    #[error("ERR the pattern is longer than {0} bytes")]
    PatternTooLong(usize),
    #[error("ERR a {0} must not be empty")]
    Empty(&'static str),
    #[error("ERR a field must not begin with a zero byte")]
    Field,
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    #[error("NOAUTH Authentication required.")]
    NoAuth,
    #[error(
        "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> \
         <pass> option can be used to authenticate the client and select the RESP protocol version at the same time"
    )]
    NoAuthHello,
    #[error("WRONGPASS invalid username-password pair or user is disabled.")]
    WrongPass,
    #[error("NOPROTO unsupported protocol version")]
    NoProtocol,
    #[error(
        "ERR Can't execute '{0}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
         context"
    )]
    Subscribed(&'static str),
    #[error("ERR more than {0} channels in one connection")]
    TooManyChannels(usize),
    #[error("ERR the message and its channel are longer than {0} bytes together: put it under a key")]
    MessageTooLong(usize),
    #[error("ERR the network is busy, try again")]
    Busy,
    #[error("MISCONF Errors writing to the disk: {0}")]
    NoRoom(String),
    #[error("ERR {0}")]
    Other(String),
}

impl Refusal {
    pub(super) fn unknown_command(request: &[impl AsRef<[u8]>]) -> Self {
        let shown =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_REPEATED)]).into_owned();
        let name = request.first().map(|name| shown(name.as_ref())).unwrap_or_default();
        let mut args = String::new();
        for arg in request.iter().skip(1) {
            if args.len() > MAX_REPEATED {
                break;
            }
            args.push_str(&format!("'{}' ", shown(arg.as_ref())));
        }
        Self::UnknownCommand { name, args }
    }

    pub(super) fn unknown_subcommand(command: &'static str, name: &str) -> Self {
        Self::UnknownSubcommand { command, name: name.chars().take(MAX_REPEATED).collect() }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Error(refusal.to_string())
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::Other(chain(&error))
    }
}

impl From<WriteError> for Refusal {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Increment(IncrementError::NotAnInteger) => Self::NotAnInteger,
            WriteError::Increment(IncrementError::Overflow) => Self::Overflow,
            WriteError::Empty { what } => Self::Empty(what),
            // The API has its hints apart; here there is one line.
            WriteError::ValueTooLong { .. } => Self::Other(format!("{}: put it into a file", chain(&error))),
            WriteError::ReservedField => Self::Field,
            WriteError::Commit(_) if error.is_no_room() => Self::NoRoom(chain(&error)),
            _ => Self::Other(chain(&error)),
        }
    }
}

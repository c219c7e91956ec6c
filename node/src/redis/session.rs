//! Commands of the connection itself: who is there, which protocol is spoken, what the server is.

use bytes::Bytes;

use super::args::{Args, integer};
use super::client::{self, Client};
use super::command::Command;
use super::refusal::Refusal;
use super::reply::{Protocol, Reply};

/// What clients are told that asks for the version of Redis: the commands here are as in that one.
pub(super) const REDIS_VERSION: &str = "7.0.0";

/// The only user there is.
const USER: &[u8] = b"default";

/// A command of the connection.
#[derive(Debug)]
pub(super) enum Session {
    Ping(Option<Bytes>),
    Auth(Credentials),
    Hello(Greeting),
    Client(Client),
    /// The only database there is: reading the command has checked that.
    Select,
    Catalogue(Catalogue),
    Info,
    Quit,
}

/// What `COMMAND` tells of the commands there are.
#[derive(Debug)]
pub(super) enum Catalogue {
    All,
    Count,
    /// No command is documented here.
    Docs,
    Names,
    /// Of these commands, in their order.
    Info(Vec<Bytes>),
    /// Which words of a request are keys.
    Keys(Vec<Bytes>),
}

/// What a client says in a `HELLO`.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    pub(super) protocol: Option<Protocol>,
    pub(super) credentials: Option<Credentials>,
    /// What it calls itself.
    pub(super) name: Option<Bytes>,
}

/// What a client shows to be let in.
#[derive(Debug)]
pub(super) struct Credentials {
    /// The user is the only one there is.
    pub(super) is_known_user: bool,
    pub(super) password: Bytes,
}

type Parsed = Result<Command, Refusal>;

impl Session {
    pub(super) fn ping(mut args: Args) -> Parsed {
        match args.len() {
            0 => Ok(Command::Session(Self::Ping(None))),
            1 => Ok(Command::Session(Self::Ping(Some(args.next()?)))),
            _ => Err(Refusal::Arity(args.command())),
        }
    }

    pub(super) fn auth(mut args: Args) -> Parsed {
        let credentials = match args.len() {
            1 => Credentials { is_known_user: true, password: args.next()? },
            2 => Credentials::read(&mut args)?,
            _ => return Err(Refusal::Syntax),
        };
        Ok(Command::Session(Self::Auth(credentials)))
    }

    pub(super) fn hello(mut args: Args) -> Parsed {
        let protocol = match args.next().ok().map(|version| integer(&version)) {
            None => None,
            Some(Some(2)) => Some(Protocol::Resp2),
            Some(Some(3)) => Some(Protocol::Resp3),
            Some(_) => return Err(Refusal::NoProtocol),
        };
        let mut greeting = Greeting { protocol, ..Greeting::default() };
        while let Some(option) = args.option() {
            match option.as_str() {
                "AUTH" => greeting.credentials = Some(Credentials::read(&mut args)?),
                "SETNAME" => greeting.name = Some(client::name(args.value()?)?),
                _ => return Err(Refusal::Syntax),
            }
        }
        Ok(Command::Session(Self::Hello(greeting)))
    }

    pub(super) fn select(mut args: Args) -> Parsed {
        match args.integer()? {
            0 => Ok(Command::Session(Self::Select)),
            _ => Err(Refusal::Database),
        }
    }

    pub(super) fn command(mut args: Args) -> Parsed {
        let Some(what) = args.option() else { return Ok(Command::Session(Self::Catalogue(Catalogue::All))) };
        Ok(Command::Session(Self::Catalogue(match (what.as_str(), args.len()) {
            ("COUNT", 0) => Catalogue::Count,
            ("DOCS", _) => Catalogue::Docs,
            ("LIST", 0) => Catalogue::Names,
            ("INFO", 0) => Catalogue::All,
            ("INFO", _) => Catalogue::Info(args.all()),
            ("GETKEYS", 1..) => Catalogue::Keys(args.all()),
            ("COUNT" | "LIST" | "GETKEYS", _) => return Err(Refusal::Arity(args.command())),
            _ => return Err(Refusal::unknown_subcommand(args.command(), &what)),
        })))
    }

    pub(super) fn info(_: Args) -> Parsed {
        Ok(Command::Session(Self::Info))
    }

    pub(super) fn quit(_: Args) -> Parsed {
        Ok(Command::Session(Self::Quit))
    }
}

impl Credentials {
    fn read(args: &mut Args) -> Result<Self, Refusal> {
        Ok(Self { is_known_user: args.value()? == USER, password: args.value()? })
    }
}

/// The answer to `HELLO`.
pub(super) fn greeting(protocol: Protocol, id: i64) -> Reply {
    let version = match protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    let pairs = [
        ("server", Reply::text("redis")),
        ("version", Reply::text(REDIS_VERSION)),
        ("proto", Reply::Integer(version)),
        ("id", Reply::Integer(id)),
        ("mode", Reply::text("standalone")),
        ("role", Reply::text("master")),
        ("modules", Reply::Array(Vec::new())),
    ];
    Reply::Map(pairs.into_iter().map(|(name, value)| (Reply::text(name), value)).collect())
}

/// The answer to `INFO`.
pub(super) fn info(cells: u64) -> Reply {
    Reply::text(format!(
        "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nserver_name:starfish\r\n\
         starfish_version:{version}\r\nprocess_id:{pid}\r\n\r\n\
         # Memory\r\nstarfish_cells:{cells}\r\n\r\n\
         # Replication\r\nrole:master\r\nconnected_slaves:0\r\n",
        version = env!("CARGO_PKG_VERSION"),
        pid = std::process::id(),
    ))
}

//! One client: reads what it asks, lets it be done, sends the answers, and in between the messages that it subscribed to.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis_protocol::error::RedisProtocolError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::channels::{Channels, Missed, Subscriptions};
use super::client::Identity;
use super::command::Command;
use super::pipeline::{Engine, Pipeline};
use super::refusal::Refusal;
use super::reply::{Protocol, Reply};
use super::request::{Request, Requests};
use super::session::{Credentials, Greeting, Session, greeting};
use crate::api::guard::Token;

/// Who has not shown the password after this long loses the connection.
const AUTH_DEADLINE: Duration = Duration::from_secs(10);
/// A client that is silent for this long amid a request loses its connection. Between requests it may be silent for as
/// long as it likes, as pools of connections are; on loopback the kernel tells when its process has ended.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// A client that takes nothing of its answers for this long loses its connection.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Room for what is read at once.
const READ: usize = 16 << 10;
/// What is read ahead while answers leave. A client that sends more without reading them has to wait, or goes.
const MAX_AHEAD: usize = 64 << 20;
/// Answers are sent when there are so many bytes of them, or no more.
const WRITE: usize = 64 << 10;

/// Why a connection ended, other than by the client's will.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the client has not shown the password")]
    Stranger,
    #[error("the client was silent for too long")]
    Silent,
    #[error("the client does not read its answers")]
    Deaf,
    #[error("the client reads its messages too slowly")]
    Slow(#[from] Missed),
    #[error("an answer cannot be written")]
    Encode(#[from] RedisProtocolError),
}

/// One client.
pub(super) struct Connection {
    stream: TcpStream,
    engine: Arc<Engine>,
    token: Token,
    /// Until when it must have shown the password; `None` once it has.
    stranger_until: Option<Instant>,
    protocol: Protocol,
    identity: Identity,
    subscriptions: Subscriptions,
    requests: Requests,
    pipeline: Pipeline,
    arrived: BytesMut,
    leaving: BytesMut,
}

/// Whether the client is to be heard any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    Close,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, engine: Arc<Engine>, token: Token) -> Self {
        let identity = Identity::new(engine.number_client());
        let subscriptions = Subscriptions::none(Arc::clone(&engine.hub));
        Self {
            stream,
            engine,
            token,
            stranger_until: Some(Instant::now() + AUTH_DEADLINE),
            protocol: Protocol::default(),
            identity,
            subscriptions,
            requests: Requests::default(),
            pipeline: Pipeline::default(),
            arrived: BytesMut::new(),
            leaving: BytesMut::new(),
        }
    }

    /// Serves it until it goes, misbehaves, or `stop`.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Result<(), End> {
        self.stream.set_nodelay(true)?;
        loop {
            let next = self.answer_arrived().await?;
            if next == Next::Close || !self.wait(stop).await? {
                return Ok(());
            }
        }
    }

    /// Does what has arrived, and sends the answers.
    async fn answer_arrived(&mut self) -> Result<Next, End> {
        let mut next = Next::GoOn;
        while next == Next::GoOn {
            match self.requests.next(&mut self.arrived) {
                Ok(Some(request)) => next = self.take(request).await?,
                Ok(None) => break,
                Err(error) => {
                    self.pipeline.answer(Reply::Error(format!("ERR {error}")));
                    next = Next::Close;
                }
            }
            if !self.pipeline.has_room() {
                self.finish().await?;
            }
        }
        self.finish().await?;
        self.send().await?;
        Ok(next)
    }

    async fn take(&mut self, request: Request) -> Result<Next, End> {
        let weight = request.iter().map(Bytes::len).sum();
        let (name, command) = match Command::parse(request) {
            Ok(parsed) => parsed,
            Err(refusal) => {
                self.pipeline.answer(refusal.into());
                return Ok(Next::GoOn);
            }
        };
        if let Err(refusal) = self.admit(name, &command) {
            self.pipeline.answer(refusal.into());
            return Ok(Next::GoOn);
        }
        match command {
            Command::Session(Session::Ping(text)) if self.only_listens() => {
                let text = text.map_or(Reply::text(""), Reply::Bytes);
                self.pipeline.answer(Reply::Array(vec![Reply::text("pong"), text]));
            }
            Command::Session(Session::Auth(credentials)) => {
                let shown = self.enter(&credentials);
                self.pipeline.answer(shown.map_or_else(Reply::from, |()| Reply::OK));
            }
            Command::Session(Session::Client(client)) => {
                let answer = self.identity.answer(client);
                self.pipeline.answer(answer);
            }
            Command::Session(Session::Hello(hello)) => {
                // What was asked in the old protocol is answered in it.
                self.finish().await?;
                let greeted = self.greet(hello);
                self.pipeline.answer(greeted.unwrap_or_else(Reply::from));
            }
            Command::Session(Session::Quit) => {
                self.pipeline.answer(Reply::OK);
                return Ok(Next::Close);
            }
            Command::Channels(Channels::Subscribe(which, names)) => {
                let confirmed = self.subscriptions.add(which, names);
                self.pipeline.answer(confirmed);
            }
            Command::Channels(Channels::Unsubscribe(which, names)) => {
                let confirmed = self.subscriptions.remove(which, names);
                self.pipeline.answer(confirmed);
            }
            command => self.pipeline.begin(&self.engine, command, weight).await,
        }
        Ok(Next::GoOn)
    }

    /// Whether the client may ask this now.
    fn admit(&self, name: &'static str, command: &Command) -> Result<(), Refusal> {
        let is_open =
            matches!(command, Command::Session(Session::Auth(_) | Session::Hello(_) | Session::Quit));
        if self.stranger_until.is_some() && !is_open {
            return Err(Refusal::NoAuth);
        }
        let fits_listening = match command {
            Command::Session(Session::Ping(_) | Session::Quit) => true,
            Command::Channels(channels) => !matches!(channels, Channels::Publish(_)),
            _ => false,
        };
        match self.only_listens() && !fits_listening {
            true => Err(Refusal::Subscribed(name)),
            false => Ok(()),
        }
    }

    /// In the old protocol messages and answers look alike, so whoever listens asks for nothing else.
    fn only_listens(&self) -> bool {
        self.protocol == Protocol::Resp2 && self.subscriptions.len() > 0
    }

    fn enter(&mut self, credentials: &Credentials) -> Result<(), Refusal> {
        if !(self.token.is(&credentials.password) && credentials.is_known_user) {
            return Err(Refusal::WrongPass);
        }
        self.stranger_until = None;
        self.requests.trust();
        Ok(())
    }

    fn greet(&mut self, hello: Greeting) -> Result<Reply, Refusal> {
        let Greeting { protocol, credentials, name } = hello;
        if let Some(credentials) = &credentials {
            self.enter(credentials)?;
        }
        if self.stranger_until.is_some() {
            return Err(Refusal::NoAuthHello);
        }
        self.protocol = protocol.unwrap_or(self.protocol);
        if let Some(name) = name {
            self.identity.rename(name);
        }
        Ok(greeting(self.protocol, self.identity.id))
    }

    /// Waits for all answers, in order.
    async fn finish(&mut self) -> Result<(), End> {
        while let Some(reply) = self.pipeline.next(&self.engine).await {
            self.push(reply).await?;
        }
        Ok(())
    }

    async fn push(&mut self, reply: Reply) -> Result<(), End> {
        reply.encode(self.protocol, &mut self.leaving)?;
        if self.leaving.len() >= WRITE { self.send().await } else { Ok(()) }
    }

    /// Sends the answers. Meanwhile it reads on: a client may send all of its requests before it reads the first answer.
    async fn send(&mut self) -> Result<(), End> {
        let Self { stream, leaving, arrived, stranger_until, .. } = self;
        let (mut reader, mut writer) = stream.split();
        let mut reads_on = stranger_until.is_none();
        while !leaving.is_empty() {
            arrived.reserve(READ);
            tokio::select! {
                biased;
                written = timeout(WRITE_DEADLINE, writer.write_buf(leaving)) => {
                    if written.map_err(|_| End::Deaf)?? == 0 {
                        return Err(io::Error::from(io::ErrorKind::WriteZero).into());
                    }
                }
                read = reader.read_buf(arrived), if reads_on && arrived.len() < MAX_AHEAD => reads_on = read? > 0,
            }
        }
        // The room for one long answer is not kept for good.
        if self.leaving.capacity() > 4 * WRITE {
            self.leaving = BytesMut::new();
        }
        Ok(())
    }

    /// Waits for more from the client, and sends the messages that come meanwhile. False if it is over.
    async fn wait(&mut self, stop: &CancellationToken) -> Result<bool, End> {
        let deadline = match self.stranger_until {
            // Whoever goes on talking about other things has no more time than who is silent.
            Some(until) if until <= Instant::now() => return Err(End::Stranger),
            Some(until) => Some(until),
            None if self.requests.is_amid() || !self.arrived.is_empty() => {
                Some(Instant::now() + REQUEST_DEADLINE)
            }
            None => None,
        };
        // The room for one long request is not kept for good.
        if self.arrived.is_empty() && self.arrived.capacity() > 4 * READ {
            self.arrived = BytesMut::new();
        }
        loop {
            self.arrived.reserve(READ);
            let read = self.stream.read_buf(&mut self.arrived);
            let read = async {
                match deadline {
                    Some(deadline) => timeout_at(deadline, read).await.map_err(|_| End::Silent)?,
                    None => read.await,
                }
                .map_err(End::from)
            };
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(false),
                heard = self.subscriptions.next() => heard?,
                read = read => return Ok(read? > 0),
            };
            for message in heard {
                self.push(message).await?;
            }
            self.send().await?;
        }
    }
}

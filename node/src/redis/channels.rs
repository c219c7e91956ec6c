//! Publishing and subscribing, and what one connection has subscribed to.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::args::Args;
use super::command::Command;
use super::glob;
use super::hub::{Hub, Message, Which};
use super::refusal::Refusal;
use super::reply::Reply;

/// Channels and patterns of one connection: each message is held against all of them.
const MAX_CHANNELS: usize = 1024;

/// The longest name of a channel, and pattern: as long as a key.
const MAX_NAME: usize = starfish_memory::MAX_KEY;

/// A command of channels.
#[derive(Debug)]
pub(super) enum Channels {
    Publish(Message),
    Subscribe(Which, Vec<Bytes>),
    /// Without names from all of them.
    Unsubscribe(Which, Vec<Bytes>),
}

type Parsed = Result<Command, Refusal>;

impl Channels {
    pub(super) fn publish(mut args: Args) -> Parsed {
        let (channel, text) = (checked(args.next()?)?, args.next()?);
        Ok(Command::Channels(Self::Publish(Message { channel, text })))
    }

    pub(super) fn subscribe(args: Args) -> Parsed {
        Self::subscribe_to(Which::Channels, args)
    }

    pub(super) fn subscribe_patterns(args: Args) -> Parsed {
        Self::subscribe_to(Which::Patterns, args)
    }

    pub(super) fn unsubscribe(args: Args) -> Parsed {
        Ok(Command::Channels(Self::Unsubscribe(Which::Channels, args.all())))
    }

    pub(super) fn unsubscribe_patterns(args: Args) -> Parsed {
        Ok(Command::Channels(Self::Unsubscribe(Which::Patterns, args.all())))
    }

    fn subscribe_to(which: Which, args: Args) -> Parsed {
        let names: Result<Vec<Bytes>, Refusal> = args.all().into_iter().map(checked).collect();
        Ok(Command::Channels(Self::Subscribe(which, names?)))
    }
}

fn checked(name: Bytes) -> Result<Bytes, Refusal> {
    match name.len() {
        ..=MAX_NAME => Ok(name),
        len => Err(Refusal::Other(format!("the name of a channel has {len} bytes, {MAX_NAME} are allowed"))),
    }
}

/// What a connection listens to.
#[derive(Debug)]
pub(super) struct Subscriptions {
    hub: Arc<Hub>,
    channels: BTreeSet<Bytes>,
    patterns: BTreeSet<Bytes>,
    messages: Option<Receiver<Arc<Message>>>,
}

/// The connection read so slowly that it has missed messages.
#[derive(Debug, thiserror::Error)]
#[error("missed {0} messages")]
pub(super) struct Missed(u64);

impl Subscriptions {
    pub(super) fn none(hub: Arc<Hub>) -> Self {
        Self { hub, channels: BTreeSet::new(), patterns: BTreeSet::new(), messages: None }
    }

    pub(super) fn len(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    /// Adds to them; one answer for each name.
    pub(super) fn add(&mut self, which: Which, names: Vec<Bytes>) -> Reply {
        let word = match which {
            Which::Channels => "subscribe",
            Which::Patterns => "psubscribe",
        };
        let mut replies = Vec::with_capacity(names.len());
        for name in names {
            if self.len() >= MAX_CHANNELS && !self.of(which).contains(&name) {
                replies.push(Refusal::TooManyChannels(MAX_CHANNELS).into());
                continue;
            }
            if self.messages.is_none() {
                self.messages = Some(self.hub.messages());
            }
            if self.of(which).insert(name.clone()) {
                self.hub.enter(which, &name);
            }
            replies.push(self.confirmation(word, Reply::Bytes(name)));
        }
        Reply::Several(replies)
    }

    /// Takes from them; one answer for each name, and at least one.
    pub(super) fn remove(&mut self, which: Which, names: Vec<Bytes>) -> Reply {
        let word = match which {
            Which::Channels => "unsubscribe",
            Which::Patterns => "punsubscribe",
        };
        let names = if names.is_empty() { self.of(which).iter().cloned().collect() } else { names };
        if names.is_empty() {
            return self.confirmation(word, Reply::Null);
        }
        let mut replies = Vec::with_capacity(names.len());
        for name in names {
            if self.of(which).remove(&name) {
                self.hub.leave(which, &name);
            }
            replies.push(self.confirmation(word, Reply::Bytes(name)));
        }
        if self.len() == 0 {
            self.messages = None;
        }
        Reply::Several(replies)
    }

    /// The next message, as often as it is wanted: a name and a pattern may both fit. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Vec<Reply>, Missed> {
        let Some(messages) = &mut self.messages else { return std::future::pending().await };
        match messages.recv().await {
            Ok(message) => Ok(self.wanted(&message)),
            Err(RecvError::Lagged(missed)) => Err(Missed(missed)),
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    fn wanted(&self, message: &Message) -> Vec<Reply> {
        let Message { channel, text } = message;
        let by_name = self.channels.contains(channel).then(|| vec![Reply::text("message")]);
        let by_pattern = self.patterns.iter().filter(|pattern| glob::fits(pattern, channel));
        let by_pattern =
            by_pattern.map(|pattern| vec![Reply::text("pmessage"), Reply::Bytes(pattern.clone())]);
        let whole = |mut head: Vec<Reply>| {
            head.extend(Reply::values([channel.clone(), text.clone()]));
            Reply::Push(head)
        };
        by_name.into_iter().chain(by_pattern).map(whole).collect()
    }

    fn confirmation(&self, word: &'static str, name: Reply) -> Reply {
        Reply::Push(vec![Reply::text(word), name, Reply::count(self.len())])
    }

    fn of(&mut self, which: Which) -> &mut BTreeSet<Bytes> {
        match which {
            Which::Channels => &mut self.channels,
            Which::Patterns => &mut self.patterns,
        }
    }
}

impl Drop for Subscriptions {
    fn drop(&mut self) {
        self.channels.iter().for_each(|name| self.hub.leave(Which::Channels, name));
        self.patterns.iter().for_each(|name| self.hub.leave(Which::Patterns, name));
    }
}

//! Messages to all who listen, on any node: gossip on one topic, as long as one announcement may be and with no promise
//! of delivery. Redis promises none either.
//!
//! Each connection that listens reads the same bounded queue and takes from it what it subscribed to. Only nodes with
//! this port listen to the topic.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starfish_dht::gossip::{MAX_MESSAGE, PublishError, Subscription};
use starfish_dht::{Network, NetworkStopped};
use tokio::sync::broadcast;
use tracing::debug;

use super::glob;
use super::refusal::Refusal;

// WIRE: changing what is announced here needs another topic.
const TOPIC: &str = "starfish/redis/1";

/// Messages that wait for a slow connection; beyond it, it has missed some and is ended.
const QUEUE: usize = 1024;

/// The longest channel and text together; the rest of an announcement says how long each is.
const MAX_TEXT: usize = MAX_MESSAGE - 16;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) channel: Bytes,
    pub(super) text: Bytes,
}

/// What a connection listens to: all that has this name, or whose name fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Channels,
    Patterns,
}

/// Where the messages of one node come together.
#[derive(Debug)]
pub(super) struct Hub {
    network: Network,
    messages: broadcast::Sender<Arc<Message>>,
    audience: Mutex<Audience>,
}

/// How many connections of this node listen to what.
#[derive(Debug, Default)]
struct Audience {
    channels: HashMap<Bytes, usize>,
    patterns: HashMap<Bytes, usize>,
}

impl Hub {
    /// Begins to listen.
    pub(super) async fn join(network: Network) -> Result<(Self, Subscription), NetworkStopped> {
        let announced = network.subscribe(TOPIC).await?;
        let (messages, _) = broadcast::channel(QUEUE);
        Ok((Self { network, messages, audience: Mutex::default() }, announced))
    }

    /// Hands on what other nodes announce, until the network stops.
    pub(super) async fn listen(&self, mut announced: Subscription) {
        while let Some(gossip) = announced.next().await {
            match postcard::from_bytes::<Message>(&gossip.data) {
                Ok(message) => self.hand_out(message),
                Err(error) => debug!(author = %gossip.author, %error, "a message that cannot be read"),
            }
        }
    }

    /// Sends a message to all who listen; returns how many on this node do.
    pub(super) async fn publish(&self, message: Message) -> Result<usize, Refusal> {
        let data = postcard::to_stdvec(&message).map_err(|error| Refusal::Other(error.to_string()))?;
        let n_listening = self.audience().count(&message.channel);
        self.network.publish(TOPIC, data).await.map_err(|error| match error {
            PublishError::TooLong(_) => Refusal::MessageTooLong(MAX_TEXT),
            PublishError::Busy => Refusal::Busy,
            PublishError::Stopped => Refusal::Other(error.to_string()),
        })?;
        self.hand_out(message);
        Ok(n_listening)
    }

    /// All messages from now on.
    pub(super) fn messages(&self) -> broadcast::Receiver<Arc<Message>> {
        self.messages.subscribe()
    }

    pub(super) fn enter(&self, which: Which, name: &Bytes) {
        *self.audience().of(which).entry(name.clone()).or_default() += 1;
    }

    pub(super) fn leave(&self, which: Which, name: &Bytes) {
        if let Entry::Occupied(mut listening) = self.audience().of(which).entry(name.clone()) {
            match *listening.get() {
                0 | 1 => drop(listening.remove()),
                more => *listening.get_mut() = more - 1,
            }
        }
    }

    fn hand_out(&self, message: Message) {
        // Nobody may be listening.
        let _ = self.messages.send(Arc::new(message));
    }

    fn audience(&self) -> MutexGuard<'_, Audience> {
        self.audience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Audience {
    fn of(&mut self, which: Which) -> &mut HashMap<Bytes, usize> {
        match which {
            Which::Channels => &mut self.channels,
            Which::Patterns => &mut self.patterns,
        }
    }

    fn count(&self, channel: &Bytes) -> usize {
        let by_name = self.channels.get(channel).copied().unwrap_or_default();
        let by_pattern = self.patterns.iter().filter(|(pattern, _)| glob::fits(pattern, channel));
        by_name + by_pattern.map(|(_, count)| count).sum::<usize>()
    }
}

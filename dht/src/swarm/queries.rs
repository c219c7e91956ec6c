//! Kademlia queries under way, and who waits for them.

use std::collections::{HashMap, HashSet};

use libp2p::PeerId;
use libp2p::kad::{GetProvidersOk, QueryId, QueryResult, RecordKey};
use tokio::sync::oneshot;

use super::Actor;
use crate::content::ContentError;

/// Queries under way at once; beyond it callers are told to wait.
const MAX_QUERIES: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Queries {
    provides: HashMap<QueryId, oneshot::Sender<Result<(), ContentError>>>,
    lookups: HashMap<QueryId, Lookup>,
}

#[derive(Debug)]
struct Lookup {
    found: HashSet<PeerId>,
    reply: oneshot::Sender<Vec<PeerId>>,
}

impl Actor {
    pub(super) fn provide(&mut self, key: [u8; 32], reply: oneshot::Sender<Result<(), ContentError>>) {
        if self.queries.provides.len() >= MAX_QUERIES {
            return Self::reply(reply, Err(ContentError::Busy));
        }
        match self.swarm.behaviour_mut().kademlia.start_providing(RecordKey::new(&key)) {
            Ok(query) => {
                self.queries.provides.insert(query, reply);
            }
            Err(_) => Self::reply(reply, Err(ContentError::TooMany)),
        }
    }

    pub(super) fn stop_providing(&mut self, key: [u8; 32]) {
        self.swarm.behaviour_mut().kademlia.stop_providing(&RecordKey::new(&key));
    }

    pub(super) fn providers(&mut self, key: [u8; 32], reply: oneshot::Sender<Vec<PeerId>>) {
        if self.queries.lookups.len() >= MAX_QUERIES {
            return Self::reply(reply, Vec::new());
        }
        let query = self.swarm.behaviour_mut().kademlia.get_providers(RecordKey::new(&key));
        self.queries.lookups.insert(query, Lookup { found: HashSet::new(), reply });
    }

    pub(super) fn on_query(&mut self, id: QueryId, result: QueryResult, is_last: bool) {
        match result {
            // The record is kept here whatever the others said, and is announced again every twelve hours.
            QueryResult::StartProviding(_) => {
                if let Some(reply) = self.queries.provides.remove(&id) {
                    Self::reply(reply, Ok(()));
                }
            }
            QueryResult::GetProviders(result) => {
                if let Some(lookup) = self.queries.lookups.get_mut(&id)
                    && let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result
                {
                    lookup.found.extend(providers);
                }
                if is_last && let Some(Lookup { found, reply }) = self.queries.lookups.remove(&id) {
                    Self::reply(reply, found.into_iter().collect());
                }
            }
            _ => {}
        }
    }
}

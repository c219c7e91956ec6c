//! Finding and talking to peers.
#![allow(missing_docs, clippy::todo, clippy::unused_async, unused_variables, missing_debug_implementations, reason = "being built")]
pub use libp2p::{Multiaddr, PeerId};
use serde::{Serialize, de::DeserializeOwned};
use std::future::Future;
pub mod identity {
    use libp2p::PeerId;
    #[derive(Debug)]
    pub struct Identity;
    impl Identity {
        pub fn sign(&self, message: &[u8]) -> Vec<u8> { todo!() }
    }
    pub fn verify(peer: &PeerId, message: &[u8], signature: &[u8]) -> bool { todo!() }
}
pub type Stream = tokio_util::compat::Compat<libp2p::Stream>;
#[derive(Debug, thiserror::Error)]
#[error("call failed")]
pub struct CallError;
#[derive(Debug, thiserror::Error)]
#[error("accept failed")]
pub struct AcceptError;
#[derive(Debug, thiserror::Error)]
#[error("open failed")]
pub struct OpenError;
#[derive(Debug, thiserror::Error)]
#[error("publish failed")]
pub struct PublishError;
#[derive(Debug, thiserror::Error)]
#[error("content failed")]
pub struct ContentError;
#[derive(Debug, thiserror::Error)]
#[error("the network has stopped")]
pub struct NetworkStopped;
#[derive(Clone, Debug)]
pub enum NetworkEvent { PeerConnected(PeerId), PeerDisconnected(PeerId) }
#[derive(Clone, Debug)]
pub struct Gossip { pub author: PeerId, pub data: bytes::Bytes }
#[derive(Debug)]
pub struct Subscription;
impl Subscription { pub async fn next(&mut self) -> Option<Gossip> { todo!() } }
#[derive(Debug)]
pub struct Incoming;
impl Incoming { pub async fn next(&mut self) -> Option<(PeerId, Stream)> { todo!() } }
#[derive(Clone, Debug)]
pub struct Network;
impl Network {
    pub fn local_peer(&self) -> PeerId { todo!() }
    pub fn identity(&self) -> &identity::Identity { todo!() }
    pub async fn call<Q: Serialize, R: DeserializeOwned>(&self, peer: PeerId, protocol: &'static str, request: &Q) -> Result<R, CallError> { todo!() }
    pub fn serve<Q, R, F, Fut>(&self, protocol: &'static str, handler: F) -> Result<(), AcceptError>
    where Q: DeserializeOwned + Send, R: Serialize + Send, F: Fn(PeerId, Q) -> Fut + Send + Sync + 'static, Fut: Future<Output = R> + Send + 'static { todo!() }
    pub async fn open(&self, peer: PeerId, protocol: &'static str) -> Result<Stream, OpenError> { todo!() }
    pub fn accept(&self, protocol: &'static str) -> Result<Incoming, AcceptError> { todo!() }
    pub async fn publish(&self, topic: &'static str, data: Vec<u8>) -> Result<(), PublishError> { todo!() }
    pub async fn subscribe(&self, topic: &'static str) -> Result<Subscription, NetworkStopped> { todo!() }
    pub fn connected(&self) -> Vec<PeerId> { todo!() }
    pub fn is_connected(&self, peer: &PeerId) -> bool { todo!() }
    pub fn events(&self) -> tokio::sync::broadcast::Receiver<NetworkEvent> { todo!() }
    pub async fn provide(&self, key: [u8; 32]) -> Result<(), ContentError> { todo!() }
    pub async fn providers(&self, key: [u8; 32]) -> Result<Vec<PeerId>, ContentError> { todo!() }
}

//! Both ends of a call that runs on another node than the one that was asked for it.

use std::sync::Arc;
use std::time::Duration;

use starfish_dht::PeerId;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tracing::debug;

use super::placing::{Begun, Running};
use super::protocol::{CALL_PROTOCOL, CallSpec, FromCallee, FromCaller, Said};
use super::service::Functions;
use super::version::{Version, VersionId};
use crate::in_words;
use crate::millis;
use crate::service::Service;
use crate::wire::{CHUNK, Chunk, Receiver, Sender, WireError};

/// A node that opens a call stream says what it wants within this time.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a caller hears of its call.
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// Silence after which a node is taken for lost.
const SILENT_FOR: Duration = Duration::from_secs(5);
/// How long the news of a version may take to get to a node that is asked to run it.
const NEWS_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked for meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The longest that a caller may have its call wait.
const MAX_PATIENCE: Duration = Duration::from_secs(10);
/// Pieces of input and output on their way.
const QUEUE: usize = 8;

/// What a node answers to a call.
pub(super) enum Asked {
    Busy,
    Refused(String),
    Begins(Running),
}

type FromNode<S> = Receiver<ReadHalf<S>, FromCallee>;

/// Asks a node to run a call.
pub(super) async fn ask(
    service: &Arc<Service>,
    node: PeerId,
    spec: &CallSpec,
    version: VersionId,
    patience: Duration,
) -> Result<Asked, String> {
    let opening = tokio::time::timeout(SILENT_FOR, service.network.open(node, CALL_PROTOCOL));
    let stream = opening.await.map_err(|_| "it does not answer".to_owned())?;
    let (reading, writing) = tokio::io::split(stream.map_err(|error| in_words(&error))?);
    let (mut receiver, mut sender) = (FromNode::new(reading), Sender::new(writing));
    let patience_ms = millis(patience);
    let call = FromCaller::Call { spec: Box::new(spec.clone()), version, patience_ms };
    sender.send(&call).await.map_err(|error| in_words(&error))?;
    loop {
        match hear(&mut receiver).await? {
            FromCallee::Beat => {}
            FromCallee::Busy => return Ok(Asked::Busy),
            FromCallee::Refused(why) => return Ok(Asked::Refused(why)),
            FromCallee::Begins => break,
            _ => return Err("it said something unexpected".to_owned()),
        }
    }
    let (stdin, mut given) = mpsc::channel(QUEUE);
    let (say, said) = mpsc::channel(QUEUE);
    service.spawn(async move {
        let feeding = async {
            while let Some(bytes) = given.recv().await {
                if sender.send(&FromCaller::Stdin(Chunk(bytes))).await.is_err() {
                    break;
                }
            }
            let _ = sender.send(&FromCaller::StdinEnd).await;
            // The stream stays open until the call is over.
            std::future::pending().await
        };
        tokio::select! {
            () = listen(&mut receiver, &say) => {}
            () = say.closed() => {}
            () = feeding => {}
        }
    });
    Ok(Asked::Begins(Running { stdin, said }))
}

/// The next message, unless the node has fallen silent.
async fn hear<S: AsyncRead + AsyncWrite>(receiver: &mut FromNode<S>) -> Result<FromCallee, String> {
    match tokio::time::timeout(SILENT_FOR, receiver.expect()).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(error)) => Err(format!("the connection to its node was lost: {error}")),
        Err(_) => Err("its node has fallen silent".to_owned()),
    }
}

async fn listen<S: AsyncRead + AsyncWrite>(receiver: &mut FromNode<S>, say: &mpsc::Sender<Said>) {
    loop {
        let said = match hear(receiver).await {
            Ok(FromCallee::Beat) => continue,
            Ok(FromCallee::Head(head)) => Said::Head(*head),
            Ok(FromCallee::Stdout(Chunk(bytes))) => Said::Stdout(bytes),
            Ok(FromCallee::Stderr(Chunk(bytes))) => Said::Stderr(bytes),
            Ok(FromCallee::Ended(outcome)) => Said::Ended(outcome),
            Ok(FromCallee::Lost(why)) | Err(why) => Said::Lost(why),
            Ok(_) => Said::Lost("its node said something unexpected".to_owned()),
        };
        let is_last = matches!(said, Said::Ended(_) | Said::Lost(_));
        if say.send(said).await.is_err() || is_last {
            return;
        }
    }
}

impl Functions {
    /// Answers a node that opened a call stream, and stays with the call if there is a slot for it.
    pub(super) async fn serve<S>(self: Arc<Self>, by: PeerId, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Ok(_permit) = self.served.try_acquire() else { return };
        let (reading, writing) = tokio::io::split(stream);
        let mut receiver = Receiver::<_, FromCaller>::new(reading);
        let mut sender = Sender::new(writing);
        let asked = tokio::time::timeout(CALL_TIMEOUT, receiver.expect()).await;
        let Ok(Ok(FromCaller::Call { spec, version: id, patience_ms })) = asked else { return };
        let refusal = |why: &str| FromCallee::Refused(why.to_owned());
        let last = if !self.service.may_compute(&by) {
            refusal("the asking node may not compute")
        } else if let Some(version) = self.version(&spec, id).await {
            let patience = Duration::from_millis(patience_ms).min(MAX_PATIENCE);
            match self.begin_served(*spec, id, version, patience, &mut sender).await {
                Ok(Some(running)) => {
                    debug!(%by, "a call of another node begins");
                    if let Err(error) = carry(running, receiver, &mut sender).await {
                        debug!(%by, %error, "lost the caller of a function");
                    }
                    return sender.finish().await;
                }
                Ok(None) => FromCallee::Busy,
                Err(_) => return,
            }
        } else {
            refusal("this version is not known there")
        };
        let _ = sender.send(&last).await;
        sender.finish().await;
    }

    /// The version that a call is of, once it is known here, if this node can run it.
    async fn version(&self, spec: &CallSpec, id: VersionId) -> Option<Version> {
        let look = async {
            loop {
                let all = self.store.all().await.ok()?;
                if let Some(version) = all.get(&spec.name).and_then(|function| function.versions.get(&id)) {
                    return Some(version.clone());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let version = tokio::time::timeout(NEWS_PATIENCE, look).await.ok()??;
        let memory_bytes = self.service.board().capacity().memory_bytes;
        (version.limits.memory_bytes <= memory_bytes).then_some(version)
    }

    /// Waits for a slot, with a sign of life now and then, and begins the call in it.
    async fn begin_served<W: AsyncWrite + Unpin>(
        self: &Arc<Self>,
        spec: CallSpec,
        id: VersionId,
        version: Version,
        patience: Duration,
        sender: &mut Sender<W>,
    ) -> Result<Option<Running>, WireError> {
        let mut waiting = std::pin::pin!(self.slot(patience));
        let slot = loop {
            match tokio::time::timeout(BEAT_EVERY, &mut waiting).await {
                Ok(slot) => break slot,
                Err(_) => sender.send(&FromCallee::Beat).await?,
            }
        };
        let Some(slot) = slot else { return Ok(None) };
        sender.send(&FromCallee::Begins).await?;
        let Begun { running, driver } = self.begin_here(slot, spec, id, version);
        self.service.spawn(driver);
        Ok(Some(running))
    }
}

/// Carries a call's input from its caller, and to its caller what it says.
async fn carry<S>(
    running: Running,
    mut receiver: Receiver<ReadHalf<S>, FromCaller>,
    sender: &mut Sender<WriteHalf<S>>,
) -> Result<(), WireError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Running { stdin, mut said } = running;
    let telling = async {
        loop {
            let message = match tokio::time::timeout(BEAT_EVERY, said.recv()).await {
                Err(_) => FromCallee::Beat,
                Ok(Some(Said::Head(head))) => FromCallee::Head(Box::new(head)),
                Ok(Some(Said::Stdout(bytes))) => FromCallee::Stdout(Chunk(bytes)),
                Ok(Some(Said::Stderr(bytes))) => FromCallee::Stderr(Chunk(bytes)),
                Ok(Some(Said::Ended(outcome))) => FromCallee::Ended(outcome),
                Ok(Some(Said::Lost(why))) => FromCallee::Lost(why),
                Ok(None) => FromCallee::Lost("its node stops".to_owned()),
            };
            sender.send(&message).await?;
            if matches!(message, FromCallee::Ended(_) | FromCallee::Lost(_)) {
                return Ok(());
            }
        }
    };
    let feeding = async {
        let mut stdin = Some(stdin);
        loop {
            match receiver.expect().await? {
                FromCaller::Stdin(Chunk(bytes)) if bytes.len() <= CHUNK => {
                    if let Some(open) = &stdin
                        && open.send(bytes).await.is_err()
                    {
                        stdin = None;
                    }
                }
                FromCaller::StdinEnd => stdin = None,
                _ => return Err::<(), _>(WireError::Ended),
            }
        }
    };
    tokio::select! {
        told = telling => told,
        fed = feeding => fed,
    }
}

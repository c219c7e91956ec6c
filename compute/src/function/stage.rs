//! What happens in a slot: one call, run by a worker process of this node.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::protocol::{CallSpec, Said};
use super::store::Store;
use super::version::{Version, VersionId};
use crate::in_words;
use crate::order::ResponseHead;
use crate::pool::{RunEnd, Worker};
use crate::profile::Profile;
use crate::runner::order_of;
use crate::service::Service;
use crate::staging::LaidOut;
use crate::task::{Call, Digest, Outcome, OutputFrame};

/// Pieces of output on their way; each holds up to 64 KiB.
const QUEUE: usize = 8;

/// A call on this node.
pub(super) struct Stage {
    pub(super) service: Arc<Service>,
    pub(super) store: Arc<Store>,
    pub(super) spec: CallSpec,
    pub(super) id: VersionId,
    pub(super) version: Version,
}

impl Stage {
    /// Runs the call. An error says why it came to nothing here; another node may do better. It ends with its worker
    /// process when nobody hears what it says any more.
    pub(super) async fn run(
        &self,
        stdin: mpsc::Receiver<Bytes>,
        said: &mpsc::Sender<Said>,
    ) -> Result<(), String> {
        tokio::select! {
            ran = self.run_heard(stdin, said) => ran,
            () = said.closed() => Ok(()),
        }
    }

    async fn run_heard(&self, stdin: mpsc::Receiver<Bytes>, said: &mpsc::Sender<Said>) -> Result<(), String> {
        let pool = &self.service.pool;
        let artifact = self.prepare().await?;
        let mut worker = pool.take(Profile::Usual).await.map_err(|error| in_words(&error))?;
        let laid_out = LaidOut::make(&*self.store.files, self.version.grants.iter(), worker.scratch()).await;
        let laid_out = laid_out.map_err(|error| in_words(&error))?;
        let call = self.call();
        let mut order = order_of(&call, artifact, laid_out.staged());
        order.handler = self.spec.handler.as_ref().map(ToString::to_string);
        let (output, frames) = mpsc::channel(QUEUE);
        let (respond, head) = oneshot::channel();
        let running = async {
            let end = match &self.spec.request {
                Some(request) => worker.answer(&order, request.clone(), stdin, respond, &output).await,
                None => {
                    drop(respond);
                    worker.run(&order, stdin, &output).await
                }
            };
            drop(output);
            end
        };
        let (end, ()) = tokio::join!(running, forward(head, frames, said));
        let outcome = match end {
            RunEnd::Ended(outcome, _) if call.writes() => self.commit(worker, &laid_out, outcome).await?,
            RunEnd::Ended(outcome, _) => {
                if laid_out.clear().await {
                    pool.give_back(worker);
                }
                outcome
            }
            RunEnd::Stopped(outcome) => outcome,
            RunEnd::Lost(why) => return Err(why),
            RunEnd::Unreadable(why) => {
                self.service.programs.discard(&order.artifact).await;
                return Err(why);
            }
        };
        let _ = said.send(Said::Ended(outcome)).await;
        Ok(())
    }

    /// The compiled program; fetches and compiles it if it was never called here.
    async fn prepare(&self) -> Result<String, String> {
        let (programs, module) = (&self.service.programs, self.version.module);
        if let Some(artifact) = programs.lately(module, Profile::Usual) {
            return Ok(artifact);
        }
        if !programs.has(module).await {
            let program = self.store.fetch(&self.spec.name, self.id, module).await;
            let program = program.map_err(|error| in_words(&error))?;
            programs.put(module, program).await.map_err(|error| in_words(&error))?;
        }
        programs.artifact(module, &self.service.pool, Profile::Usual).await.map_err(|error| in_words(&error))
    }

    fn call(&self) -> Call {
        let Version { module, env, grants, reach, limits, .. } = self.version.clone();
        // A call sees the granted folders as they are here and now, whatever that is.
        let inputs = grants.into_iter().map(|grant| (grant, Digest([0; 32]))).collect();
        let (name, args) = (self.spec.name.to_string(), self.spec.args.clone());
        Call { module, name, args, env, inputs, reach, limits }
    }

    /// Makes the changes that the program left, if it ended well.
    async fn commit(
        &self,
        mut worker: Worker,
        laid_out: &LaidOut,
        outcome: Outcome,
    ) -> Result<Outcome, String> {
        // A process that could write there is gone before its folders are read.
        worker.kill().await.map_err(|error| in_words(&error))?;
        if !outcome.is_success() {
            return Ok(outcome);
        }
        if let Err(reason) = laid_out.commit(&*self.store.files).await {
            debug!(function = %self.spec.name, reason, "the changes of a call were not made");
            return Ok(Outcome::Failed { reason });
        }
        Ok(outcome)
    }
}

/// Carries to `said` what a worker says, and the head of its answer before its body.
async fn forward(
    head: oneshot::Receiver<ResponseHead>,
    mut frames: mpsc::Receiver<OutputFrame>,
    said: &mpsc::Sender<Said>,
) {
    let (mut head, mut is_awaited) = (head, true);
    loop {
        let next = tokio::select! {
            biased;
            answered = &mut head, if is_awaited => {
                is_awaited = false;
                let Ok(head) = answered else { continue };
                Said::Head(head)
            }
            frame = frames.recv() => match frame {
                Some(OutputFrame::Stdout(bytes)) => Said::Stdout(bytes),
                Some(OutputFrame::Stderr(bytes)) => Said::Stderr(bytes),
                Some(OutputFrame::Exit(_)) => continue,
                None => return,
            },
        };
        if said.send(next).await.is_err() {
            return;
        }
    }
}

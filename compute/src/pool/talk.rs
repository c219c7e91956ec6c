//! What a node and a worker process say to each other while a task runs.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::RunEnd;
use crate::ask::{Ask, AskId, MAX_ASKED, Told};
use crate::attendant::Attendant;
use crate::line::INPUT_WINDOW;
use crate::order::{FromWorker, Order, ResponseHead, ToWorker};
use crate::task::{Limit, Outcome, OutputFrame};
use crate::wire::{Chunk, Receiver, Sender, WireError};

/// Whom a worker's reports concern.
pub(super) struct Listener<'task> {
    pub(super) order: &'task Order,
    pub(super) output: &'task mpsc::Sender<OutputFrame>,
    /// Where an answer is awaited, and is not there yet.
    pub(super) head: Option<oneshot::Sender<ResponseHead>>,
    /// Who answers what the guest asks for; nobody, if it was granted nothing to ask for.
    pub(super) attendant: Option<Attendant>,
}

/// Tells a worker to begin, and stays with it to the end of the task.
pub(super) async fn converse(
    orders: &mut Sender<ChildStdin>,
    reports: &mut Receiver<ChildStdout, FromWorker>,
    begin: ToWorker,
    listener: &mut Listener<'_>,
    stdin: mpsc::Receiver<Bytes>,
) -> RunEnd {
    let lost = |error: WireError| RunEnd::Lost(format!("its worker process died: {error}"));
    let has_begun = match stdin.is_closed() && stdin.is_empty() {
        // The end of its input goes with it.
        true => orders.send_with_next(&begin).await,
        false => orders.send(&begin).await,
    };
    if let Err(error) = has_begun {
        return lost(error);
    }
    let (ended, window) = (CancellationToken::new(), Semaphore::new(INPUT_WINDOW as usize));
    // As many as there can be at a time, so that nobody waits to answer.
    let (answer, answers) = mpsc::channel(MAX_ASKED);
    let feeding = feed(orders, stdin, answers, &window, &ended);
    let listening = async {
        let end = listen(reports, listener, &answer, &window).await;
        ended.cancel();
        end
    };
    let (fed, end) = tokio::join!(feeding, listening);
    match (end, fed) {
        (Err(error), _) => lost(error),
        (Ok(RunEnd::Ended(outcome, _)), Err(error)) => {
            debug!(%error, "a worker was lost after its task");
            RunEnd::Stopped(outcome)
        }
        (Ok(end), _) => end,
    }
}

/// Gives a worker its input and answers until the task has ended, then says that nothing more comes. A message is never
/// left half sent: the worker reads on until the last.
async fn feed(
    orders: &mut Sender<ChildStdin>,
    mut stdin: mpsc::Receiver<Bytes>,
    mut answers: mpsc::Receiver<(AskId, Told)>,
    window: &Semaphore,
    ended: &CancellationToken,
) -> Result<(), WireError> {
    let mut open = true;
    loop {
        let message = tokio::select! {
            biased;
            () = ended.cancelled() => break,
            Some((id, told)) = answers.recv() => ToWorker::Told { id, told },
            part = next_part(&mut stdin, window), if open => match part {
                Some(bytes) => ToWorker::Stdin(Chunk(bytes)),
                None => {
                    open = false;
                    ToWorker::StdinEnd
                }
            },
        };
        orders.send(&message).await?;
    }
    orders.send(&ToWorker::Finish).await
}

/// The next piece of input for which the worker has room, or the end of it. Cancel-safe.
async fn next_part(stdin: &mut mpsc::Receiver<Bytes>, window: &Semaphore) -> Option<Bytes> {
    // The end needs no room, and most tasks have no input.
    if stdin.is_closed() && stdin.is_empty() {
        return None;
    }
    let room = window.acquire().await.ok()?;
    let part = stdin.recv().await?;
    room.forget();
    Some(part)
}

async fn listen(
    reports: &mut Receiver<ChildStdout, FromWorker>,
    listener: &mut Listener<'_>,
    answer: &mpsc::Sender<(AskId, Told)>,
    window: &Semaphore,
) -> Result<RunEnd, WireError> {
    let Listener { order, output, head, attendant } = listener;
    let attendant = attendant.as_ref();
    let mut answering = FuturesUnordered::new();
    loop {
        let report = tokio::select! {
            report = reports.expect() => report?,
            Some(told) = answering.next(), if !answering.is_empty() => {
                // The other half ends only after this one.
                let _ = answer.send(told).await;
                continue;
            }
        };
        let frame = match report {
            FromWorker::Stdout(Chunk(bytes)) => OutputFrame::Stdout(bytes),
            FromWorker::Stderr(Chunk(bytes)) => OutputFrame::Stderr(bytes),
            FromWorker::Ended { outcome, cost } => return Ok(RunEnd::Ended(outcome, cost)),
            FromWorker::Overdrawn => {
                let (limit, value) = (Limit::Memory, order.memory_bytes);
                return Ok(RunEnd::Stopped(Outcome::LimitReached { limit, value }));
            }
            FromWorker::Unreadable(why) => return Ok(RunEnd::Unreadable(why)),
            FromWorker::Taken if window.available_permits() < INPUT_WINDOW as usize => {
                window.add_permits(1);
                continue;
            }
            FromWorker::Ask { id, ask } if answering.len() < MAX_ASKED => {
                answering.push(reply(attendant, id, ask));
                continue;
            }
            other => {
                let (FromWorker::Response(response), Some(head)) = (&other, head.take()) else {
                    return Ok(RunEnd::Lost(format!("its worker process said {other:?}")));
                };
                // Who does not wait for it any more takes no body either.
                let _ = head.send(ResponseHead::clone(response));
                continue;
            }
        };
        if output.send(frame).await.is_err() {
            return Ok(RunEnd::Lost("nobody listens any more".to_owned()));
        }
    }
}

async fn reply(attendant: Option<&Attendant>, id: AskId, ask: Ask) -> (AskId, Told) {
    let told = match attendant {
        Some(attendant) => attendant.answer(ask).await,
        None => Told::Denied,
    };
    (id, told)
}

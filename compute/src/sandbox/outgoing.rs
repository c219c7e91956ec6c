//! `wasi:http/outgoing-handler`: requests of a guest, sent by its node to where the guest was let to.
//!
//! Both bodies go piece by piece, each when the other side has room for it.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::ask::{Ask, ExchangeId, Told};
use crate::line::Line;
use crate::order::RequestHead;
use crate::wire::{CHUNK, Chunk};

/// The interface, without its version.
pub(super) const INTERFACE: &str = "wasi:http/outgoing-handler";
/// What a guest waits for the head of a response, unless it says otherwise.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(600);

/// Sends the requests of one guest.
pub(super) struct Requests {
    /// Nothing where no questions can be asked: nothing is granted there.
    line: Option<Line>,
    next: ExchangeId,
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(hyper::Response<WasiBody>, Io), Error>;

impl Requests {
    pub(super) fn new(line: Option<Line>) -> Self {
        Self { line, next: 0 }
    }
}

impl WasiHttpHooks for Requests {
    fn send_request(
        &mut self,
        request: hyper::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Io,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let Some(line) = self.line.clone() else {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        };
        let exchange = Exchange { line, id: self.next };
        self.next = self.next.wrapping_add(1);
        let patience = options.and_then(|options| options.first_byte_timeout).unwrap_or(RESPONSE_TIMEOUT);
        Box::new(async move {
            let sending = exchange.send(request);
            tokio::time::timeout(patience, sending).await.map_err(|_| Error::ConnectionReadTimeout)?
        })
    }
}

/// One request. Nobody is interested in it any more when it is dropped.
struct Exchange {
    line: Line,
    id: ExchangeId,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.line.say(Ask::Close { exchange: self.id });
    }
}

impl Exchange {
    async fn send(self, request: hyper::Request<WasiBody>) -> Sent {
        let (parts, body) = request.into_parts();
        let head = RequestHead::of(&parts);
        let (line, id) = (self.line.clone(), self.id);
        let mut pouring = Box::pin(pour(line.clone(), id, body));
        let mut has_poured = false;
        let told = {
            let asking = line.ask(Ask::Send { exchange: id, head: Box::new(head) });
            tokio::pin!(asking);
            loop {
                tokio::select! {
                    biased;
                    told = &mut asking => break told,
                    // What became of it says the response.
                    _ = &mut pouring, if !has_poured => has_poured = true,
                }
            }
        };
        let head = match told {
            Told::Response(head) => head,
            Told::Denied => return Err(Error::HttpRequestDenied),
            Told::Failed(why) => return Err(Error::InternalError(Some(why))),
            other => return Err(Error::InternalError(Some(format!("the node answered {other:?}")))),
        };
        let mut response = hyper::Response::builder().status(head.status);
        for (name, value) in head.headers {
            response = response.header(name, value);
        }
        let response =
            response.body(self.body()).map_err(|error| Error::InternalError(Some(error.to_string())))?;
        let rest: Io = if has_poured { Box::new(std::future::ready(Ok(()))) } else { Box::new(pouring) };
        Ok((response, rest))
    }

    fn body(self) -> WasiBody {
        let parts = stream::unfold(Some(self), async |exchange| {
            let exchange = exchange?;
            match exchange.line.ask(Ask::Read { exchange: exchange.id }).await {
                Told::Part(Some(Chunk(part))) => Some((Ok(Frame::data(part)), Some(exchange))),
                Told::Part(None) => None,
                Told::Failed(why) => Some((Err(Error::InternalError(Some(why))), None)),
                _ => Some((Err(Error::HttpProtocolError), None)),
            }
        });
        StreamBody::new(Box::pin(parts)).boxed_unsync()
    }
}

/// Sends the body of a request.
async fn pour(line: Line, exchange: ExchangeId, mut body: WasiBody) -> Result<(), Error> {
    let part = async |part: Bytes| match line.ask(Ask::Part { exchange, part: Chunk(part) }).await {
        Told::Done => Ok(()),
        _ => Err(Error::ConnectionTerminated),
    };
    while let Some(frame) = body.frame().await {
        // Trailers are not passed on.
        let Ok(mut bytes) = frame?.into_data() else { continue };
        while !bytes.is_empty() {
            part(bytes.split_to(bytes.len().min(CHUNK))).await?;
        }
    }
    part(Bytes::new()).await
}

//! HTTP requests of guests, to hosts and to functions, piece by piece.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyStream, StreamBody};
use hyper::Uri;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::Attendant;
use super::http_client::RequestBody;
use crate::ask::{ExchangeId, MAX_EXCHANGES, Told};
use crate::function::version::FunctionName;
use crate::function::{Answer, CallSpec, Running};
use crate::in_words;
use crate::order::{RequestHead, ResponseHead};
use crate::reach::{FUNCTIONS_DOMAIN, Reach};
use crate::wire::{CHUNK, Chunk};

/// The body of a response, as it comes.
type ResponseBody = BoxStream<'static, Result<Bytes, String>>;

/// The requests that a guest has begun and not closed.
#[derive(Default)]
pub(super) struct Exchanges(Mutex<HashMap<ExchangeId, Arc<Exchange>>>);

struct Exchange {
    /// Takes the request's body, until its end.
    request: Mutex<Option<mpsc::Sender<Bytes>>>,
    response: tokio::sync::Mutex<Option<ResponseBody>>,
}

impl Exchanges {
    /// A new one, and what comes of its request's body; `None` if there are too many.
    fn begin(&self, id: ExchangeId) -> Option<(Arc<Exchange>, mpsc::Receiver<Bytes>)> {
        let (sender, body) = mpsc::channel(1);
        let exchange =
            Arc::new(Exchange { request: Mutex::new(Some(sender)), response: tokio::sync::Mutex::default() });
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_EXCHANGES || all.contains_key(&id) {
            return None;
        }
        all.insert(id, Arc::clone(&exchange));
        Some((exchange, body))
    }

    fn get(&self, id: ExchangeId) -> Result<Arc<Exchange>, Told> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&id).cloned().ok_or_else(|| Told::Failed("there is no such request".to_owned()))
    }

    pub(super) fn close(&self, id: ExchangeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Takes a part of a request's body; returns when there is room for the next.
    pub(super) async fn send_part(&self, id: ExchangeId, part: Bytes) -> Told {
        let exchange = match self.get(id) {
            Ok(exchange) => exchange,
            Err(told) => return told,
        };
        let sender = {
            let mut request = exchange.request.lock().unwrap_or_else(PoisonError::into_inner);
            if part.is_empty() { request.take().map(|_| None) } else { request.clone().map(Some) }
        };
        match sender {
            Some(None) => Told::Done,
            Some(Some(sender)) => match sender.send(part).await {
                Ok(()) => Told::Done,
                Err(_) => Told::Failed("the request's body is not taken any more".to_owned()),
            },
            None => Told::Failed("the request's body has ended".to_owned()),
        }
    }

    /// The next part of a response's body.
    pub(super) async fn read(&self, id: ExchangeId) -> Told {
        let exchange = match self.get(id) {
            Ok(exchange) => exchange,
            Err(told) => return told,
        };
        let mut response = exchange.response.lock().await;
        let Some(body) = response.as_mut() else {
            return Told::Failed("there is no response yet".to_owned());
        };
        match body.next().await {
            Some(Ok(part)) => Told::Part(Some(Chunk(part))),
            Some(Err(why)) => Told::Failed(why),
            None => Told::Part(None),
        }
    }
}

impl Attendant {
    /// Sends a request, if it goes where the guest may go; the answer is the head of the response.
    pub(super) async fn send(&self, id: ExchangeId, head: RequestHead) -> Told {
        let Ok(uri) = head.uri.parse::<Uri>() else { return Told::Failed("it is no URL".to_owned()) };
        let Some(host) = uri.host() else { return Told::Failed("the URL names no host".to_owned()) };
        let function = host.to_ascii_lowercase().strip_suffix(FUNCTIONS_DOMAIN).map(str::to_owned);
        let is_granted = match &function {
            Some(name) => self.function(name).is_some(),
            None => self.may_reach(&uri, host),
        };
        if !is_granted {
            return Told::Denied;
        }
        let Some((exchange, body)) = self.exchanges.begin(id) else {
            return Told::Failed(format!("a program has {MAX_EXCHANGES} requests at a time at most"));
        };
        let answered = match function.and_then(|name| self.function(&name)) {
            Some(name) => self.call_function(name, head, &uri, body).await,
            None => self.ask_host(head, uri, body).await,
        };
        match answered {
            Ok((head, body)) => {
                *exchange.response.lock().await = Some(in_parts(body));
                Told::Response(Box::new(head))
            }
            Err(why) => {
                self.exchanges.close(id);
                Told::Failed(why)
            }
        }
    }

    fn may_reach(&self, uri: &Uri, host: &str) -> bool {
        let usual = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        self.outside.http.is_some() && self.reach.iter().any(|reach| reach.permits_host(host, port))
    }

    /// The granted function that is called by this name. Hosts' names know no upper case.
    fn function(&self, called: &str) -> Option<FunctionName> {
        self.reach.iter().find_map(|reach| match reach {
            Reach::Function(name) if name.as_str().eq_ignore_ascii_case(called) => Some(name.clone()),
            _ => None,
        })
    }

    async fn ask_host(
        &self,
        head: RequestHead,
        uri: Uri,
        body: mpsc::Receiver<Bytes>,
    ) -> Result<(ResponseHead, ResponseBody), String> {
        let Some(client) = &self.outside.http else { return Err("this node lets no program out".to_owned()) };
        let mut request = hyper::Request::builder().method(head.method.as_str()).uri(uri);
        for (name, value) in &head.headers {
            request = request.header(name, value.as_slice());
        }
        let request = request.body(body_of(body)).map_err(|error| error.to_string())?;
        let response = client.send(request).await.map_err(|error| in_words(&error))?;
        let (parts, body) = response.into_parts();
        let head = ResponseHead::of(&parts);
        let body = TryStreamExt::map_err(BodyStream::new(body), |error| in_words(&error))
            .try_filter_map(async |frame| Ok(frame.into_data().ok()));
        Ok((head, body.boxed()))
    }

    async fn call_function(
        &self,
        name: FunctionName,
        head: RequestHead,
        uri: &Uri,
        mut body: mpsc::Receiver<Bytes>,
    ) -> Result<(ResponseHead, ResponseBody), String> {
        let functions = self.outside.functions.get().and_then(Weak::upgrade).ok_or("this node stops")?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let request = Some(RequestHead { uri: path, ..head });
        let called =
            functions.call(CallSpec { name: name.clone(), args: Vec::new(), handler: None, request }).await;
        let Running { stdin, said } = called.map_err(|error| in_words(&error))?;
        let feeding = tokio::spawn(async move {
            while let Some(part) = body.recv().await {
                if stdin.send(part).await.is_err() {
                    return;
                }
            }
        });
        let answered = Answer::hear(name, said, Some(AbortOnDropHandle::new(feeding))).await;
        let (head, body) = answered.map_err(|error| in_words(&error))?.into_parts();
        Ok((head, body.map_err(|error| error.to_string()).boxed()))
    }
}

fn body_of(body: mpsc::Receiver<Bytes>) -> RequestBody {
    let parts = stream::unfold(body, async |mut body| {
        let part = body.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(part)), body))
    });
    StreamBody::new(Box::pin(parts))
}

/// Parts that fit a message.
fn in_parts(body: ResponseBody) -> ResponseBody {
    let parts = body.flat_map(|part| {
        let parts = match part {
            Ok(mut bytes) => {
                let mut parts = Vec::new();
                while !bytes.is_empty() {
                    parts.push(Ok(bytes.split_to(bytes.len().min(CHUNK))));
                }
                parts
            }
            Err(why) => vec![Err(why)],
        };
        stream::iter(parts)
    });
    parts.boxed()
}

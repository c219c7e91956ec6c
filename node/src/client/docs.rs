//! Documents through a running node.

use std::io;

use bytes::Bytes;
use futures::Stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method};
use serde::de::DeserializeOwned;
use serde_json::Value;
use starfish_memory::{CollectionSummary, Edit, IndexStatus, Pointer};

use super::connection::{empty, full, streamed};
use super::{Client, ClientError, json_request, request};
use crate::percent;
use crate::wire::{
    DeleteRequest, Deleted, DocumentCost, DocumentCount, DocumentWritten, FindAnswer, FindRequest,
    IndexRequest,
};

/// One collection of documents, over the API.
#[derive(Clone, Debug)]
pub struct RemoteCollection {
    client: Client,
    name: String,
}

impl Client {
    /// The collection `name`; the node checks the name at the first call.
    pub fn documents(&self, name: &str) -> RemoteCollection {
        RemoteCollection { client: self.clone(), name: percent::encode(name.as_bytes()) }
    }

    /// The collections that have something in them.
    pub async fn collections(&self) -> Result<Vec<CollectionSummary>, ClientError> {
        self.get("/api/v1/docs").await
    }
}

impl RemoteCollection {
    /// The document, if there is one.
    pub async fn get(&self, id: &str) -> Result<Option<Value>, ClientError> {
        found(self.client.get(&self.document(id)).await)
    }

    /// What the document and its history take, if there is one.
    pub async fn cost(&self, id: &str) -> Result<Option<DocumentCost>, ClientError> {
        found(self.client.get(&format!("{}/cost", self.document(id))).await)
    }

    /// Makes the document equal to `json`, text that the node parses; under a new id if there is none.
    pub async fn put(&self, id: Option<&str>, json: Bytes) -> Result<DocumentWritten, ClientError> {
        match id {
            Some(id) => self.send(Method::PUT, &self.document(id), json).await,
            None => self.send(Method::POST, &self.at("documents"), json).await,
        }
    }

    /// Applies a JSON merge patch, text that the node parses.
    pub async fn patch(&self, id: &str, json: Bytes) -> Result<DocumentWritten, ClientError> {
        self.send(Method::PATCH, &self.document(id), json).await
    }

    /// Edits places of a document, all or none.
    pub async fn edit(&self, id: &str, edits: &[Edit]) -> Result<DocumentWritten, ClientError> {
        self.client.post(&format!("{}/edit", self.document(id)), &edits).await
    }

    /// Deletes a document; says whether there was one.
    pub async fn delete(&self, id: &str) -> Result<bool, ClientError> {
        let answer = self.client.send(request(Method::DELETE, &self.document(id), empty())).await?;
        answer.json::<Deleted>().await.map(|answer| answer.deleted)
    }

    /// A page of the documents that match.
    pub async fn find(&self, find: &FindRequest) -> Result<FindAnswer, ClientError> {
        self.client.post(&self.at("find"), find).await
    }

    /// Deletes the documents that match; says how many there were.
    pub async fn delete_where(&self, query: Value) -> Result<u64, ClientError> {
        let count: DocumentCount = self.client.post(&self.at("delete"), &DeleteRequest { query }).await?;
        Ok(count.documents)
    }

    /// Drops the collection; says how many documents it had.
    pub async fn drop_all(&self) -> Result<u64, ClientError> {
        let path = format!("/api/v1/docs/{}", self.name);
        let answer = self.client.send(request(Method::DELETE, &path, empty())).await?;
        answer.json::<DocumentCount>().await.map(|count| count.documents)
    }

    /// The indexes.
    pub async fn indexes(&self) -> Result<Vec<IndexStatus>, ClientError> {
        self.client.get(&self.at("indexes")).await
    }

    /// Declares an index.
    pub async fn add_index(&self, name: &str, path: Pointer) -> Result<(), ClientError> {
        let place = self.index(name);
        let mut request = json_request(&place, &IndexRequest { path })?;
        *request.method_mut() = Method::PUT;
        self.client.send(request).await?.done().await
    }

    /// Removes an index.
    pub async fn remove_index(&self, name: &str) -> Result<(), ClientError> {
        self.client.send(request(Method::DELETE, &self.index(name), empty())).await?.done().await
    }

    /// Every document that matches, one a line, as it comes.
    pub async fn export(
        &self,
        query: Option<&Value>,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Send + use<>, ClientError> {
        let query = query.map(|query| format!("?query={}", percent::encode(query.to_string().as_bytes())));
        let path = format!("{}{}", self.at("export"), query.unwrap_or_default());
        Ok(self.client.send(request(Method::GET, &path, empty())).await?.chunks())
    }

    /// Puts every document that comes, one a line; says how many.
    pub async fn import(
        &self,
        lines: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<u64, ClientError> {
        let mut request = request(Method::POST, &self.at("import"), streamed(lines));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        self.client.send(request).await?.json::<DocumentCount>().await.map(|count| count.documents)
    }

    async fn send<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        json: Bytes,
    ) -> Result<A, ClientError> {
        let mut request = request(method, path, full(json));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.client.send(request).await?.json().await
    }

    fn at(&self, what: &str) -> String {
        format!("/api/v1/docs/{}/{what}", self.name)
    }

    fn document(&self, id: &str) -> String {
        self.at(&format!("documents/{}", percent::encode(id.as_bytes())))
    }

    fn index(&self, name: &str) -> String {
        self.at(&format!("indexes/{}", percent::encode(name.as_bytes())))
    }
}

fn found<A>(answer: Result<A, ClientError>) -> Result<Option<A>, ClientError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ClientError::Refused(problem)) if problem.body.code == "no-such-document" => Ok(None),
        Err(error) => Err(error),
    }
}

//! `wasi:keyvalue`: the spaces of the swarm's memory that a guest was granted, as buckets.
//!
//! Every call is a question to the node ([`Line::ask`]). A guest sees its own writes; what it writes is on its node's disk
//! when the call returns, and on its way to the others.

#![expect(unreachable_pub, reason = "the bindings re-export what stands for their resources")]

use wasmtime::component::{HasData, Resource, ResourceTable, ResourceTableError};

use self::bindings::wasi::keyvalue::{atomics, batch, store};
use crate::ask::{Ask, Bucket as About, MAX_ASKED_VALUE, Told};
use crate::line::Line;
use crate::wire::Chunk;

mod bindings {
    wasmtime::component::bindgen!({
        path: "wit/keyvalue.wit",
        world: "imports",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": super::Bucket,
            "wasi:keyvalue/atomics.cas": super::Cas,
        },
        trappable_error_type: {
            "wasi:keyvalue/store.error" => super::BucketError,
        },
    });
}

/// The interfaces, without their version.
pub(super) const PACKAGE: &str = "wasi:keyvalue/";

/// Keys of one call of `batch`.
const MAX_KEYS: usize = 10_000;

/// An open bucket.
#[derive(Debug)]
pub struct Bucket {
    name: String,
}

/// A value as it was, to be replaced only if it still is.
#[derive(Debug)]
pub struct Cas {
    bucket: String,
    key: String,
    version: Option<String>,
    value: Option<Vec<u8>>,
}

/// What a call of a bucket can come to instead.
#[derive(Debug)]
pub enum BucketError {
    /// The bucket was not granted, or not for writing.
    Denied,
    /// It could not be done.
    Other(String),
}

type Result<T> = std::result::Result<T, BucketError>;

impl From<ResourceTableError> for BucketError {
    fn from(error: ResourceTableError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<BucketError> for store::Error {
    fn from(error: BucketError) -> Self {
        match error {
            BucketError::Denied => Self::AccessDenied,
            BucketError::Other(why) => Self::Other(why),
        }
    }
}

/// A guest's buckets for as long as one call takes.
pub(crate) struct Buckets<'guest> {
    pub(super) table: &'guest mut ResourceTable,
    /// Nothing where no questions can be asked: nothing is granted there.
    pub(super) line: Option<&'guest Line>,
}

/// Where [`Buckets`] are to be found in a guest.
pub(super) struct HasBuckets;

impl HasData for HasBuckets {
    type Data<'guest> = Buckets<'guest>;
}

/// Links all interfaces of the package.
pub(super) fn add_to_linker<T: Send>(
    linker: &mut wasmtime::component::Linker<T>,
    buckets: fn(&mut T) -> Buckets<'_>,
) -> wasmtime::Result<()> {
    store::add_to_linker::<T, HasBuckets>(linker, buckets)?;
    atomics::add_to_linker::<T, HasBuckets>(linker, buckets)?;
    batch::add_to_linker::<T, HasBuckets>(linker, buckets)
}

impl Buckets<'_> {
    fn name(&self, bucket: &Resource<Bucket>) -> Result<String> {
        Ok(self.table.get(bucket)?.name.clone())
    }

    async fn ask(&mut self, name: &str, about: About) -> Result<Told> {
        let Some(line) = self.line else { return Err(BucketError::Denied) };
        match line.ask(Ask::Bucket { name: name.to_owned(), about }).await {
            Told::Denied => Err(BucketError::Denied),
            Told::Failed(why) => Err(BucketError::Other(why)),
            told => Ok(told),
        }
    }

    async fn get(&mut self, name: &str, key: String) -> Result<Option<Vec<u8>>> {
        match self.ask(name, About::Get { key }).await? {
            Told::Value(value) => Ok(value.map(|Chunk(bytes)| bytes.to_vec())),
            told => Err(unexpected(&told)),
        }
    }

    async fn set(&mut self, name: &str, key: String, value: Vec<u8>) -> Result<()> {
        self.ask(name, About::Set { key, value: chunk(value)? }).await.map(drop)
    }

    async fn cas(&mut self, bucket: String, key: String) -> Result<Resource<Cas>> {
        let told = self.ask(&bucket, About::Versioned { key: key.clone() }).await?;
        let Told::Versioned(found) = told else { return Err(unexpected(&told)) };
        let (version, value) = found.map(|(version, Chunk(value))| (version, value.to_vec())).unzip();
        Ok(self.table.push(Cas { bucket, key, version, value })?)
    }
}

impl store::Host for Buckets<'_> {
    async fn open(&mut self, identifier: String) -> Result<Resource<Bucket>> {
        self.ask(&identifier, About::Open).await?;
        Ok(self.table.push(Bucket { name: identifier })?)
    }

    fn convert_error(&mut self, error: BucketError) -> wasmtime::Result<store::Error> {
        Ok(error.into())
    }
}

impl store::HostBucket for Buckets<'_> {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Option<Vec<u8>>> {
        let name = self.name(&bucket)?;
        Buckets::get(self, &name, key).await
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Result<()> {
        let name = self.name(&bucket)?;
        Buckets::set(self, &name, key, value).await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Result<()> {
        let name = self.name(&bucket)?;
        self.ask(&name, About::Delete { key }).await.map(drop)
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Result<bool> {
        let name = self.name(&bucket)?;
        match self.ask(&name, About::Exists { key }).await? {
            Told::Yes(exists) => Ok(exists),
            told => Err(unexpected(&told)),
        }
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> Result<store::KeyResponse> {
        let name = self.name(&bucket)?;
        match self.ask(&name, About::Keys { after: cursor }).await? {
            Told::Keys { keys, more } => {
                let cursor = keys.last().cloned().filter(|_| more);
                Ok(store::KeyResponse { keys, cursor })
            }
            told => Err(unexpected(&told)),
        }
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for Buckets<'_> {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Result<i64> {
        let name = self.name(&bucket)?;
        match self.ask(&name, About::Increment { key, by: delta }).await? {
            Told::Number(number) => Ok(number),
            told => Err(unexpected(&told)),
        }
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> wasmtime::Result<std::result::Result<(), atomics::CasError>> {
        let Cas { bucket, key, version, .. } = self.table.delete(cas)?;
        let store_error = |error: BucketError| atomics::CasError::StoreError(error.into());
        let asked = async {
            let value = chunk(value)?;
            self.ask(&bucket, About::Swap { key: key.clone(), version, value }).await
        };
        Ok(match asked.await {
            Ok(Told::Yes(true)) => Ok(()),
            Ok(Told::Yes(false)) => match self.cas(bucket, key).await {
                Ok(newer) => Err(atomics::CasError::CasFailed(newer)),
                Err(error) => Err(store_error(error)),
            },
            Ok(told) => Err(store_error(unexpected(&told))),
            Err(error) => Err(store_error(error)),
        })
    }
}

impl atomics::HostCas for Buckets<'_> {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Result<Resource<Cas>> {
        let name = self.name(&bucket)?;
        self.cas(name, key).await
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Result<Option<Vec<u8>>> {
        Ok(self.table.get(&cas)?.value.clone())
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for Buckets<'_> {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>> {
        let name = self.name(&bucket)?;
        few_enough(keys.len())?;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let value = Buckets::get(self, &name, key.clone()).await?;
            found.push((key, value));
        }
        Ok(found)
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, key_values: Vec<(String, Vec<u8>)>) -> Result<()> {
        let name = self.name(&bucket)?;
        few_enough(key_values.len())?;
        for (key, value) in key_values {
            Buckets::set(self, &name, key, value).await?;
        }
        Ok(())
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Result<()> {
        let name = self.name(&bucket)?;
        few_enough(keys.len())?;
        for key in keys {
            self.ask(&name, About::Delete { key }).await?;
        }
        Ok(())
    }
}

fn few_enough(keys: usize) -> Result<()> {
    match keys {
        0..=MAX_KEYS => Ok(()),
        _ => Err(BucketError::Other(format!("more than {MAX_KEYS} keys at a time"))),
    }
}

fn chunk(value: Vec<u8>) -> Result<Chunk> {
    match value.len() {
        0..=MAX_ASKED_VALUE => Ok(Chunk(value.into())),
        _ => Err(BucketError::Other(format!("a value is longer than {} KiB", MAX_ASKED_VALUE >> 10))),
    }
}

fn unexpected(told: &Told) -> BucketError {
    BucketError::Other(format!("the node answered {told:?}"))
}

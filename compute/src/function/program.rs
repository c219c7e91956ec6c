//! The program that a function's name stands for now.

use std::time::Duration;

use bytes::Bytes;
use starfish_fs::vfs::VfsError;
use starfish_memory::ReadError;

use super::service::Functions;
use super::store::{FunctionStoreError, Store};
use super::version::{FunctionName, Version, VersionId};
use crate::cache::PrepareError;
use crate::task::Digest;

/// How long the tree may be behind the record of a function.
const TREE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("no function {0}")]
    NotFound(FunctionName),
    #[error(transparent)]
    Store(#[from] FunctionStoreError),
    #[error("the program cannot be kept here")]
    Cache(#[from] PrepareError),
}

impl From<ReadError> for ProgramError {
    fn from(error: ReadError) -> Self {
        Self::Store(error.into())
    }
}

impl Functions {
    pub(crate) async fn exists(&self, name: &FunctionName) -> Result<bool, ReadError> {
        Ok(self.store.all().await?.contains_key(name))
    }

    /// The version of a function that calls get.
    pub(crate) async fn current_version(&self, name: &FunctionName) -> Result<Version, ProgramError> {
        Ok(self.current(name).await?.1)
    }

    async fn current(&self, name: &FunctionName) -> Result<(VersionId, Version), ProgramError> {
        let all = self.store.all().await?;
        let function =
            all.get(name).and_then(|function| Some((function.current, function.current()?.clone())));
        function.ok_or_else(|| ProgramError::NotFound(name.clone()))
    }

    /// The same, and its program.
    pub(crate) async fn current_program(
        &self,
        name: &FunctionName,
    ) -> Result<(Version, Bytes), ProgramError> {
        let (id, version) = self.current(name).await?;
        let programs = &self.service.programs;
        if !programs.has(version.module).await {
            let program = self.store.fetch(name, id, version.module).await?;
            programs.put(version.module, program).await?;
        }
        let program = programs.get(version.module).await?;
        Ok((version, program))
    }
}

impl Store {
    /// The program of a version, which may be on its way still.
    pub(super) async fn fetch(
        &self,
        name: &FunctionName,
        id: VersionId,
        module: Digest,
    ) -> Result<Bytes, FunctionStoreError> {
        let deadline = tokio::time::Instant::now() + TREE_PATIENCE;
        loop {
            match self.program(name, id, module).await {
                Err(FunctionStoreError::Files(VfsError::NotFound { .. }))
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                fetched => return fetched,
            }
        }
    }
}

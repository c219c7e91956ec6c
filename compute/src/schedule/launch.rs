//! From a function to a batch of one task, that is run wherever a slot is free.

use std::sync::Arc;
use std::time::Duration;

use crate::batch::{BatchError, BatchSpec, Batches};
use crate::function::version::FunctionName;
use crate::function::{Functions, ProgramError};
use crate::task::{JobId, Module};

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// What the job is called in lists.
    pub(crate) name: String,
    pub(crate) function: FunctionName,
    pub(crate) args: Vec<String>,
    /// What it is told beside the function's own variables.
    pub(crate) env: Vec<(String, String)>,
    /// How long its results are kept.
    pub(crate) keep: Duration,
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl Launch {
    /// Has the current version of the function run as the job of this id, unless there is or was one. Says whether it is
    /// new.
    pub(crate) async fn run(
        self,
        job: JobId,
        functions: &Functions,
        batches: &Arc<Batches>,
    ) -> Result<bool, LaunchError> {
        let Self { name, function, args, env, keep } = self;
        let (version, program) = functions.current_program(&function).await?;
        let spec = BatchSpec {
            args,
            env: [version.env, env].concat(),
            grants: version.grants,
            limits: version.limits,
            keep,
            cached: false,
            ..BatchSpec::new(name, Module::Bytes(program))
        };
        Ok(batches.submit_once(job, spec).await?)
    }
}

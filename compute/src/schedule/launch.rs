//! From a function to a batch of one task, that is run wherever a slot is free.

use std::sync::Arc;
use std::time::Duration;

use super::trigger::Source;
use crate::batch::{BatchError, BatchSpec, Batches, Input, Items};
use crate::function::version::FunctionName;
use crate::function::{Functions, ProgramError};
use crate::task::{JobId, MAX_ARGUMENT_BYTES, Module};

/// The arguments of what runs by itself: they are kept in a value of memory.
pub(crate) const MAX_ARGS_BYTES: usize = 8 << 10;
const _: () = assert!(MAX_ARGS_BYTES < MAX_ARGUMENT_BYTES);

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// What the job is called in lists.
    pub(crate) name: String,
    pub(crate) function: FunctionName,
    pub(crate) args: Vec<String>,
    /// What it is told beside the function's own variables.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) items: Items,
    pub(crate) input: Input,
    /// How long its results are kept.
    pub(crate) keep: Duration,
    /// What the function must not be able to write to.
    pub(crate) keep_out: Option<Source>,
}

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("{0} may write to {1}, where it would call itself for ever (--allow-loop lets it)")]
    Loop(FunctionName, String),
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// Whether these can be the arguments of what runs by itself.
pub(crate) fn are_sound(args: &[String]) -> bool {
    args.iter().map(|arg| arg.len() + 1).sum::<usize>() <= MAX_ARGS_BYTES
        && !args.iter().any(|arg| arg.contains('\0'))
}

/// Whether a function is there, and one that cannot write to what is kept from it.
pub(crate) async fn check(
    function: &FunctionName,
    keep_out: Option<&Source>,
    functions: &Functions,
) -> Result<(), LaunchError> {
    let version = functions.current_version(function).await?;
    match keep_out.and_then(|source| source.heard_from(&version)) {
        Some(what) => Err(LaunchError::Loop(function.clone(), what)),
        None => Ok(()),
    }
}

impl Launch {
    /// One call of a function, with nothing.
    pub(crate) fn new(name: &FunctionName, function: FunctionName) -> Self {
        Self {
            name: name.to_string(),
            function,
            args: Vec::new(),
            env: Vec::new(),
            items: Items::One,
            input: Input::Empty,
            keep: Duration::ZERO,
            keep_out: None,
        }
    }

    /// Has the current version of the function run as the job of this id, unless there is or was one. Says whether it is
    /// new.
    pub(crate) async fn run(
        self,
        job: JobId,
        functions: &Functions,
        batches: &Arc<Batches>,
    ) -> Result<bool, LaunchError> {
        // First: what was launched stays so, whatever has become of its function since.
        if batches.is_used(job).await? {
            return Ok(false);
        }
        let Self { name, function, args, env, items, input, keep, keep_out } = self;
        check(&function, keep_out.as_ref(), functions).await?;
        let (version, program) = functions.current_program(&function).await?;
        let spec = BatchSpec {
            args,
            env: [version.env, env].concat(),
            grants: version.grants,
            reach: version.reach,
            limits: version.limits,
            items,
            input,
            keep,
            cached: false,
            ..BatchSpec::new(name, Module::Bytes(program))
        };
        Ok(batches.submit_once(job, spec).await?)
    }
}

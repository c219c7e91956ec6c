//! From what a user asks for to a job on the board: checked, and with everything named by its content.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use starfish_fs::path::VfsPath;
use starfish_fs::vfs::{Vfs, VfsError};

use crate::board::BoardFull;
use crate::cache::{PrepareError, Programs};
use crate::reach::MAX_REACH;
use crate::staging::{self, StageError};
use crate::task::{
    Call, Digest, MAX_ARGUMENT_BYTES, MAX_GRANTS, MAX_MODULE_BYTES, Mebibytes, Module, TaskSpec,
};

/// The most memory that a 32-bit guest can have.
const MAX_MEMORY_BYTES: u64 = 4 << 30;

/// Why a task was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The program cannot be read.
    #[error("cannot read the program")]
    Program(#[source] VfsError),
    /// It is too large.
    #[error("the program is larger than {}", Mebibytes(MAX_MODULE_BYTES as u64))]
    TooLarge,
    /// It is not one.
    #[error("not a WASM program: it does not begin with \\0asm")]
    NotWasm,
    /// Too many or too long.
    #[error("arguments and environment are longer than {}", Mebibytes(MAX_ARGUMENT_BYTES as u64))]
    Arguments,
    /// An argument holds a NUL byte.
    #[error("an argument or variable holds a NUL byte")]
    Nul,
    /// A limit that no guest can have.
    #[error("a task may have between 64 KiB and 4 GiB of memory")]
    Memory,
    /// A task that may not take any time.
    #[error("a task needs a timeout of more than zero")]
    Timeout,
    /// More than can be opened.
    #[error("more than {MAX_GRANTS} granted folders")]
    Grants,
    /// More than is kept.
    #[error("more than {MAX_REACH} things that it may reach")]
    Reach,
    /// One lies in another, so that it would not be clear what may be done there.
    #[error("the granted folders {0} and {1} overlap")]
    Overlap(VfsPath, VfsPath),
    /// A folder cannot be granted.
    #[error("cannot grant {path}")]
    Grant {
        /// Which.
        path: VfsPath,
        /// Why not.
        #[source]
        source: StageError,
    },
    /// The board is full.
    #[error(transparent)]
    Full(#[from] BoardFull),
    /// This node's disk does not take it.
    #[error("cannot keep the job on this disk")]
    Disk(#[from] std::io::Error),
    /// It cannot be put into words.
    #[error("cannot encode the task")]
    Encode(#[from] postcard::Error),
}

/// Checks a task, takes its program in, and names its inputs.
pub(crate) async fn prepare(
    spec: &TaskSpec,
    files: &dyn Vfs,
    programs: &Programs,
) -> Result<Call, SubmitError> {
    check(spec)?;
    let wasm = match &spec.module {
        Module::Bytes(wasm) => wasm.clone(),
        Module::Path(path) => read_program(files, path).await?,
    };
    if wasm.len() > MAX_MODULE_BYTES {
        return Err(SubmitError::TooLarge);
    }
    if !wasm.starts_with(b"\0asm") {
        return Err(SubmitError::NotWasm);
    }
    let module = Digest::of(&wasm);
    programs.put(module, wasm).await.map_err(|error| match error {
        PrepareError::Disk(error) => SubmitError::Disk(error),
        other => SubmitError::Disk(std::io::Error::other(other)),
    })?;
    let mut inputs = Vec::new();
    for grant in &spec.grants {
        let failed = |source| SubmitError::Grant { path: grant.path.clone(), source };
        inputs.push((grant.clone(), staging::digest(files, &grant.path).await.map_err(failed)?));
    }
    let TaskSpec { name, module: _, args, env, grants: _, reach, limits, on: _ } = spec.clone();
    Ok(Call { module, name, args, env, inputs, reach, limits })
}

fn check(spec: &TaskSpec) -> Result<(), SubmitError> {
    let words = || {
        let variables = spec.env.iter().flat_map(|(name, value)| [name, value]);
        std::iter::once(&spec.name).chain(&spec.args).chain(variables)
    };
    if words().map(|word| word.len() + 1).sum::<usize>() > MAX_ARGUMENT_BYTES {
        return Err(SubmitError::Arguments);
    }
    if words().any(|word| word.contains('\0')) {
        return Err(SubmitError::Nul);
    }
    if !(64 << 10..=MAX_MEMORY_BYTES).contains(&spec.limits.memory_bytes) {
        return Err(SubmitError::Memory);
    }
    if spec.limits.timeout.as_millis() == 0 {
        return Err(SubmitError::Timeout);
    }
    if spec.grants.len() > MAX_GRANTS {
        return Err(SubmitError::Grants);
    }
    if spec.reach.len() > MAX_REACH {
        return Err(SubmitError::Reach);
    }
    for (number, grant) in spec.grants.iter().enumerate() {
        let clash = spec.grants[..number]
            .iter()
            .find(|other| grant.path.starts_with(&other.path) || other.path.starts_with(&grant.path));
        if let Some(other) = clash {
            return Err(SubmitError::Overlap(other.path.clone(), grant.path.clone()));
        }
    }
    Ok(())
}

async fn read_program(files: &dyn Vfs, path: &VfsPath) -> Result<Bytes, SubmitError> {
    // One byte more than is allowed, so that more is noticed.
    let range = 0..MAX_MODULE_BYTES as u64 + 1;
    let mut content = files.read(path, range).await.map_err(SubmitError::Program)?;
    let mut wasm = BytesMut::new();
    while let Some(bytes) = content.next().await {
        wasm.extend_from_slice(&bytes.map_err(SubmitError::Program)?);
    }
    Ok(wasm.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> TaskSpec {
        TaskSpec::new("task", Module::Bytes(Bytes::from_static(b"\0asm\x01\0\0\0")))
    }

    #[test]
    fn what_makes_no_sense_is_refused_at_once() {
        assert!(check(&spec()).is_ok());
        let mut huge = spec();
        huge.args = vec!["x".repeat(MAX_ARGUMENT_BYTES)];
        assert!(matches!(check(&huge), Err(SubmitError::Arguments)));
        let mut nested = spec();
        nested.grants = vec!["/a".parse().unwrap(), "/a/b:ro".parse().unwrap()];
        assert!(matches!(check(&nested), Err(SubmitError::Overlap(..))));
        let mut tiny = spec();
        tiny.limits.memory_bytes = 1;
        assert!(matches!(check(&tiny), Err(SubmitError::Memory)));
        let mut nul = spec();
        nul.env = vec![("A".into(), "b\0".into())];
        assert!(matches!(check(&nul), Err(SubmitError::Nul)));
    }
}

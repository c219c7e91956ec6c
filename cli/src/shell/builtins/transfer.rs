//! Where `cp`, `mv` and `ln` put things: at a path, or under its own name into a directory.

use super::{Context, Failure};
use crate::shell::fs::path::VfsPath;

/// Splits `SOURCE... TARGET`; several sources need a directory.
pub(super) async fn sources_and_target<'a>(
    context: &Context,
    paths: &'a [String],
) -> Result<(&'a [String], Target), Failure> {
    let Some((last, sources)) = paths.split_last() else {
        return Err(Failure::Usage("no target".to_owned()));
    };
    let path = context.path(last)?;
    let directory = context.is_dir(&path).await;
    if sources.len() > 1 && !directory {
        return Err(Failure::Usage(format!("{path}: several sources need a directory as target")));
    }
    Ok((sources, Target { path, directory }))
}

/// The last argument.
pub(super) struct Target {
    path: VfsPath,
    directory: bool,
}

impl Target {
    /// Where `source` goes.
    pub(super) fn place(&self, source: &VfsPath) -> Result<VfsPath, Failure> {
        match source.name() {
            Some(name) if self.directory => Ok(self.path.join(name)?),
            Some(_) => Ok(self.path.clone()),
            None => Err(Failure::Refused("the root cannot be a source".to_owned())),
        }
    }
}

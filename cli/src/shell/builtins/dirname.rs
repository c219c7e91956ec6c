//! `dirname`

use super::{Builtin, Context, Outcome};

/// Arguments of `dirname`.
#[derive(Debug, clap::Args)]
pub(super) struct Dirname {
    /// The path
    path: String,
}

impl Builtin for Dirname {
    const NAME: &'static str = "dirname";
    const ABOUT: &'static str = "Print a path without its last name";

    async fn run(self, mut context: Context) -> Outcome {
        let path = self.path.trim_end_matches('/');
        let parent = match path.rsplit_once('/') {
            Some((parent, _)) if !parent.trim_end_matches('/').is_empty() => parent.trim_end_matches('/'),
            Some(_) => "/",
            None if path.is_empty() && self.path.starts_with('/') => "/",
            None => ".",
        };
        context.line(parent).await?;
        context.done()
    }
}

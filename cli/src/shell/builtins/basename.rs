//! `basename`

use super::{Builtin, Context, Outcome};

/// Arguments of `basename`.
#[derive(Debug, clap::Args)]
pub(super) struct Basename {
    /// The path
    path: String,
    /// An ending to cut off
    suffix: Option<String>,
}

impl Builtin for Basename {
    const NAME: &'static str = "basename";
    const ABOUT: &'static str = "Print the last name of a path";

    async fn run(self, mut context: Context) -> Outcome {
        let path = self.path.trim_end_matches('/');
        let name = if path.is_empty() { "/" } else { path.rsplit('/').next().unwrap_or(path) };
        let stem = self.suffix.as_deref().and_then(|suffix| name.strip_suffix(suffix));
        context.line(stem.filter(|stem| !stem.is_empty()).unwrap_or(name)).await?;
        context.done()
    }
}

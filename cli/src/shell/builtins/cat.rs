//! `cat`

use super::{Builtin, Context, Failure, Outcome};

/// Arguments of `cat`.
#[derive(Debug, clap::Args)]
pub(super) struct Cat {
    /// Files; - is standard input
    #[arg(default_value = "-")]
    files: Vec<String>,
}

impl Builtin for Cat {
    const NAME: &'static str = "cat";
    const ABOUT: &'static str = "Print files one after another";
    const EXAMPLES: &'static str = "  cat /logs/a | /bin/upper.wasm > /out";

    async fn run(self, mut context: Context) -> Outcome {
        for file in &self.files {
            if let Err(failure) = print(&mut context, file).await {
                context.complain(Self::NAME, failure).await?;
            }
        }
        context.done()
    }
}

async fn print(context: &mut Context, file: &str) -> Result<(), Failure> {
    let reader = context.open(file).await?;
    context.print(reader).await?;
    Ok(())
}

//! `tee`

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Builtin, Context, Failure, Outcome};
use crate::shell::content::Sink;
use crate::shell::io::PIPE_BYTES;

/// Arguments of `tee`.
#[derive(Debug, clap::Args)]
pub(super) struct Tee {
    /// Write on after what the files hold
    #[arg(short, long)]
    append: bool,
    /// Files
    files: Vec<String>,
}

impl Builtin for Tee {
    const NAME: &'static str = "tee";
    const ABOUT: &'static str = "Copy standard input to standard output and to files";

    async fn run(self, mut context: Context) -> Outcome {
        let mut sinks = Vec::new();
        for file in &self.files {
            match self.open(&context, file).await {
                Ok(sink) => sinks.push(sink),
                Err(failure) => context.complain(Self::NAME, failure).await?,
            }
        }
        copy(&mut context, &mut sinks).await?;
        for sink in sinks {
            if let Err(error) = sink.finish().await {
                context.complain(Self::NAME, error.into()).await?;
            }
        }
        context.done()
    }
}

impl Tee {
    async fn open(&self, context: &Context, file: &str) -> Result<Sink, Failure> {
        Ok(Sink::open(&context.vfs, &context.path(file)?, self.append).await?)
    }
}

/// Files are written to the end even if nobody reads standard output any more.
async fn copy(context: &mut Context, sinks: &mut [Sink]) -> Result<(), Failure> {
    let mut buffer = vec![0; PIPE_BYTES];
    loop {
        let read = context.io.stdin.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let shown = context.io.stdout.write_all(&buffer[..read]).await;
        if shown.is_err() && sinks.is_empty() {
            return Err(Failure::BrokenPipe);
        }
        for sink in &mut *sinks {
            // A file that cannot take more says why when it is finished.
            let _ = sink.output.write_all(&buffer[..read]).await;
        }
    }
}

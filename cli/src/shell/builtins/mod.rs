//! The built-in commands over the tree: one file each, the same in the shell and after `starfish`.
//!
//! A built-in is a `clap::Args` struct with a `run`. The table [`ALL`] feeds lookup, `help` and completion.

mod basename;
mod cat;
mod chmod;
mod context;
mod cp;
mod dirname;
mod echo;
pub(super) mod escapes;
mod failure;
mod grep;
mod head;
mod lines;
mod ln;
mod ls;
mod mkdir;
mod mv;
mod printf;
mod rm;
mod rmdir;
mod seq;
mod sleep;
mod sort;
mod stat;
mod tail;
mod tee;
mod touch;
mod transfer;
mod tree;
mod uniq;
mod wc;

use std::future::Future;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::AsyncWriteExt;

pub use context::Context;
pub use failure::{Failure, Outcome};

use super::status;

/// Every built-in, sorted by name.
pub const ALL: &[Entry] = &[
    entry::<basename::Basename>(),
    entry::<cat::Cat>(),
    entry::<chmod::Chmod>(),
    entry::<cp::Cp>(),
    entry::<dirname::Dirname>(),
    entry::<echo::Echo>(),
    entry::<grep::Grep>(),
    entry::<head::Head>(),
    entry::<ln::Ln>(),
    entry::<ls::Ls>(),
    entry::<mkdir::Mkdir>(),
    entry::<mv::Mv>(),
    entry::<printf::Printf>(),
    entry::<rm::Rm>(),
    entry::<rmdir::Rmdir>(),
    entry::<seq::Seq>(),
    entry::<sleep::Sleep>(),
    entry::<sort::Sort>(),
    entry::<stat::Stat>(),
    entry::<tail::Tail>(),
    entry::<tee::Tee>(),
    entry::<touch::Touch>(),
    entry::<tree::Tree>(),
    entry::<uniq::Uniq>(),
    entry::<wc::Wc>(),
];

/// Finds a built-in by its name.
pub fn find(name: &str) -> Option<&'static Entry> {
    ALL.iter().find(|entry| entry.name == name)
}

/// One built-in command.
trait Builtin: clap::Args + Send + 'static {
    /// The word that calls it.
    const NAME: &'static str;
    /// One line about it.
    const ABOUT: &'static str;
    /// Calls that show what it is for, one a line.
    const EXAMPLES: &'static str = "";
    /// Whether every word is an argument, `--help` too, as for `echo`.
    const VERBATIM: bool = false;

    /// Puts an old way of saying something, such as `head -1`, into the one that the arguments know.
    fn modernise(args: Vec<String>) -> Vec<String> {
        args
    }

    /// Does it. Errors that end the command are returned; others are told through [`Context::complain`].
    fn run(self, context: Context) -> impl Future<Output = Outcome> + Send;
}

/// A built-in in the table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The word that calls it.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Its clap command, for usage, help and the plain CLI; parses arguments without the name.
    pub command: fn() -> clap::Command,
    run: fn(Vec<String>, Context) -> BoxFuture<'static, i32>,
}

impl Entry {
    /// Runs the built-in with `args` (its name is not among them) and gives its exit status.
    /// What went wrong has been said on the context's standard error.
    pub async fn run(&self, args: Vec<String>, context: Context) -> i32 {
        match self.run_in_script(args, context).await {
            status::BROKEN_PIPE => status::OK,
            status => status,
        }
    }

    /// As [`Self::run`], but a reader that left is told from success: a script has to stop then, too.
    pub(super) async fn run_in_script(&self, args: Vec<String>, context: Context) -> i32 {
        (self.run)(args, context).await
    }
}

const fn entry<B: Builtin>() -> Entry {
    Entry {
        name: B::NAME,
        about: B::ABOUT,
        command: command::<B>,
        run: |args, context| run::<B>(args, context).boxed(),
    }
}

fn command<B: Builtin>() -> clap::Command {
    let command = clap::Command::new(B::NAME).about(B::ABOUT).no_binary_name(true).disable_help_flag(true);
    let command = if B::EXAMPLES.is_empty() {
        command
    } else {
        command.after_help(format!("Examples:\n{}", B::EXAMPLES))
    };
    let command = B::augment_args(command);
    if B::VERBATIM {
        return command;
    }
    // Without -h, which means other things to ls and grep.
    command.arg(clap::Arg::new("help").long("help").action(clap::ArgAction::Help).help("Print help"))
}

async fn run<B: Builtin>(mut args: Vec<String>, mut context: Context) -> i32 {
    if B::VERBATIM {
        args.insert(0, "--".to_owned());
    }
    let args = B::modernise(args);
    let parsed = command::<B>().try_get_matches_from(args).and_then(|matches| B::from_arg_matches(&matches));
    match parsed {
        Ok(builtin) => finish(builtin, context).await,
        Err(error) if error.use_stderr() => {
            let _ = context.io.stderr.write_all(error.to_string().as_bytes()).await;
            status::USAGE
        }
        Err(help) => {
            let _ = context.io.stdout.write_all(help.to_string().as_bytes()).await;
            status::OK
        }
    }
}

async fn finish<B: Builtin>(builtin: B, context: Context) -> i32 {
    let (mut stdout, mut stderr) = (context.io.stdout.clone(), context.io.stderr.clone());
    let outcome = match builtin.run(context).await {
        // What did not get out was not done, however well the rest went.
        Ok(status) => stdout.flush().await.map(|()| status).map_err(Failure::from),
        failed => failed,
    };
    match outcome {
        Ok(status) => status,
        Err(Failure::BrokenPipe) => status::BROKEN_PIPE,
        Err(failure) => {
            let _ = stderr.line(format!("{}: {}", B::NAME, failure.told())).await;
            failure.status()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_every_command_is_sound() {
        assert!(ALL.is_sorted_by_key(|entry| entry.name));
        for entry in ALL {
            (entry.command)().debug_assert();
            assert!(!entry.about.ends_with('.'), "{}: one line without a period", entry.name);
        }
    }
}

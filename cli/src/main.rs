//! The `starfish` program: parses the command line, runs a verb, turns how it ended into an exit status.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::FromArgMatches;
use starfish::allocator;
use starfish::commands::{self, Cli, Context, Verb, failure};
use starfish::output::error;
use starfish::shell::builtins;
use starfish_node::DataDir;

/// Ctrl-C, as shells report it.
const INTERRUPTED: i32 = 130;
/// How long what was begun in the background (ending a job, say) may go on after the verb.
const LINGER: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    allocator::bound();
    let words: Vec<OsString> = std::env::args_os().collect();
    // A worker is a process of one thread; it must not even start a runtime.
    if words.get(1).is_some_and(|word| word == "worker") {
        return starfish_node::compute::worker::main();
    }
    let cli = match parse(words) {
        Ok(cli) => cli,
        Err(message) => message.exit(),
    };
    let status = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let status = runtime.block_on(run(cli));
            runtime.shutdown_timeout(LINGER);
            status
        }
        Err(failed) => report(&failed.into()),
    };
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

async fn run(cli: Cli) -> i32 {
    let ended = match DataDir::find(cli.data_dir, |name| std::env::var(name).ok()) {
        Ok(dir) => run_in(Context::process(dir), cli.verb, cli.command).await,
        Err(failed) => Err(failed.into()),
    };
    match ended {
        Ok(status) => status,
        Err(failed) if failure::is_broken_pipe(&failed) => 0,
        Err(failed) => report(&failed),
    }
}

async fn run_in(context: Context, verb: Option<Verb>, line: Option<String>) -> anyhow::Result<i32> {
    let mut io = context.io.clone();
    let ended = match verb {
        None => commands::open_shell(context, line).await,
        // These see to ctrl-C themselves.
        Some(verb @ (Verb::Up(_) | Verb::Shell(_) | Verb::Mount(_))) => commands::run(verb, context).await,
        Some(verb) => tokio::select! {
            ended = commands::run(verb, context) => ended,
            Ok(()) = tokio::signal::ctrl_c() => Ok(INTERRUPTED),
        },
    };
    io.flush().await;
    ended
}

fn report(failed: &anyhow::Error) -> i32 {
    error::report(failed, failure::hint(failed).as_deref());
    failure::status(failed)
}

/// Parses the command line. The built-ins of the shell parse their own words, so that they are the same there and
/// here; only `--data-dir`, which may stand anywhere, is taken out first.
fn parse(words: Vec<OsString>) -> Result<Cli, clap::Error> {
    let matches = commands::command().try_get_matches_from(&words)?;
    let Some((name, of_verb)) = matches.subcommand() else { return Cli::from_arg_matches(&matches) };
    if builtins::find(name).is_none() {
        return Cli::from_arg_matches(&matches);
    }
    let data_dir = of_verb.get_one("data_dir").or_else(|| matches.get_one("data_dir")).cloned();
    Ok(Cli { data_dir, command: None, verb: Some(Verb::Builtin(words_of_builtin(name, words))) })
}

/// The built-in's name and its own words.
fn words_of_builtin(name: &str, words: Vec<OsString>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.into_iter().skip(1).map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        if word == "--" {
            kept.push(word);
            kept.extend(words);
            break;
        } else if word == "--data-dir" {
            words.next();
        } else if !word.starts_with("--data-dir=") {
            kept.push(word);
        }
    }
    debug_assert_eq!(kept.first().map(String::as_str), Some(name));
    kept
}

//! Words that act on the shell itself: where it stands, its variables, the course of a script.
//!
//! What acts on the tree only is a built-in and lives in [`super::builtins`].

mod about;
mod control;
mod directory;
mod variables;

use futures::future::BoxFuture;

use super::eval::Interpreter;
use super::io::Io;
use super::status;
use super::stop::{Eval, Stop};

/// A word of the shell.
pub(super) struct Word {
    /// The word.
    pub(super) name: &'static str,
    /// How it is used.
    pub(super) usage: &'static str,
    /// One line about it.
    pub(super) about: &'static str,
    /// Does it, with the arguments after the word.
    pub(super) run: Run,
}

/// What runs a word.
type Run = for<'a> fn(&'a mut Interpreter, Vec<String>, &'a Io) -> BoxFuture<'a, Eval>;

const fn word(name: &'static str, usage: &'static str, about: &'static str, run: Run) -> Word {
    Word { name, usage, about, run }
}

/// Every word, sorted by name.
pub(super) const ALL: &[Word] = &[
    word(".", ". FILE [ARG]...", "Run a script in this shell", |shell, args, io| {
        Box::pin(control::source(shell, args, io))
    }),
    word(":", ": [ARG]...", "Do nothing, successfully", |_, _, _| Box::pin(async { Ok(status::OK) })),
    word("[", "[ EXPRESSION ]", "Test files, texts and numbers", |shell, args, io| {
        Box::pin(control::bracket(shell, args, io))
    }),
    word("break", "break [N]", "Leave the innermost N loops", |_, args, io| {
        Box::pin(control::leave_loop(args, io))
    }),
    word("cd", "cd [DIR | -]", "Go to a directory", |shell, args, io| {
        Box::pin(directory::cd(shell, args, io))
    }),
    word(
        "command",
        "command NAME [ARG]...",
        "Run a command, not a function of that name",
        |shell, args, io| Box::pin(control::command(shell, args, io)),
    ),
    word("continue", "continue [N]", "Begin the next turn of a loop", |_, args, io| {
        Box::pin(control::next_turn(args, io))
    }),
    word("eval", "eval [TEXT]...", "Run text as a command", |shell, args, io| {
        Box::pin(control::eval(shell, args, io))
    }),
    word("exit", "exit [STATUS]", "Leave the shell", |shell, args, io| {
        Box::pin(control::exit(shell, args, io))
    }),
    word("export", "export [NAME[=VALUE]]...", "Let programs see variables", |shell, args, io| {
        Box::pin(variables::export(shell, args, io))
    }),
    word("false", "false", "Do nothing, and fail", |_, _, _| Box::pin(async { Ok(status::FAILED) })),
    word("help", "help [COMMAND]", "List commands, or explain one", |shell, args, io| {
        Box::pin(about::help(shell, args, io))
    }),
    word("local", "local NAME[=VALUE]...", "Make variables of a function", |shell, args, io| {
        Box::pin(variables::local(shell, args, io))
    }),
    word("pwd", "pwd", "Print where the shell stands", |shell, args, io| {
        Box::pin(directory::pwd(shell, args, io))
    }),
    word("read", "read [-r] [-p PROMPT] [NAME]...", "Read a line into variables", |shell, args, io| {
        Box::pin(variables::read(shell, args, io))
    }),
    word("return", "return [STATUS]", "Leave a function", |shell, args, io| {
        Box::pin(control::leave_function(shell, args, io))
    }),
    word(
        "set",
        "set [-eufx] [-o pipefail] [--] [ARG]...",
        "Switch options, or set $1 and on",
        |shell, args, io| Box::pin(variables::set(shell, args, io)),
    ),
    word("shift", "shift [N]", "Drop the first arguments", |shell, args, io| {
        Box::pin(variables::shift(shell, args, io))
    }),
    word("source", "source FILE [ARG]...", "Run a script in this shell", |shell, args, io| {
        Box::pin(control::source(shell, args, io))
    }),
    word("test", "test EXPRESSION", "Test files, texts and numbers", |shell, args, io| {
        Box::pin(control::test(shell, args, io))
    }),
    word("true", "true", "Do nothing, successfully", |_, _, _| Box::pin(async { Ok(status::OK) })),
    word("type", "type NAME...", "Say what a word would run", |shell, args, io| {
        Box::pin(about::kinds(shell, args, io))
    }),
    word("unset", "unset NAME...", "Forget variables and functions", |shell, args, io| {
        Box::pin(variables::unset(shell, args, io))
    }),
];

/// Words of bash that this shell knows of and cannot do: better said than "command not found".
pub(super) const UNSUPPORTED: &[&str] = &[
    "alias", "bg", "declare", "disown", "exec", "fg", "getopts", "hash", "let", "mapfile", "popd", "pushd",
    "readonly", "select", "shopt", "trap", "typeset", "ulimit", "umask", "unalias", "wait",
];

/// Finds a word by its name.
pub(super) fn find(name: &str) -> Option<&'static Word> {
    ALL.iter().find(|word| word.name == name)
}

/// Prints a line; if nobody reads it, the script is over.
async fn print(io: &Io, text: impl std::fmt::Display) -> Result<(), Stop> {
    io.stdout.clone().line(text).await.map_err(|_| Stop::BrokenPipe)
}

/// Says what is wrong with the arguments of a word.
async fn misused(word: &str, message: &str, io: &Io) -> Eval {
    let _ = io.stderr.clone().line(format!("{word}: {message}")).await;
    Ok(status::USAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_no_word_is_listed_twice() {
        assert!(ALL.is_sorted_by_key(|word| word.name) && UNSUPPORTED.is_sorted());
        for word in ALL {
            assert!(!UNSUPPORTED.contains(&word.name), "{}", word.name);
            assert!(super::super::builtins::find(word.name).is_none(), "{}", word.name);
        }
    }
}

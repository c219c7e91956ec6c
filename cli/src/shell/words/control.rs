//! The course of a script: `exit`, `return`, `break`, `continue`, `eval`, `source`, `command`, `test`.

use crate::shell::eval::Interpreter;
use crate::shell::io::Io;
use crate::shell::status;
use crate::shell::stop::{Eval, EvalError, Stop};

use super::misused;

pub(super) async fn exit(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    match status_argument(shell, &args) {
        Some(status) => Err(Stop::Exit(status)),
        None => misused("exit", "the status must be a number", io).await,
    }
}

pub(super) async fn leave_function(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    match status_argument(shell, &args) {
        Some(status) => Err(Stop::Return(status)),
        None => misused("return", "the status must be a number", io).await,
    }
}

/// The status to leave with: the last one's if none is given.
fn status_argument(shell: &Interpreter, args: &[String]) -> Option<i32> {
    match args.first() {
        Some(text) => text.parse::<i32>().ok().map(|status| status & 0xff),
        None => Some(shell.state.status),
    }
}

pub(super) async fn leave_loop(args: Vec<String>, io: &Io) -> Eval {
    match levels(&args) {
        Some(levels) => Err(Stop::Break(levels)),
        None => misused("break", "N must be 1 or more", io).await,
    }
}

pub(super) async fn next_turn(args: Vec<String>, io: &Io) -> Eval {
    match levels(&args) {
        Some(levels) => Err(Stop::Continue(levels)),
        None => misused("continue", "N must be 1 or more", io).await,
    }
}

fn levels(args: &[String]) -> Option<usize> {
    args.first().map_or(Some(1), |text| text.parse().ok()).filter(|levels| *levels > 0)
}

pub(super) async fn eval(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    shell.attempt(&args.join(" "), io).await
}

pub(super) async fn source(shell: &mut Interpreter, mut args: Vec<String>, io: &Io) -> Eval {
    if args.is_empty() {
        return misused("source", "which file?", io).await;
    }
    let name = args.remove(0);
    let path = match shell.state.cwd.resolve(&name) {
        Ok(path) => path,
        Err(error) => return misused("source", &error.to_string(), io).await,
    };
    let text = match shell.script_text(&path).await {
        Ok(text) => text,
        Err(stop) => return shell.refused(stop, io).await,
    };
    let outer = (!args.is_empty()).then(|| std::mem::replace(&mut shell.state.positional, args));
    let result = shell.attempt(&text, io).await;
    if let Some(outer) = outer {
        shell.state.positional = outer;
    }
    match result {
        Err(Stop::Return(status)) => Ok(status),
        result => result,
    }
}

pub(super) async fn command(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    match args.first().map(String::as_str) {
        Some("-v" | "-V") => super::about::find_all(shell, &args[1..], io).await,
        _ => Box::pin(shell.dispatch_command(args, io)).await,
    }
}

pub(super) async fn bracket(shell: &mut Interpreter, mut args: Vec<String>, io: &Io) -> Eval {
    if args.pop().as_deref() != Some("]") {
        return misused("[", "the last argument must be ]", io).await;
    }
    test(shell, args, io).await
}

pub(super) async fn test(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    let Ok(expression) = brush_parser::test_command::parse(&args) else {
        return misused("test", &format!("{:?} is no condition", args.join(" ")), io).await;
    };
    match shell.test(&expression).await {
        Ok(holds) => Ok(if holds { status::OK } else { status::FAILED }),
        Err(Stop::Error(error @ EvalError::Condition(_))) => misused("test", &error.to_string(), io).await,
        Err(stop) => Err(stop),
    }
}

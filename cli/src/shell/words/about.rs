//! What there is: `help`, `type`, `command -v`.

use tokio::io::AsyncWriteExt;

use crate::output::table::Table;
use crate::shell::builtins;
use crate::shell::eval::Interpreter;
use crate::shell::io::Io;
use crate::shell::status;
use crate::shell::stop::Eval;

use super::{ALL, find, print};

pub(super) async fn help(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    let mut text = String::new();
    if args.is_empty() {
        text = overview(shell);
    }
    let mut status = status::OK;
    for name in &args {
        match explain(shell, name) {
            Some(help) => text.push_str(&help),
            None => {
                let _ = io.stderr.clone().line(format!("help: {name}: no such command")).await;
                status = status::MISSING;
            }
        }
    }
    let _ = io.stdout.clone().write_all(text.as_bytes()).await;
    Ok(status)
}

fn overview(shell: &Interpreter) -> String {
    let mut table = Table::default();
    let mut section = |title: &str, rows: Vec<(&str, &str)>| {
        if !rows.is_empty() {
            table.row([title]);
            for (name, about) in rows {
                table.row([format!("  {name}"), about.to_owned()]);
            }
            table.row([""]);
        }
    };
    section("Files of the tree", builtins::ALL.iter().map(|builtin| (builtin.name, builtin.about)).collect());
    let verbs = shell.host.verbs.list();
    section(
        "The node and its swarm",
        verbs.iter().map(|verb| (verb.name.as_str(), verb.about.as_str())).collect(),
    );
    section("The shell", ALL.iter().map(|word| (word.name, word.about)).collect());
    format!(
        "{table}Any other word is a program of the tree: a path, or a name in $PATH ({}).\n\
         `help COMMAND` and `COMMAND --help` tell more.\n",
        shell.state.get("PATH").unwrap_or_default()
    )
}

fn explain(shell: &Interpreter, name: &str) -> Option<String> {
    if let Some(word) = find(name) {
        return Some(format!("{}\n\nUsage: {}\n", word.about, word.usage));
    }
    if let Some(builtin) = builtins::find(name) {
        return Some((builtin.command)().render_help().to_string());
    }
    let verb = shell.host.verbs.list().iter().find(|verb| verb.name == name)?;
    Some(format!("{}\n\n`{} --help` tells more.\n", verb.about, verb.name))
}

pub(super) async fn kinds(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    let mut status = status::OK;
    for name in &args {
        let kind = if shell.state.functions.contains_key(name) {
            "a function".to_owned()
        } else if find(name).is_some() || builtins::find(name).is_some() {
            "built in".to_owned()
        } else if shell.host.verbs.list().iter().any(|verb| verb.name == *name) {
            "a verb of the node".to_owned()
        } else if let Some(path) = shell.find_program(name).await {
            path.to_string()
        } else {
            let _ = io.stderr.clone().line(format!("type: {name}: not found")).await;
            status = status::FAILED;
            continue;
        };
        print(io, format!("{name} is {kind}")).await?;
    }
    Ok(status)
}

/// `command -v`: prints what is found, and fails silently for what is not.
pub(super) async fn find_all(shell: &mut Interpreter, names: &[String], io: &Io) -> Eval {
    let mut status = status::OK;
    for name in names {
        let known = shell.state.functions.contains_key(name)
            || find(name).is_some()
            || builtins::find(name).is_some()
            || shell.host.verbs.list().iter().any(|verb| verb.name == *name);
        let found = if known { Some(name.clone()) } else { shell.find_program(name).await.map(String::from) };
        match found {
            Some(found) => {
                print(io, found).await?;
            }
            None => status = status::FAILED,
        }
    }
    Ok(status)
}

//! Where the shell stands: `cd`, `pwd`.

use crate::shell::content;
use crate::shell::eval::Interpreter;
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::{Kind, VfsError};
use crate::shell::io::Io;
use crate::shell::status;
use crate::shell::stop::Eval;

use super::{misused, print};

pub(super) async fn cd(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    let target = match args.as_slice() {
        [] => shell.state.get("HOME").unwrap_or("/").to_owned(),
        [dash] if dash == "-" => match shell.state.get("OLDPWD") {
            Some(old) => old.to_owned(),
            None => return misused("cd", "there is no directory to go back to", io).await,
        },
        [target] => target.clone(),
        _ => return misused("cd", "too many arguments", io).await,
    };
    match enter(shell, &target).await {
        Ok(cwd) => {
            if args.first().is_some_and(|arg| arg == "-") {
                print(io, &cwd).await?;
            }
            shell.state.enter(cwd);
            Ok(status::OK)
        }
        Err(error) => {
            let _ = io.stderr.clone().line(format!("cd: {error}")).await;
            Ok(status::of(&error))
        }
    }
}

/// The directory that `target` names. Links are followed to see that there is one, but the path stays as it
/// was given, so that `cd ..` leads back.
async fn enter(shell: &Interpreter, target: &str) -> Result<VfsPath, VfsError> {
    let path = shell.state.cwd.resolve(target)?;
    let (_, entry) = content::follow(&*shell.host.vfs, &path).await?;
    if entry.kind == Kind::Dir { Ok(path) } else { Err(VfsError::NotADirectory { path }) }
}

pub(super) async fn pwd(shell: &mut Interpreter, _args: Vec<String>, io: &Io) -> Eval {
    print(io, &shell.state.cwd).await?;
    Ok(status::OK)
}

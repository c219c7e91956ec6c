//! Variables and arguments: `export`, `unset`, `local`, `set`, `shift`, `read`.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::shell::eval::Interpreter;
use crate::shell::io::{Input, Io};
use crate::shell::state::is_name;
use crate::shell::status;
use crate::shell::stop::Eval;

use super::{misused, print};

/// The longest line that `read` takes.
const MAX_LINE_BYTES: usize = 1024 * 1024;

pub(super) async fn export(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    if args.is_empty() {
        for (name, value) in shell.state.exported() {
            print(io, format!("export {name}={}", quote(&value))).await?;
        }
    }
    for arg in args {
        let (name, value) = split(&arg);
        if !is_name(name) {
            return misused("export", &format!("{name:?} is not a name"), io).await;
        }
        if let Some(value) = value {
            shell.state.set(name, value);
        }
        shell.state.export(name);
    }
    Ok(status::OK)
}

pub(super) async fn local(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    for arg in args {
        let (name, value) = split(&arg);
        if !is_name(name) {
            return misused("local", &format!("{name:?} is not a name"), io).await;
        }
        if !shell.state.make_local(name) {
            return misused("local", "only in a function", io).await;
        }
        shell.state.set(name, value.unwrap_or_default());
    }
    Ok(status::OK)
}

pub(super) async fn unset(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    let functions_only = args.first().is_some_and(|arg| arg == "-f");
    for name in args.iter().filter(|arg| !matches!(arg.as_str(), "-v" | "-f")) {
        if name.starts_with('-') {
            return misused("unset", &format!("{name}: no such option"), io).await;
        }
        if functions_only || shell.state.get(name).is_none() {
            shell.state.functions.remove(name);
        } else {
            shell.state.unset(name);
        }
    }
    Ok(status::OK)
}

pub(super) async fn shift(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    let count = args.first().map_or(Some(1), |count| count.parse::<usize>().ok());
    match count.filter(|count| *count <= shell.state.positional.len()) {
        Some(count) => {
            shell.state.positional.drain(..count);
            Ok(status::OK)
        }
        None => {
            misused("shift", "there are not so many arguments", io).await?;
            Ok(status::FAILED)
        }
    }
}

pub(super) async fn set(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    if args.is_empty() {
        for (name, value) in shell.state.variables() {
            print(io, format!("{name}={}", quote(value))).await?;
        }
        return Ok(status::OK);
    }
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let on = arg.starts_with('-');
        match arg.strip_prefix(['-', '+']) {
            Some("-") => {
                shell.state.positional = args.collect();
                return Ok(status::OK);
            }
            Some(letters) if !letters.is_empty() => {
                for letter in letters.chars() {
                    let name =
                        if letter == 'o' { args.next().unwrap_or_default() } else { letter.to_string() };
                    match shell.state.options.switch(&name) {
                        Some(switch) => *switch = on,
                        None => return misused("set", &format!("{name:?}: no such option"), io).await,
                    }
                }
            }
            _ => {
                shell.state.positional = std::iter::once(arg).chain(args).collect();
                return Ok(status::OK);
            }
        }
    }
    Ok(status::OK)
}

pub(super) async fn read(shell: &mut Interpreter, args: Vec<String>, io: &Io) -> Eval {
    let mut raw = false;
    let mut names = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-r" => raw = true,
            "-p" => {
                let mut stderr = io.stderr.clone();
                let _ = stderr.write_all(args.next().unwrap_or_default().as_bytes()).await;
                let _ = stderr.flush().await;
            }
            name if is_name(name) => names.push(arg),
            other => return misused("read", &format!("{other:?} is neither -r, -p nor a name"), io).await,
        }
    }
    if names.is_empty() {
        names.push("REPLY".to_owned());
    }
    let Some((line, complete)) = read_line(io.stdin.clone(), raw).await else {
        return misused("read", "no line of text that can be taken", io).await;
    };
    let ifs = shell.state.get("IFS").unwrap_or(" \t\n").to_owned();
    for (name, value) in names.iter().zip(distribute(&line, names.len(), &ifs)) {
        shell.state.set(name, value);
    }
    Ok(if complete { status::OK } else { status::FAILED })
}

/// One line without its newline, and whether it had one. Byte by byte: what follows belongs to the next reader.
async fn read_line(mut input: Input, raw: bool) -> Option<(String, bool)> {
    let mut bytes = Vec::new();
    loop {
        match input.read_u8().await {
            Ok(b'\n') if !raw && bytes.last() == Some(&b'\\') => {
                bytes.pop();
            }
            Ok(b'\n') => return Some((text(bytes, raw)?, true)),
            Ok(byte) if bytes.len() < MAX_LINE_BYTES => bytes.push(byte),
            Ok(_) => return None,
            Err(_) => return Some((text(bytes, raw)?, false)),
        }
    }
}

fn text(bytes: Vec<u8>, raw: bool) -> Option<String> {
    let line = String::from_utf8(bytes).ok()?;
    if raw {
        return Some(line);
    }
    Some(crate::shell::expand::pattern::unescape(&line))
}

/// Splits a line into `count` values; the last takes what is left.
fn distribute(line: &str, count: usize, ifs: &str) -> Vec<String> {
    let is_blank = |c: char| c.is_whitespace() && ifs.contains(c);
    let mut rest = line.trim_matches(is_blank);
    let mut values = Vec::with_capacity(count);
    for left in (1..=count).rev() {
        let end = if left == 1 { None } else { rest.find(|c| ifs.contains(c)) };
        let Some(end) = end else {
            values.push(std::mem::take(&mut rest).to_owned());
            continue;
        };
        values.push(rest[..end].to_owned());
        // One separator, with the blanks around it.
        rest = rest[end..].trim_start_matches(is_blank);
        if let Some(separator) = rest.chars().next().filter(|c| ifs.contains(*c)) {
            rest = rest[separator.len_utf8()..].trim_start_matches(is_blank);
        }
    }
    values
}

fn split(arg: &str) -> (&str, Option<&str>) {
    match arg.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (arg, None),
    }
}

fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_distributed_over_names() {
        for (line, count, ifs, values) in [
            ("a b c", 2, " \t\n", vec!["a", "b c"]),
            ("  a  ", 1, " \t\n", vec!["a"]),
            ("a", 3, " \t\n", vec!["a", "", ""]),
            ("a:b::c", 4, ":", vec!["a", "b", "", "c"]),
            ("a : b", 2, ": ", vec!["a", "b"]),
        ] {
            assert_eq!(distribute(line, count, ifs), values, "{line:?}");
        }
    }
}

//! `chmod`

use super::{Builtin, Context, Failure, Outcome};
use crate::shell::fs::vfs::{Attributes, Kind};

/// Arguments of `chmod`.
#[derive(Debug, clap::Args)]
pub(super) struct Chmod {
    /// Everything below directories, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Octal (644), or changes such as u+x or go-w
    #[arg(allow_hyphen_values = true)]
    mode: String,
    /// What to change
    #[arg(required = true)]
    paths: Vec<String>,
}

impl Builtin for Chmod {
    const NAME: &'static str = "chmod";
    const ABOUT: &'static str = "Change permission bits";
    const EXAMPLES: &'static str = "  chmod 644 /notes.txt\n  chmod +x /bin/tool.wasm";

    async fn run(self, mut context: Context) -> Outcome {
        for path in &self.paths {
            let changed = match self.recursive {
                true => change_all(&mut context, &self.mode, path).await,
                false => change(&context, &self.mode, path).await,
            };
            if let Err(failure) = changed {
                context.complain(Self::NAME, failure).await?;
            }
        }
        context.done()
    }
}

async fn change(context: &Context, mode: &str, path: &str) -> Result<(), Failure> {
    let (path, entry) = context.follow(&context.path(path)?).await?;
    let mode = apply(mode, entry.mode).ok_or_else(|| Failure::Usage(format!("{mode:?} is not a mode")))?;
    context.vfs.set_attributes(&path, Attributes { mode: Some(mode), mtime_ms: None }).await?;
    Ok(())
}

/// Changes a directory after what is in it: it may not be readable any more. Links below it are left alone.
async fn change_all(context: &mut Context, mode: &str, path: &str) -> Result<(), Failure> {
    let (path, entry) = context.follow(&context.path(path)?).await?;
    let (mut all, mut next) = (vec![(path, entry)], 0);
    while let Some((path, entry)) = all.get(next) {
        if entry.kind == Kind::Dir {
            let entries =
                context.vfs.list(path).await?.into_iter().filter(|entry| entry.kind != Kind::Symlink);
            let below = entries.map(|entry| Ok((path.join(&entry.name)?, entry)));
            let below = below.collect::<Result<Vec<_>, Failure>>()?;
            all.extend(below);
        }
        next += 1;
    }
    for (path, _) in all.into_iter().rev() {
        if let Err(failure) = change(context, mode, path.as_str()).await {
            context.complain(Chmod::NAME, failure).await?;
        }
    }
    Ok(())
}

/// The bits that `mode` makes of `old`; `None` if it is not a mode.
fn apply(mode: &str, old: u32) -> Option<u32> {
    if mode.starts_with(|first: char| first.is_ascii_digit()) {
        return u32::from_str_radix(mode, 8).ok().filter(|bits| *bits <= 0o7777);
    }
    mode.split(',').try_fold(old, apply_clause)
}

fn apply_clause(old: u32, clause: &str) -> Option<u32> {
    let at = clause.find(['+', '-', '='])?;
    let (who, change) = clause.split_at(at);
    let mask = who.chars().try_fold(0, |mask, letter| Some(mask | who_mask(letter)?))?;
    let mask = if who.is_empty() { 0o777 } else { mask };
    let bits = change[1..].chars().try_fold(0, |bits, letter| Some(bits | permission(letter)?))? & mask;
    match &change[..1] {
        "+" => Some(old | bits),
        "-" => Some(old & !bits),
        _ => Some(old & !mask | bits),
    }
}

fn who_mask(letter: char) -> Option<u32> {
    match letter {
        'u' => Some(0o700),
        'g' => Some(0o070),
        'o' => Some(0o007),
        'a' => Some(0o777),
        _ => None,
    }
}

fn permission(letter: char) -> Option<u32> {
    match letter {
        'r' => Some(0o444),
        'w' => Some(0o222),
        'x' => Some(0o111),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_or_changes() {
        for (mode, old, new) in [
            ("644", 0o777, Some(0o644)),
            ("+x", 0o644, Some(0o755)),
            ("u+x,go-r", 0o644, Some(0o700)),
            ("a=r", 0o755, Some(0o444)),
            ("u=", 0o755, Some(0o055)),
            ("999", 0, None),
            ("z+x", 0, None),
            ("u+q", 0, None),
        ] {
            assert_eq!(apply(mode, old), new, "{mode}");
        }
    }
}

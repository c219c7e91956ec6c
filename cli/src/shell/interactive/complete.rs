//! Completion: commands at the start of a command, paths of the tree everywhere else.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reedline::{Completer, CompletionResult, Span, Suggestion};
use tokio::runtime::Handle;

use crate::shell::eval::{Host, Interpreter};
use crate::shell::expand::pattern;
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::Kind;
use crate::shell::state::State;
use crate::shell::{builtins, words};

/// How long Tab may take: a tree that does not answer must not hold the keyboard.
const BUDGET: Duration = Duration::from_millis(100);
/// How many suggestions are shown.
const MAX_SUGGESTIONS: usize = 200;

/// What completion knows of the shell, renewed before every prompt.
#[derive(Clone, Debug)]
pub(super) struct Place(Arc<Mutex<Known>>);

#[derive(Clone, Debug)]
struct Known {
    cwd: VfsPath,
    path: Vec<String>,
    functions: Vec<String>,
}

impl Place {
    fn new(state: &State) -> Self {
        Self(Arc::new(Mutex::new(Known::of(state))))
    }

    /// Takes over what the last line changed.
    pub(super) fn update(&self, state: &State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Known::of(state);
    }

    fn get(&self) -> Known {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Known {
    fn of(state: &State) -> Self {
        Self {
            cwd: state.cwd.clone(),
            path: state.get("PATH").unwrap_or_default().split(':').map(str::to_owned).collect(),
            functions: state.functions.keys().cloned().collect(),
        }
    }
}

/// Completes over the tree.
pub(super) struct TreeCompleter {
    host: Arc<Host>,
    place: Place,
    runtime: Handle,
}

/// Something that a word may become.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    value: String,
    about: Option<String>,
    /// Whether the word is done: behind a directory one goes on.
    whole: bool,
}

impl TreeCompleter {
    pub(super) fn new(shell: &Interpreter, runtime: Handle) -> Self {
        Self { host: Arc::clone(&shell.host), place: Place::new(&shell.state), runtime }
    }

    /// A handle that keeps the completer up to date.
    pub(super) fn place(&self) -> Place {
        self.place.clone()
    }

    async fn candidates(&self, word: &Word) -> Vec<Candidate> {
        let known = self.place.get();
        let mut candidates = Vec::new();
        if word.is_command && !word.text.contains('/') {
            candidates.extend(self.commands(&known));
            for directory in &known.path {
                candidates.extend(self.programs(&known, directory).await);
            }
        } else {
            candidates.extend(self.paths(&known, word).await);
        }
        candidates.retain(|candidate| candidate.value.starts_with(&word.text));
        candidates.sort_by(|a, b| a.value.cmp(&b.value));
        candidates.dedup_by(|a, b| a.value == b.value);
        candidates
    }

    fn commands(&self, known: &Known) -> Vec<Candidate> {
        let candidate = |name: &str, about: &str| Candidate {
            value: name.to_owned(),
            about: Some(about.to_owned()),
            whole: true,
        };
        let builtins = builtins::ALL.iter().map(|builtin| candidate(builtin.name, builtin.about));
        let words = words::ALL.iter().map(|word| candidate(word.name, word.about));
        let verbs = self.host.verbs.list().iter().map(|verb| candidate(&verb.name, &verb.about));
        let functions = known.functions.iter().map(|name| candidate(name, "a function"));
        builtins.chain(words).chain(verbs).chain(functions).collect()
    }

    async fn programs(&self, known: &Known, directory: &str) -> Vec<Candidate> {
        let Ok(path) = known.cwd.resolve(directory) else { return Vec::new() };
        let entries = self.host.vfs.list(&path).await.unwrap_or_default();
        let programs = entries.into_iter().filter(|entry| entry.kind != Kind::Dir);
        programs
            .map(|entry| Candidate {
                value: entry.name.strip_suffix(".wasm").unwrap_or(&entry.name).to_owned(),
                about: Some(format!("{directory}/{}", entry.name)),
                whole: true,
            })
            .collect()
    }

    async fn paths(&self, known: &Known, word: &Word) -> Vec<Candidate> {
        let (directory, start) = word
            .text
            .rsplit_once('/')
            .map_or(("", word.text.as_str()), |(directory, start)| (&word.text[..=directory.len()], start));
        let Ok(path) = known.cwd.resolve(if directory.is_empty() { "." } else { directory }) else {
            return Vec::new();
        };
        let entries = self.host.vfs.list(&path).await.unwrap_or_default();
        entries
            .into_iter()
            .filter(|entry| start.starts_with('.') || !entry.name.starts_with('.'))
            .map(|entry| {
                let is_directory = entry.kind == Kind::Dir;
                let ending = if is_directory { "/" } else { "" };
                Candidate {
                    value: format!("{directory}{}{ending}", entry.name),
                    about: None,
                    whole: !is_directory,
                }
            })
            .collect()
    }
}

impl Completer for TreeCompleter {
    fn complete(&mut self, line: &str, pos: usize) -> CompletionResult {
        let word = Word::before(line, pos);
        let search = async { tokio::time::timeout(BUDGET, self.candidates(&word)).await };
        let candidates = self.runtime.block_on(search).unwrap_or_default();
        let suggestions: Vec<Suggestion> = candidates
            .into_iter()
            .take(MAX_SUGGESTIONS)
            .map(|candidate| Suggestion {
                value: quoted(&candidate.value),
                display_override: Some(candidate.value),
                description: candidate.about,
                span: Span::new(word.start, pos),
                append_whitespace: candidate.whole,
                ..Suggestion::default()
            })
            .collect();
        CompletionResult::fresh(suggestions)
    }
}

/// The word that the cursor stands behind.
#[derive(Debug, PartialEq, Eq)]
struct Word {
    /// Where it starts in the line.
    start: usize,
    /// What it says, without quotes and backslashes.
    text: String,
    /// Whether it calls something, as the first of a command does.
    is_command: bool,
}

impl Word {
    fn before(line: &str, pos: usize) -> Self {
        let line = &line[..pos];
        let (mut start, mut quote, mut escaped) = (0, None, false);
        let mut is_command = true;
        let mut after_redirect = false;
        for (at, character) in line.char_indices() {
            match (quote, character) {
                _ if escaped => escaped = false,
                (None | Some('"'), '\\') => escaped = true,
                (Some(open), close) if open == close => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(character),
                (None, ' ' | '\t') => {
                    let is_word = start < at;
                    is_command &= !is_word || after_redirect || is_keyword(&line[start..at]);
                    after_redirect &= !is_word;
                    start = at + 1;
                }
                (None, '|' | ';' | '&' | '(' | '\n' | '`') => {
                    (start, is_command, after_redirect) = (at + 1, true, false);
                }
                (None, '<' | '>') => (start, after_redirect) = (at + 1, true),
                (None, _) => {}
            }
        }
        let raw = &line[start..];
        let text = pattern::unescape(raw).replace(['\'', '"'], "");
        Self { start, text, is_command: is_command && !after_redirect }
    }
}

/// Words that a command follows.
fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "if" | "then" | "else" | "elif" | "while" | "until" | "do" | "!" | "{" | "time" | "command"
    )
}

/// The text so that the shell reads it as one word.
fn quoted(text: &str) -> String {
    let special = |c: char| !(c.is_alphanumeric() || "/._-+=:,@%[".contains(c));
    let mut quoted = String::with_capacity(text.len());
    for character in text.chars() {
        if special(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_before_the_cursor_is_found() {
        for (line, start, text, is_command) in [
            ("", 0, "", true),
            ("l", 0, "l", true),
            ("ls /a", 3, "/a", false),
            ("cat /a | gr", 9, "gr", true),
            ("cat /a>/o", 7, "/o", false),
            ("> /o ca", 5, "ca", true),
            ("if tr", 3, "tr", true),
            ("cat 'a b", 4, "a b", false),
            (r"cat a\ b", 4, "a b", false),
            ("echo $(l", 7, "l", true),
        ] {
            let word = Word::before(line, line.len());
            assert_eq!(
                (word.start, word.text.as_str(), word.is_command),
                (start, text, is_command),
                "{line:?}"
            );
        }
    }

    #[test]
    fn names_with_blanks_stay_one_word() {
        assert_eq!(quoted("/a b/ä$c"), r"/a\ b/ä\$c");
    }
}

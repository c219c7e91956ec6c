//! What a shell remembers: variables, functions, options, where it stands. No I/O happens here.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use brush_parser::ast::FunctionBody;

use super::fs::path::VfsPath;

/// A variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Variable {
    value: String,
    exported: bool,
}

/// The switches of `set`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `-e`: end at the first command that fails.
    pub(super) errexit: bool,
    /// `-u`: an unset variable is an error.
    pub(super) nounset: bool,
    /// `-x`: show every command before it runs.
    pub(super) xtrace: bool,
    /// `-f`: no globs.
    pub(super) noglob: bool,
    /// `-o pipefail`: a pipe fails if any stage does.
    pub(super) pipefail: bool,
}

impl Options {
    /// The switch that `set` knows by a letter or by a name.
    pub(super) fn switch(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "e" | "errexit" => Some(&mut self.errexit),
            "u" | "nounset" => Some(&mut self.nounset),
            "x" | "xtrace" => Some(&mut self.xtrace),
            "f" | "noglob" => Some(&mut self.noglob),
            "pipefail" => Some(&mut self.pipefail),
            _ => None,
        }
    }

    /// `$-`
    pub(super) fn letters(self) -> String {
        let switches = [(self.errexit, 'e'), (self.noglob, 'f'), (self.nounset, 'u'), (self.xtrace, 'x')];
        switches.into_iter().filter(|(on, _)| *on).map(|(_, letter)| letter).collect()
    }
}

/// Everything that a subshell gets a copy of.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// The working directory.
    pub(super) cwd: VfsPath,
    /// `$?`
    pub(super) status: i32,
    /// The switches.
    pub(super) options: Options,
    /// `$0`
    pub(super) name: String,
    /// `$1` and on.
    pub(super) positional: Vec<String>,
    /// Functions by name.
    pub(super) functions: HashMap<String, Arc<FunctionBody>>,
    variables: BTreeMap<String, Variable>,
    /// For each function call under way, what its `local`s hid.
    scopes: Vec<BTreeMap<String, Option<Variable>>>,
}

impl State {
    /// A fresh shell that stands at the root.
    pub(super) fn new() -> Self {
        let mut state = Self {
            cwd: VfsPath::root(),
            status: 0,
            options: Options::default(),
            name: "starfish".to_owned(),
            positional: Vec::new(),
            functions: HashMap::new(),
            variables: BTreeMap::new(),
            scopes: Vec::new(),
        };
        for (name, value) in [("HOME", "/"), ("PATH", "/bin"), ("PWD", "/")] {
            state.set(name, value);
            state.export(name);
        }
        state.set("IFS", " \t\n");
        state
    }

    /// The state of a script that this shell runs: exported variables and the place to stand are inherited.
    pub(super) fn for_script(&self, name: &str, args: Vec<String>) -> Self {
        let mut state = Self { name: name.to_owned(), positional: args, ..Self::new() };
        state.variables.extend(
            self.variables
                .iter()
                .filter(|(_, variable)| variable.exported)
                .map(|(name, variable)| (name.clone(), variable.clone())),
        );
        state.cwd = self.cwd.clone();
        state
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(|variable| variable.value.as_str())
    }

    /// Gives a variable a value; whether it is exported stays.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.entry(name.to_owned()).or_default().value = value.into();
    }

    /// Programs shall see the variable.
    pub(super) fn export(&mut self, name: &str) {
        self.variables.entry(name.to_owned()).or_default().exported = true;
    }

    /// Forgets a variable.
    pub(super) fn unset(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// What programs see, sorted by name.
    pub(super) fn exported(&self) -> Vec<(String, String)> {
        self.variables
            .iter()
            .filter(|(_, variable)| variable.exported)
            .map(|(name, variable)| (name.clone(), variable.value.clone()))
            .collect()
    }

    /// All variables, sorted by name.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, variable)| (name.as_str(), variable.value.as_str()))
    }

    /// Moves to a directory, which the caller has checked.
    pub(super) fn enter(&mut self, cwd: VfsPath) {
        self.set("OLDPWD", self.cwd.as_str().to_owned());
        self.set("PWD", cwd.as_str());
        self.cwd = cwd;
    }

    /// Begins a function call.
    pub(super) fn open_scope(&mut self) {
        self.scopes.push(BTreeMap::new());
    }

    /// Ends a function call: what its `local`s hid is there again.
    pub(super) fn close_scope(&mut self) {
        for (name, hidden) in self.scopes.pop().unwrap_or_default() {
            match hidden {
                Some(variable) => self.variables.insert(name, variable),
                None => self.variables.remove(&name),
            };
        }
    }

    /// Makes a variable the running function's own. False outside of functions.
    pub(super) fn make_local(&mut self, name: &str) -> bool {
        let Some(scope) = self.scopes.last_mut() else { return false };
        let hidden = self.variables.remove(name);
        scope.entry(name.to_owned()).or_insert(hidden);
        self.variables.insert(name.to_owned(), Variable::default());
        true
    }
}

/// Whether `text` can name a variable.
pub(super) fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locals_hide_and_give_back() {
        let mut state = State::new();
        state.set("x", "outer");
        state.open_scope();
        assert!(state.make_local("x") && state.make_local("y"));
        state.set("x", "inner");
        state.set("y", "inner");
        state.close_scope();
        assert_eq!(state.get("x"), Some("outer"));
        assert_eq!(state.get("y"), None);
        assert!(!state.make_local("x"), "there is nothing to be local to");
    }

    #[test]
    fn names_are_ascii_words() {
        assert!(is_name("_a1") && is_name("PATH"));
        assert!(!is_name("") && !is_name("1a") && !is_name("a-b") && !is_name("ä"));
    }
}

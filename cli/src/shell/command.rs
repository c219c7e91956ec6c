//! Simple commands: assignments, words, and finding what a word calls.

use brush_parser::ast;
use brush_parser::ast::CommandPrefixOrSuffixItem as Item;

use super::eval::Interpreter;
use super::io::Io;
use super::stop::{Eval, Stop, unsupported};
use super::{builtins, status, words};

/// Words whose `name=value` arguments are assignments: the values are not split.
const DECLARATIONS: [&str; 2] = ["export", "local"];

impl Interpreter {
    pub(super) async fn simple(&mut self, command: &ast::SimpleCommand, io: &Io) -> Eval {
        self.substituted = status::OK;
        let argv = self.words(command, io).await?;
        let assignments = self.assignments(command, io).await?;
        let items = command.prefix.iter().flat_map(|prefix| &prefix.0);
        let items = items.chain(command.suffix.iter().flat_map(|suffix| &suffix.0));
        let redirects = items.filter_map(|item| match item {
            Item::IoRedirect(redirect) => Some(redirect),
            _ => None,
        });
        self.trace(&assignments, &argv, io).await;
        let redirected = match self.redirect(redirects.collect::<Vec<_>>(), io).await {
            Ok(redirected) => redirected,
            Err(stop) => return self.refused(stop, io).await,
        };
        let result = self.assign_and_run(assignments, argv, &redirected.io).await;
        self.close(redirected, result, io).await
    }

    /// Assignments before a command hold while it runs; alone, they stay.
    async fn assign_and_run(
        &mut self,
        assignments: Vec<(String, String)>,
        argv: Vec<String>,
        io: &Io,
    ) -> Eval {
        if argv.is_empty() {
            for (name, value) in assignments {
                self.state.set(&name, value);
            }
            return Ok(self.substituted);
        }
        if assignments.is_empty() {
            return self.dispatch(argv, io).await;
        }
        self.state.open_scope();
        for (name, value) in assignments {
            self.state.make_local(&name);
            self.state.set(&name, value);
            self.state.export(&name);
        }
        let result = self.dispatch(argv, io).await;
        self.state.close_scope();
        result
    }

    /// The command's words after all expansions.
    async fn words(&mut self, command: &ast::SimpleCommand, io: &Io) -> Result<Vec<String>, Stop> {
        let mut argv = Vec::new();
        if let Some(word) = &command.word_or_name {
            argv.extend(self.fields(&word.value, io).await?);
        }
        for item in command.suffix.iter().flat_map(|suffix| &suffix.0) {
            match item {
                Item::IoRedirect(_) => {}
                Item::Word(word) => argv.extend(self.fields(&word.value, io).await?),
                Item::AssignmentWord(assignment, word) => {
                    if argv.first().is_some_and(|name| DECLARATIONS.contains(&name.as_str())) {
                        let (name, value) = self.assignment(assignment, io).await?;
                        argv.push(format!("{name}={value}"));
                    } else {
                        argv.extend(self.fields(&word.value, io).await?);
                    }
                }
                Item::ProcessSubstitution(..) => return Err(unsupported("process substitution")),
            }
        }
        Ok(argv)
    }

    async fn assignments(
        &mut self,
        command: &ast::SimpleCommand,
        io: &Io,
    ) -> Result<Vec<(String, String)>, Stop> {
        let mut assignments = Vec::new();
        for item in command.prefix.iter().flat_map(|prefix| &prefix.0) {
            if let Item::AssignmentWord(assignment, _) = item {
                assignments.push(self.assignment(assignment, io).await?);
            }
        }
        Ok(assignments)
    }

    async fn assignment(&mut self, assignment: &ast::Assignment, io: &Io) -> Result<(String, String), Stop> {
        let (ast::AssignmentName::VariableName(name), ast::AssignmentValue::Scalar(word)) =
            (&assignment.name, &assignment.value)
        else {
            return Err(unsupported("arrays"));
        };
        let value = self.single(&word.value, io).await?;
        let before = if assignment.append { self.state.get(name).unwrap_or_default() } else { "" };
        Ok((name.clone(), format!("{before}{value}")))
    }

    async fn trace(&self, assignments: &[(String, String)], argv: &[String], io: &Io) {
        if self.state.options.xtrace {
            let assignments = assignments.iter().map(|(name, value)| format!("{name}={value}"));
            let words: Vec<String> = assignments.chain(argv.iter().cloned()).collect();
            let _ = io.stderr.clone().line(format!("+ {}", words.join(" "))).await;
        }
    }

    /// Runs `argv`: a function, a word of the shell, a built-in, a verb of the node, or a program of the tree.
    pub(super) async fn dispatch(&mut self, mut argv: Vec<String>, io: &Io) -> Eval {
        match argv.first().and_then(|name| self.state.functions.get(name)) {
            Some(function) => {
                let function = std::sync::Arc::clone(function);
                argv.remove(0);
                Box::pin(self.call(function, argv, io)).await
            }
            None => self.dispatch_command(argv, io).await,
        }
    }

    /// As [`Self::dispatch`], without functions.
    pub(super) async fn dispatch_command(&mut self, mut argv: Vec<String>, io: &Io) -> Eval {
        let Some(name) = argv.first().cloned() else { return Ok(status::OK) };
        if let Some(word) = words::find(&name) {
            argv.remove(0);
            return (word.run)(self, argv, io).await;
        }
        if let Some(builtin) = builtins::find(&name) {
            argv.remove(0);
            let context = builtins::Context::new(
                io.clone(),
                self.state.cwd.clone(),
                std::sync::Arc::clone(&self.host.vfs),
            );
            return match builtin.run_in_script(argv, context).await {
                status::BROKEN_PIPE => Err(Stop::BrokenPipe),
                status => Ok(status),
            };
        }
        if self.host.verbs.list().iter().any(|verb| verb.name == name) {
            let verbs = std::sync::Arc::clone(&self.host.verbs);
            return Ok(verbs.run(argv, self.state.cwd.clone(), io.clone()).await);
        }
        if words::UNSUPPORTED.contains(&name.as_str()) {
            return Err(unsupported(name));
        }
        self.program_of_tree(argv, io).await
    }
}

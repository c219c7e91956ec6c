//! Compound commands: groups, conditions, loops, `case`, and calls of functions.

use std::sync::Arc;

use brush_parser::ast;

use super::eval::Interpreter;
use super::expand::pattern;
use super::io::Io;
use super::status;
use super::stop::{Eval, Stop, unsupported};

impl Interpreter {
    pub(super) async fn redirected_compound(
        &mut self,
        command: &ast::CompoundCommand,
        redirects: Option<&ast::RedirectList>,
        io: &Io,
    ) -> Eval {
        let Some(redirects) = redirects else { return self.compound(command, io).await };
        let redirected = match self.redirect(&redirects.0, io).await {
            Ok(redirected) => redirected,
            Err(stop) => return self.refused(stop, io).await,
        };
        let result = self.compound(command, &redirected.io).await;
        self.close(redirected, result, io).await
    }

    async fn compound(&mut self, command: &ast::CompoundCommand, io: &Io) -> Eval {
        match command {
            ast::CompoundCommand::BraceGroup(group) => self.list(&group.list, io).await,
            ast::CompoundCommand::Subshell(subshell) => Ok(self.subshell(&subshell.list, io).await),
            ast::CompoundCommand::IfClause(clause) => self.if_clause(clause, io).await,
            ast::CompoundCommand::WhileClause(clause) => self.while_clause(clause, true, io).await,
            ast::CompoundCommand::UntilClause(clause) => self.while_clause(clause, false, io).await,
            ast::CompoundCommand::ForClause(clause) => self.for_clause(clause, io).await,
            ast::CompoundCommand::CaseClause(clause) => self.case_clause(clause, io).await,
            ast::CompoundCommand::Arithmetic(command) => {
                Ok(i32::from(self.arithmetic(&command.expr.value, io).await? == 0))
            }
            ast::CompoundCommand::ArithmeticForClause(clause) => self.arithmetic_for(clause, io).await,
            ast::CompoundCommand::Coprocess(_) => Err(unsupported("coproc")),
        }
    }

    async fn subshell(&mut self, list: &ast::CompoundList, io: &Io) -> i32 {
        let mut shell = self.clone();
        match shell.list(list, io).await {
            Ok(status) => status,
            Err(stop) => shell.settle(stop, io).await,
        }
    }

    async fn if_clause(&mut self, clause: &ast::IfClauseCommand, io: &Io) -> Eval {
        if self.condition(&clause.condition, io).await? {
            return self.list(&clause.then, io).await;
        }
        for branch in clause.elses.iter().flatten() {
            let taken = match &branch.condition {
                Some(condition) => self.condition(condition, io).await?,
                None => true,
            };
            if taken {
                return self.list(&branch.body, io).await;
            }
        }
        Ok(status::OK)
    }

    async fn while_clause(&mut self, clause: &ast::WhileOrUntilClauseCommand, wanted: bool, io: &Io) -> Eval {
        let ast::WhileOrUntilClauseCommand(condition, body, _) = clause;
        let mut status = status::OK;
        while self.condition(condition, io).await? == wanted {
            if !self.turn(&body.list, io, &mut status).await? {
                break;
            }
        }
        Ok(status)
    }

    async fn for_clause(&mut self, clause: &ast::ForClauseCommand, io: &Io) -> Eval {
        let mut values = Vec::new();
        match &clause.values {
            None => values.clone_from(&self.state.positional),
            Some(words) => {
                for word in words {
                    values.extend(self.fields(&word.value, io).await?);
                }
            }
        }
        let mut status = status::OK;
        for value in values {
            self.state.set(&clause.variable_name, value);
            if !self.turn(&clause.body.list, io, &mut status).await? {
                break;
            }
        }
        Ok(status)
    }

    async fn arithmetic_for(&mut self, clause: &ast::ArithmeticForClauseCommand, io: &Io) -> Eval {
        if let Some(initializer) = &clause.initializer {
            self.arithmetic(&initializer.value, io).await?;
        }
        let mut status = status::OK;
        loop {
            let goes_on = match &clause.condition {
                Some(condition) => self.arithmetic(&condition.value, io).await? != 0,
                None => true,
            };
            if !goes_on || !self.turn(&clause.body.list, io, &mut status).await? {
                return Ok(status);
            }
            if let Some(updater) = &clause.updater {
                self.arithmetic(&updater.value, io).await?;
            }
        }
    }

    /// One turn of a loop; false if it was the last.
    async fn turn(&mut self, body: &ast::CompoundList, io: &Io, status: &mut i32) -> Result<bool, Stop> {
        // A loop of built-ins never waits by itself, and what never waits cannot be interrupted.
        tokio::task::yield_now().await;
        match self.list(body, io).await {
            Ok(last) => {
                *status = last;
                Ok(true)
            }
            Err(Stop::Break(levels)) if levels > 1 => Err(Stop::Break(levels - 1)),
            Err(Stop::Continue(levels)) if levels > 1 => Err(Stop::Continue(levels - 1)),
            Err(Stop::Break(_)) => {
                *status = status::OK;
                Ok(false)
            }
            Err(Stop::Continue(_)) => {
                *status = status::OK;
                Ok(true)
            }
            Err(stop) => Err(stop),
        }
    }

    async fn case_clause(&mut self, clause: &ast::CaseClauseCommand, io: &Io) -> Eval {
        let value = self.single(&clause.value.value, io).await?;
        let mut status = status::OK;
        let mut falls_through = false;
        for case in &clause.cases {
            if !falls_through && !self.matches_any(&case.patterns, &value, io).await? {
                continue;
            }
            status = match &case.cmd {
                Some(list) => self.list(list, io).await?,
                None => status::OK,
            };
            match case.post_action {
                ast::CaseItemPostAction::ExitCase => break,
                ast::CaseItemPostAction::UnconditionallyExecuteNextCaseItem => falls_through = true,
                ast::CaseItemPostAction::ContinueEvaluatingCases => falls_through = false,
            }
        }
        Ok(status)
    }

    async fn matches_any(&mut self, patterns: &[ast::Word], value: &str, io: &Io) -> Result<bool, Stop> {
        for word in patterns {
            let pattern = self.pattern(&word.value, io).await?;
            if pattern::matches(&pattern, value) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Calls a function.
    pub(super) async fn call(&mut self, body: Arc<ast::FunctionBody>, args: Vec<String>, io: &Io) -> Eval {
        let outer = std::mem::replace(&mut self.state.positional, args);
        self.state.open_scope();
        let result = Box::pin(self.redirected_compound(&body.0, body.1.as_ref(), io)).await;
        self.state.close_scope();
        self.state.positional = outer;
        match result {
            Err(Stop::Return(status)) => Ok(status),
            result => result,
        }
    }
}

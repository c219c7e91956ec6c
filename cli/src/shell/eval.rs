//! The evaluator: lists, and-or chains and pipelines.
//!
//! An [`Interpreter`] is the shell's state and the node under it; a subshell is a clone of it. The stages of
//! a pipeline are futures polled together, so dropping the evaluation (ctrl-C) ends all of them at once, and
//! nothing runs on behind the prompt.

use std::sync::Arc;
use std::time::Instant;

use brush_parser::ast;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use tokio_util::task::AbortOnDropHandle;

use super::fs::vfs::Vfs;
use super::host::{Programs, Verbs};
use super::io::{Io, pipe};
use super::state::State;
use super::stop::{Eval, EvalError, Stop, unsupported};
use super::{parse, status};

/// How deep commands may lie in commands, functions and scripts that call each other included.
const MAX_NESTING: usize = 1000;
/// How many levels one stack carries: debug builds take up to 100 KiB for each, and a thread has 2 MiB.
const LEVELS_A_STACK: usize = 8;

/// The node that a shell stands on.
pub(super) struct Host {
    /// The tree.
    pub(super) vfs: Arc<dyn Vfs>,
    /// Runs WASM programs.
    pub(super) programs: Arc<dyn Programs>,
    /// The verbs of `starfish`.
    pub(super) verbs: Arc<dyn Verbs>,
}

/// A running shell. Cloning makes a subshell.
#[derive(Clone)]
pub(super) struct Interpreter {
    pub(super) host: Arc<Host>,
    pub(super) state: State,
    /// How many conditions (`if`, `&&`, `!`) surround what runs now: in one, failing is an answer and `set -e` rests.
    pub(super) conditions: usize,
    /// How many lists are under way, one in the other.
    nesting: usize,
    /// The status of the last command substitution: that of a command that is nothing but assignments.
    pub(super) substituted: i32,
}

impl Interpreter {
    /// A fresh shell.
    pub(super) fn new(host: Host) -> Self {
        Self { host: Arc::new(host), state: State::new(), conditions: 0, nesting: 0, substituted: 0 }
    }

    /// Begins anew after an evaluation that may have been dropped in the middle.
    pub(super) fn reset(&mut self) {
        self.nesting = 0;
        self.conditions = 0;
    }

    /// Runs a text to its end and gives its status; what went wrong has been said.
    pub(super) async fn run(&mut self, text: &str, io: Io) -> i32 {
        match self.attempt(text, &io).await {
            Ok(status) => status,
            Err(stop) => self.settle(stop, &io).await,
        }
    }

    /// Runs a text in this shell; jumps and errors go to the caller.
    pub(super) async fn attempt(&mut self, text: &str, io: &Io) -> Eval {
        let program = parse::program(text)?;
        self.program(&program, io).await
    }

    pub(super) async fn program(&mut self, program: &ast::Program, io: &Io) -> Eval {
        let mut status = status::OK;
        for list in &program.complete_commands {
            status = self.list(list, io).await?;
        }
        Ok(status)
    }

    /// Where a jump or error ends: at the prompt, the end of a script, the edge of a subshell.
    pub(super) async fn settle(&mut self, stop: Stop, io: &Io) -> i32 {
        let status = match stop {
            Stop::Exit(status) | Stop::Return(status) => status,
            Stop::Break(_) | Stop::Continue(_) | Stop::BrokenPipe => status::OK,
            Stop::Error(error) => {
                self.say(&error, io).await;
                error.status()
            }
        };
        self.state.status = status;
        status
    }

    pub(super) async fn say(&self, error: &EvalError, io: &Io) {
        // Nobody may be listening; the status tells as well.
        let _ = io.stderr.clone().line(format!("{}: {error}", self.state.name)).await;
    }

    /// Runs a list. Boxed, since lists hold commands that hold lists.
    ///
    /// Each level of that polls the next on the stack, so every so often one goes on as a task of its own,
    /// on a fresh stack: recursion in a script is bounded by [`MAX_NESTING`], not by where the shell runs.
    pub(super) fn list<'a>(&'a mut self, list: &'a ast::CompoundList, io: &'a Io) -> BoxFuture<'a, Eval> {
        async move {
            if self.nesting == MAX_NESTING {
                return Err(EvalError::TooMuch {
                    what: "levels of commands in commands",
                    limit: MAX_NESTING,
                }
                .into());
            }
            self.nesting += 1;
            let result = if self.nesting.is_multiple_of(LEVELS_A_STACK) {
                self.on_fresh_stack(list, io).await
            } else {
                self.items(list, io).await
            };
            self.nesting -= 1;
            result
        }
        .boxed()
    }

    async fn on_fresh_stack(&mut self, list: &ast::CompoundList, io: &Io) -> Eval {
        let (mut shell, list, io) = (self.clone(), list.clone(), io.clone());
        let task = tokio::spawn(async move {
            let result = shell.items(&list, &io).await;
            (shell, result)
        });
        let (shell, result) = AbortOnDropHandle::new(task).await.map_err(EvalError::Lost)?;
        *self = shell;
        result
    }

    async fn items(&mut self, list: &ast::CompoundList, io: &Io) -> Eval {
        let mut status = status::OK;
        for ast::CompoundListItem(and_or, separator) in &list.0 {
            if matches!(separator, ast::SeparatorOperator::Async) {
                return Err(unsupported("background jobs (&)"));
            }
            status = self.and_or(and_or, io).await?;
        }
        Ok(status)
    }

    /// Runs a list whose failing is an answer.
    pub(super) async fn condition(&mut self, list: &ast::CompoundList, io: &Io) -> Result<bool, Stop> {
        self.conditions += 1;
        let status = self.list(list, io).await;
        self.conditions -= 1;
        Ok(status? == status::OK)
    }

    async fn and_or(&mut self, list: &ast::AndOrList, io: &Io) -> Eval {
        let mut left = list.additional.len();
        let mut status = self.pipeline(&list.first, io, left > 0).await?;
        for next in &list.additional {
            left -= 1;
            let (wanted, pipeline) = match next {
                ast::AndOr::And(pipeline) => (status == status::OK, pipeline),
                ast::AndOr::Or(pipeline) => (status != status::OK, pipeline),
            };
            if wanted {
                status = self.pipeline(pipeline, io, left > 0).await?;
            }
        }
        Ok(status)
    }

    async fn pipeline(&mut self, pipeline: &ast::Pipeline, io: &Io, is_condition: bool) -> Eval {
        let start = Instant::now();
        let guarded = is_condition || pipeline.bang;
        self.conditions += usize::from(guarded);
        let result = match pipeline.seq.as_slice() {
            [only] => self.command(only, io).await,
            stages => self.stages(stages, io).await,
        };
        self.conditions -= usize::from(guarded);
        if pipeline.timed.is_some() {
            let _ = io.stderr.clone().line(format!("real {:.3}s", start.elapsed().as_secs_f64())).await;
        }
        let mut status = result?;
        if pipeline.bang {
            status = i32::from(status == status::OK);
        }
        self.state.status = status;
        if status != status::OK && self.state.options.errexit && self.conditions == 0 && !guarded {
            return Err(Stop::Exit(status));
        }
        Ok(status)
    }

    async fn stages(&mut self, stages: &[ast::Command], io: &Io) -> Eval {
        let mut running = Vec::with_capacity(stages.len());
        let mut stdin = io.stdin.clone();
        for (index, command) in stages.iter().enumerate() {
            let mut stage = Io { stdin, stdout: io.stdout.clone(), stderr: io.stderr.clone() };
            stdin = super::io::Input::empty();
            if index + 1 < stages.len() {
                (stage.stdout, stdin) = pipe();
            }
            let mut shell = self.clone();
            // Boxed and moved: a stage's streams end when it does, not when the pipeline does.
            running.push(async move { shell.stage(command, stage).await }.boxed());
        }
        let statuses = join_all(running).await;
        let last = statuses.last().copied().unwrap_or(status::OK);
        if self.state.options.pipefail {
            return Ok(statuses.into_iter().rfind(|status| *status != status::OK).unwrap_or(last));
        }
        Ok(last)
    }

    async fn stage(&mut self, command: &ast::Command, io: Io) -> i32 {
        match self.command(command, &io).await {
            Ok(status) => status,
            Err(stop) => self.settle(stop, &io).await,
        }
    }

    async fn command(&mut self, command: &ast::Command, io: &Io) -> Eval {
        match command {
            ast::Command::Simple(command) => Box::pin(self.simple(command, io)).await,
            ast::Command::Compound(command, redirects) => {
                Box::pin(self.redirected_compound(command, redirects.as_ref(), io)).await
            }
            ast::Command::Function(definition) => {
                self.state
                    .functions
                    .insert(definition.fname.value.clone(), Arc::new(definition.body.clone()));
                Ok(status::OK)
            }
            ast::Command::ExtendedTest(test, redirects) => {
                let redirected = match self.redirect(redirects.iter().flat_map(|list| &list.0), io).await {
                    Ok(redirected) => redirected,
                    Err(stop) => return self.refused(stop, io).await,
                };
                let result = self.extended_test(&test.expr, &redirected.io).await;
                self.close(redirected, result.map(|holds| i32::from(!holds)), io).await
            }
        }
    }
}

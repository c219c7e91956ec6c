//! Why evaluation leaves the ordinary course: a jump, or an error.

use super::fs::vfs::VfsError;
use super::status;

/// What evaluating something comes to: an exit status, or a reason to leave.
pub(super) type Eval = Result<i32, Stop>;

/// Why evaluation leaves the ordinary course.
#[derive(Debug)]
pub(super) enum Stop {
    /// `exit`
    Exit(i32),
    /// `return`
    Return(i32),
    /// `break`, out of so many loops.
    Break(usize),
    /// `continue`, of the loop so many levels out.
    Continue(usize),
    /// Nobody reads the output any more, so nothing more is to be done.
    BrokenPipe,
    /// Something that ends a script.
    Error(EvalError),
}

impl<E: Into<EvalError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// What a script can do wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum EvalError {
    /// It is no shell language.
    #[error(transparent)]
    Syntax(#[from] brush_parser::ParseError),
    /// A word in it is not.
    #[error(transparent)]
    Word(#[from] brush_parser::WordParseError),
    /// It is, but this shell cannot do it yet.
    #[error("{0}: not supported by this shell yet")]
    Unsupported(String),
    /// `set -u` and no such variable.
    #[error("{0}: unbound variable")]
    Unset(String),
    /// `${name:?message}`
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What the script says about it.
        message: String,
    },
    /// An arithmetic expression has no value.
    #[error("arithmetic: {0}")]
    Arithmetic(&'static str),
    /// A condition compares what cannot be compared.
    #[error("{0}")]
    Condition(String),
    /// The evaluation broke: a bug of this shell.
    #[error("the evaluation broke off")]
    Lost(#[source] tokio::task::JoinError),
    /// A bound that keeps a mistake from eating the machine.
    #[error("{what}: more than {limit}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// A redirection failed: the command does not run, the script goes on.
    #[error("{0}")]
    Redirect(#[source] VfsError),
}

impl EvalError {
    /// The status of a script that ends so.
    pub(super) fn status(&self) -> i32 {
        match self {
            Self::Syntax(_) | Self::Word(_) | Self::Unsupported(_) | Self::Condition(_) => status::USAGE,
            Self::Redirect(error) => status::of(error),
            _ => status::FAILED,
        }
    }
}

/// The error for what the language has and this shell has not.
pub(super) fn unsupported(what: impl Into<String>) -> Stop {
    Stop::Error(EvalError::Unsupported(what.into()))
}

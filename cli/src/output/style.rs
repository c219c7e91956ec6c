//! Colour: a help for eyes, never the only carrier of a meaning.

use std::env;

/// What `--color` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    /// At a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also into files and pipes.
    Always,
    /// Nowhere.
    Never,
}

impl ColorChoice {
    /// Whether to colour a stream.
    pub fn applies(self, is_terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }
}

/// What a colour means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Green: it went well.
    Success,
    /// Red: it failed.
    Error,
    /// Yellow: look at this.
    Warning,
    /// Cyan: hints and paths.
    Hint,
    /// Bold blue: directories.
    Directory,
}

impl Style {
    /// `text` in this style if `colour` is on.
    pub fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Success => "32",
            Self::Error => "31",
            Self::Warning => "33",
            Self::Hint => "36",
            Self::Directory => "1;34",
        };
        if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

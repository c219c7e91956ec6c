//! The shell at a terminal: prompt, history, editing, completion.
//!
//! The line editor blocks, so it runs on a thread of its own while nothing else happens in the shell; the
//! evaluation of a line runs on the runtime, where ctrl-C can end it.

mod complete;
mod prompt;
mod validate;

use anyhow::Context as _;
use reedline::{
    ColumnarMenu, DefaultHinter, EditCommand, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder,
    Reedline, ReedlineEvent, ReedlineMenu, Signal, default_emacs_keybindings,
};
use tokio::runtime::Handle;

use super::io::Io;
use super::stop::Stop;
use super::{Shell, interruptible};
use complete::TreeCompleter;
use prompt::NodePrompt;
use validate::Finished;

/// How many lines the history file keeps.
const HISTORY_LINES: usize = 10_000;
const MENU: &str = "completions";

/// Reads and runs lines until `exit` or ctrl-D.
pub(super) async fn run(shell: &mut Shell) -> anyhow::Result<i32> {
    let io = Io::terminal().context("no terminal to read from")?;
    let completer = TreeCompleter::new(&shell.interpreter, Handle::current());
    let place = completer.place();
    let mut editor = editor(shell, completer)?;
    loop {
        place.update(&shell.interpreter.state);
        let prompt = NodePrompt::new(&shell.node_name, &shell.interpreter.state);
        let (back, signal) = tokio::task::spawn_blocking(move || {
            let signal = editor.read_line(&prompt);
            (editor, signal)
        })
        .await
        .context("the line editor stopped")?;
        editor = back;
        match signal.context("reading from the terminal")? {
            Signal::Success(line) => {
                let leave = run_line(shell, &line, &io).await;
                // A line is remembered when it ends, not when the shell does: terminals get closed.
                if let Err(error) = editor.sync_history() {
                    tracing::warn!(%error, "the history could not be written");
                }
                if let Some(status) = leave {
                    return Ok(status);
                }
            }
            Signal::CtrlD => return Ok(shell.interpreter.state.status),
            // Ctrl-C at the prompt drops the line.
            _ => {}
        }
    }
}

/// Runs a line; gives a status if the shell is to end with it.
async fn run_line(shell: &mut Shell, line: &str, io: &Io) -> Option<i32> {
    // Run on a copy: an interrupted line, stopped in the middle of anything, leaves the shell as it was.
    let mut attempt = shell.interpreter.clone();
    let mut leave = None;
    let evaluation = async {
        match attempt.attempt(line, io).await {
            Err(Stop::Exit(status)) => {
                leave = Some(status);
                status
            }
            Err(stop) => attempt.settle(stop, io).await,
            Ok(status) => status,
        }
    };
    match interruptible(evaluation).await {
        Some(status) => {
            attempt.state.status = status;
            shell.interpreter = attempt;
        }
        None => {
            shell.interpreter.state.status = super::status::INTERRUPTED;
            // The terminal has echoed ^C; the prompt shall not stand behind it.
            let _ = io.stderr.clone().line("").await;
        }
    }
    io.clone().flush().await;
    leave
}

fn editor(shell: &Shell, completer: TreeCompleter) -> anyhow::Result<Reedline> {
    let mut keys = default_emacs_keybindings();
    let complete =
        ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.to_owned()), ReedlineEvent::MenuNext]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
    keys.add_binding(KeyModifiers::SHIFT, KeyCode::BackTab, ReedlineEvent::MenuPrevious);
    keys.add_binding(
        KeyModifiers::ALT,
        KeyCode::Enter,
        ReedlineEvent::Edit(vec![EditCommand::InsertNewline]),
    );
    let editor = Reedline::create()
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_completer(Box::new(completer))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(ColumnarMenu::default().with_name(MENU))))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_validator(Box::new(Finished))
        .with_hinter(Box::new(DefaultHinter::default()))
        // A line that begins with a blank is not remembered, for what is secret.
        .with_history_exclusion_prefix(Some(" ".to_owned()));
    let Some(file) = &shell.history else { return Ok(editor) };
    let history = FileBackedHistory::with_file(HISTORY_LINES, file.clone())
        .with_context(|| format!("opening the history {}", file.display()))?;
    Ok(editor.with_history(Box::new(history)))
}

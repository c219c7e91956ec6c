//! `name:/cwd$ `, red and with the status before the `$` after a failure.

use std::borrow::Cow;

use reedline::{Color, Prompt, PromptEditMode, PromptHistorySearch, PromptHistorySearchStatus};

use crate::output::printable;
use crate::shell::state::State;
use crate::shell::status;

/// What stands before the cursor.
pub(super) struct NodePrompt {
    place: String,
    status: i32,
}

impl NodePrompt {
    /// The prompt for what the shell has come to.
    pub(super) fn new(node_name: &str, state: &State) -> Self {
        Self { place: format!("{node_name}:{}", printable::name(state.cwd.as_str())), status: state.status }
    }
}

impl Prompt for NodePrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.place)
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        if self.status == status::OK {
            Cow::Borrowed("$ ")
        } else {
            Cow::Owned(format!(" [{}]$ ", self.status))
        }
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        let failing = match search.status {
            PromptHistorySearchStatus::Passing => "",
            PromptHistorySearchStatus::Failing => "nothing ",
        };
        Cow::Owned(format!("({failing}in the history for {:?}) ", search.term))
    }

    fn get_indicator_color(&self) -> Color {
        if self.status == status::OK { Color::Default } else { Color::Red }
    }
}

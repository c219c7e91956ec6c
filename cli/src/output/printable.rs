//! Text of others at a terminal: what they named may move the cursor, change colours, or worse.

use std::borrow::Cow;

/// What stands for a character that is not shown, as in GNU `ls`.
const HIDDEN: char = '?';

/// A name on one line: each control character is a question mark.
pub fn name(text: &str) -> Cow<'_, str> {
    without(text, is_control)
}

/// Text of one or more lines: newlines and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    without(text, |character| is_control(character) && !matches!(character, '\n' | '\t'))
}

/// The control characters of ASCII and Latin-1, which terminals obey, and those that turn the direction of writing,
/// which make a name look like another.
fn is_control(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn without(text: &str, is_hidden: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.contains(&is_hidden) {
        Cow::Owned(
            text.chars().map(|character| if is_hidden(character) { HIDDEN } else { character }).collect(),
        )
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(name("esc\x1b[31mred\u{9b}2J\r\n\tgpj.\u{202e}exe"), "esc?[31mred?2J???gpj.?exe");
        assert_eq!(lines("a\tb\nc\x07"), "a\tb\nc?");
        assert!(matches!(name("größe 漢字 👍"), Cow::Borrowed(_)));
    }
}

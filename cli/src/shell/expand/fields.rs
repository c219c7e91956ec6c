//! Fields under construction: what of a word was quoted, where it splits, what of it is a pattern.

use super::pattern;

/// One argument to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    /// The text itself.
    pub(super) text: String,
    /// The same as a pattern: quoted characters are escaped.
    pub(super) pattern: String,
}

impl Field {
    /// Whether the pattern can match anything but its own text.
    pub(super) fn is_glob(&self) -> bool {
        pattern::is_glob(&self.pattern)
    }
}

/// The fields that one word becomes.
#[derive(Debug)]
pub(super) struct Fields {
    done: Vec<Field>,
    open: Option<Field>,
    /// Characters that separate fields; `None` if nothing does.
    separators: Option<String>,
}

impl Fields {
    /// Splits unquoted values at the characters of `$IFS`; unset, these are blanks.
    pub(super) fn splitting(ifs: Option<&str>) -> Self {
        Self { done: Vec::new(), open: None, separators: Some(ifs.unwrap_or(" \t\n").to_owned()) }
    }

    /// Keeps everything in one field.
    pub(super) fn whole() -> Self {
        Self { done: Vec::new(), open: None, separators: None }
    }

    /// Adds what stood in quotes. Even empty, it makes a field.
    pub(super) fn quoted(&mut self, text: &str) {
        let field = self.open.get_or_insert_default();
        field.text.push_str(text);
        pattern::escape_into(text, &mut field.pattern);
    }

    /// Adds what stood in the script without quotes: no splitting, but globs.
    pub(super) fn literal(&mut self, text: &str) {
        let field = self.open.get_or_insert_default();
        field.text.push_str(text);
        field.pattern.push_str(text);
    }

    /// Adds the value of an expansion.
    pub(super) fn value(&mut self, text: &str, quoted: bool) {
        if quoted { self.quoted(text) } else { self.split(text) }
    }

    /// Adds several values: each its own field in `"$@"` and when splitting, joined by blanks otherwise.
    pub(super) fn values(&mut self, words: &[String], quoted: bool) {
        for (index, word) in words.iter().enumerate() {
            if index > 0 && self.separators.is_none() {
                self.quoted(" ");
            } else if index > 0 {
                self.done.extend(self.open.take());
            }
            self.value(word, quoted);
        }
    }

    fn split(&mut self, text: &str) {
        let Some(separators) = self.separators.clone() else {
            if !text.is_empty() {
                self.literal(text);
            }
            return;
        };
        // Blanks end a field; any other separator also begins one, so that "a::b" has an empty field inside.
        for character in text.chars() {
            if !separators.contains(character) {
                self.literal(character.encode_utf8(&mut [0; 4]));
            } else if character.is_whitespace() {
                self.done.extend(self.open.take());
            } else {
                self.done.push(self.open.take().unwrap_or_default());
            }
        }
    }

    /// The fields.
    pub(super) fn finish(mut self) -> Vec<Field> {
        self.done.extend(self.open.take());
        self.done
    }

    /// The one field's text.
    pub(super) fn into_text(self) -> String {
        self.open.map(|field| field.text).unwrap_or_default()
    }

    /// The one field's pattern.
    pub(super) fn into_pattern(self) -> String {
        self.open.map(|field| field.pattern).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(fields: Fields) -> Vec<String> {
        fields.finish().into_iter().map(|field| field.text).collect()
    }

    #[test]
    fn unquoted_values_split_and_join_their_neighbours() {
        let mut fields = Fields::splitting(None);
        fields.literal("x");
        fields.value(" a  b c", false);
        fields.quoted(" d");
        assert_eq!(texts(fields), ["x", "a", "b", "c d"]);
    }

    #[test]
    fn other_separators_make_empty_fields() {
        let mut fields = Fields::splitting(Some(":"));
        fields.value("a::b", false);
        assert_eq!(texts(fields), ["a", "", "b"]);
    }

    #[test]
    fn empty_values_vanish_unless_quoted() {
        let mut fields = Fields::splitting(None);
        fields.value("", false);
        assert_eq!(texts(fields), [""; 0]);
        let mut fields = Fields::splitting(None);
        fields.value("", true);
        assert_eq!(texts(fields), [""]);
    }

    #[test]
    fn quoted_stars_are_no_globs() {
        let mut fields = Fields::splitting(None);
        fields.quoted("*");
        assert!(!fields.finish()[0].is_glob());
    }
}

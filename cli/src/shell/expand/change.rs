//! What the forms of `${...}` do to a text: cut ends that match, replace what matches, change case.

use brush_parser::word::SubstringMatchKind;

use super::pattern;

/// Every place between two characters, and both ends.
fn boundaries(text: &str) -> impl DoubleEndedIterator<Item = usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()])
}

/// Cuts the shortest start that matches.
pub(super) fn shortest_prefix(text: &str, pattern: &str) -> String {
    let at = boundaries(text).find(|at| pattern::matches(pattern, &text[..*at]));
    text[at.unwrap_or(0)..].to_owned()
}

/// Cuts the longest start that matches.
pub(super) fn longest_prefix(text: &str, pattern: &str) -> String {
    let at = boundaries(text).rev().find(|at| pattern::matches(pattern, &text[..*at]));
    text[at.unwrap_or(0)..].to_owned()
}

/// Cuts the shortest end that matches.
pub(super) fn shortest_suffix(text: &str, pattern: &str) -> String {
    let at = boundaries(text).rev().find(|at| pattern::matches(pattern, &text[*at..]));
    text[..at.unwrap_or(text.len())].to_owned()
}

/// Cuts the longest end that matches.
pub(super) fn longest_suffix(text: &str, pattern: &str) -> String {
    let at = boundaries(text).find(|at| pattern::matches(pattern, &text[*at..]));
    text[..at.unwrap_or(text.len())].to_owned()
}

/// Puts `replacement` where the pattern matches.
pub(super) fn replace(text: &str, pattern: &str, replacement: &str, kind: &SubstringMatchKind) -> String {
    match kind {
        SubstringMatchKind::Prefix => {
            let end = boundaries(text).rev().find(|at| pattern::matches(pattern, &text[..*at]));
            end.map_or_else(|| text.to_owned(), |end| format!("{replacement}{}", &text[end..]))
        }
        SubstringMatchKind::Suffix => {
            let start = boundaries(text).find(|at| pattern::matches(pattern, &text[*at..]));
            start.map_or_else(|| text.to_owned(), |start| format!("{}{replacement}", &text[..start]))
        }
        SubstringMatchKind::FirstOccurrence => replace_inside(text, pattern, replacement, 1),
        SubstringMatchKind::Anywhere => replace_inside(text, pattern, replacement, usize::MAX),
    }
}

/// Replaces the longest match at each place, from left to right, at most so many times.
fn replace_inside(text: &str, pattern: &str, replacement: &str, most: usize) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    let mut replaced = 0;
    while let Some(first) = rest.chars().next() {
        let found = if replaced < most {
            boundaries(rest).rev().filter(|end| *end > 0).find(|end| pattern::matches(pattern, &rest[..*end]))
        } else {
            None
        };
        match found {
            Some(end) => {
                result.push_str(replacement);
                rest = &rest[end..];
                replaced += 1;
            }
            None => {
                result.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    result
}

/// Changes the first character only.
pub(super) fn change_first(text: &str, change: fn(&str) -> String) -> String {
    let length = text.chars().next().map_or(0, char::len_utf8);
    change(&text[..length]) + &text[length..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_cut_shortest_or_longest() {
        let text = "a/b/c";
        assert_eq!(shortest_prefix(text, "*/"), "b/c");
        assert_eq!(longest_prefix(text, "*/"), "c");
        assert_eq!(shortest_suffix(text, "/*"), "a/b");
        assert_eq!(longest_suffix(text, "/*"), "a");
        assert_eq!(longest_suffix(text, "x*"), text);
    }

    #[test]
    fn matches_are_replaced_from_the_left() {
        for (kind, result) in [
            (SubstringMatchKind::FirstOccurrence, "xäabab"),
            (SubstringMatchKind::Anywhere, "xäxx"),
            (SubstringMatchKind::Prefix, "xäabab"),
            (SubstringMatchKind::Suffix, "abäabx"),
        ] {
            assert_eq!(replace("abäabab", "ab", "x", &kind), result);
        }
    }
}

//! Patterns in the way of Redis: `*`, `?`, `[a-z]`, `[^a]` and `\` before a character that is meant as it is.

/// Whether all of `text` fits `pattern`. Takes as many steps as both lengths multiplied at the most, whatever the
/// pattern.
pub(super) fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Where to go on when the rest does not fit: behind the last star, which takes one more byte.
    let mut retry: Option<(usize, usize)> = None;
    while seen < text.len() || at < pattern.len() {
        if pattern.get(at) == Some(&b'*') {
            retry = Some((at + 1, seen));
            at += 1;
        } else if let Some((length, true)) = one(&pattern[at..], text.get(seen).copied()) {
            at += length;
            seen += 1;
        } else {
            match retry {
                Some((behind_star, from)) if from < text.len() => {
                    retry = Some((behind_star, from + 1));
                    (at, seen) = (behind_star, from + 1);
                }
                _ => return false,
            }
        }
    }
    true
}

/// What every text that fits begins with.
pub(super) fn prefix(pattern: &[u8]) -> &[u8] {
    let end = pattern.iter().position(|byte| b"*?[\\".contains(byte));
    &pattern[..end.unwrap_or(pattern.len())]
}

/// How long the first element of the pattern is that stands for one byte, and whether `byte` fits it.
fn one(pattern: &[u8], byte: Option<u8>) -> Option<(usize, bool)> {
    let (first, byte) = (*pattern.first()?, byte?);
    Some(match (first, pattern.get(1)) {
        (b'?', _) => (1, true),
        (b'[', _) => set(pattern, byte),
        (b'\\', Some(literal)) => (2, *literal == byte),
        _ => (1, first == byte),
    })
}

/// The same for a set of bytes in brackets. One that is not closed ends with the pattern.
fn set(pattern: &[u8], byte: u8) -> (usize, bool) {
    let is_negated = pattern.get(1) == Some(&b'^');
    let mut at = if is_negated { 2 } else { 1 };
    let mut is_in = false;
    while let Some(&first) = pattern.get(at) {
        match (first, pattern.get(at + 1), pattern.get(at + 2)) {
            (b']', ..) => return (at + 1, is_in != is_negated),
            (b'\\', Some(&literal), _) => {
                is_in |= literal == byte;
                at += 2;
            }
            (from, Some(b'-'), Some(&to)) if to != b']' => {
                is_in |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            (literal, ..) => {
                is_in |= literal == byte;
                at += 1;
            }
        }
    }
    (at, is_in != is_negated)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn patterns_are_those_of_redis() {
        for (pattern, fitting, other) in [
            ("", vec![""], vec!["a"]),
            ("*", vec!["", "a", "abc"], vec![]),
            ("h?llo", vec!["hello", "hallo"], vec!["hllo", "heello"]),
            ("h*llo", vec!["hllo", "heeello", "hllollo"], vec!["hllos"]),
            ("h[ae]llo", vec!["hello", "hallo"], vec!["hillo", "h[llo"]),
            ("h[^e]llo", vec!["hallo"], vec!["hello", "hllo"]),
            ("h[a-c]llo", vec!["hbllo"], vec!["hdllo", "h-llo"]),
            ("h[c-a]llo", vec!["hbllo"], vec!["hdllo"]),
            ("h[-]llo", vec!["h-llo"], vec!["hallo"]),
            (r"h\*llo", vec!["h*llo"], vec!["hello"]),
            (r"[\]]", vec!["]"], vec![r"\", "a"]),
            ("a*b*c", vec!["abc", "aXbYbZc"], vec!["ab", "acb"]),
            ("user:*:name", vec!["user:1:name", "user::name"], vec!["user:1:mail"]),
            ("[a", vec!["a"], vec!["b", "[a"]),
            ("\\", vec!["\\"], vec![""]),
        ] {
            for text in fitting {
                assert!(fits(pattern.as_bytes(), text.as_bytes()), "{pattern} and {text}");
            }
            for text in other {
                assert!(!fits(pattern.as_bytes(), text.as_bytes()), "{pattern} and {text}");
            }
        }
    }

    #[test]
    fn a_spiteful_pattern_takes_no_longer_than_any() {
        let (pattern, text) = (b"a*".repeat(500), b"a".repeat(1000));
        assert!(!fits(&[&pattern[..], b"b"].concat(), &text));
    }

    /// What the pattern means, as plainly as it can be said.
    fn means(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some(b'*'), None) => means(&pattern[1..], text),
            (Some(b'*'), Some(_)) => means(&pattern[1..], text) || means(pattern, &text[1..]),
            (Some(_), Some(byte)) => one(pattern, Some(*byte))
                .is_some_and(|(len, fits)| fits && means(&pattern[len..], &text[1..])),
            _ => false,
        }
    }

    fn any_of(bytes: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
        vec(proptest::sample::select(bytes), 0..10)
    }

    proptest! {
        #[test]
        fn it_agrees_with_its_definition(pattern in any_of(b"ab*?[]^-\\"), text in any_of(b"ab-]")) {
            prop_assert_eq!(fits(&pattern, &text), means(&pattern, &text));
            if fits(&pattern, &text) {
                prop_assert!(text.starts_with(prefix(&pattern)));
            }
        }
    }
}

//! A request without lengths, as a person types it into `nc`: words, and quotes around what is one word all the same.

use bytes::Bytes;

use super::request::{ProtocolError, Request};

/// The words of a line. Within `"` the escapes are `\n`, `\r`, `\t`, `\b`, `\a` and `\xHH`, and any other character stands for
/// itself; within `'` there is `\'` alone. Behind the end of a quotation a word ends.
pub(super) fn words(line: &[u8]) -> Result<Request, ProtocolError> {
    let (mut words, mut rest) = (Request::new(), skip_space(line));
    while !rest.is_empty() {
        let (word, behind) = word(rest).ok_or(ProtocolError::Quotes)?;
        words.push(word);
        rest = skip_space(behind);
    }
    Ok(words)
}

fn skip_space(text: &[u8]) -> &[u8] {
    let n_spaces = text.iter().take_while(|byte| is_space(**byte)).count();
    &text[n_spaces..]
}

/// As C has it, and what ends a string there.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b || byte == 0
}

/// The first word, which begins at once, and what is behind it; `None` if a quotation has no end, or something right behind it.
fn word(mut rest: &[u8]) -> Option<(Bytes, &[u8])> {
    let mut word = Vec::new();
    while let [first, behind @ ..] = rest {
        rest = match first {
            b'"' => return finish(word, double_quoted, behind),
            b'\'' => return finish(word, single_quoted, behind),
            byte if is_space(*byte) => break,
            byte => {
                word.push(*byte);
                behind
            }
        };
    }
    Some((word.into(), rest))
}

type Quoted = for<'a> fn(&mut Vec<u8>, &'a [u8]) -> Option<&'a [u8]>;

/// Ends a word with a quotation.
fn finish(mut word: Vec<u8>, quoted: Quoted, rest: &[u8]) -> Option<(Bytes, &[u8])> {
    let behind = quoted(&mut word, rest)?;
    behind.first().is_none_or(|byte| is_space(*byte)).then(|| (word.into(), behind))
}

/// Takes what is up to the closing quote; gives what is behind it.
fn double_quoted<'a>(word: &mut Vec<u8>, mut rest: &'a [u8]) -> Option<&'a [u8]> {
    loop {
        let (byte, behind) = match rest {
            [b'"', behind @ ..] => return Some(behind),
            [b'\\', b'x', high, low, behind @ ..] if digit(*high).is_some() && digit(*low).is_some() => {
                ((digit(*high)? << 4) | digit(*low)?, behind)
            }
            [b'\\', escaped, behind @ ..] => (meant(*escaped), behind),
            [byte, behind @ ..] => (*byte, behind),
            [] => return None,
        };
        word.push(byte);
        rest = behind;
    }
}

fn single_quoted<'a>(word: &mut Vec<u8>, mut rest: &'a [u8]) -> Option<&'a [u8]> {
    loop {
        let (byte, behind) = match rest {
            [b'\'', behind @ ..] => return Some(behind),
            [b'\\', b'\'', behind @ ..] => (b'\'', behind),
            [byte, behind @ ..] => (*byte, behind),
            [] => return None,
        };
        word.push(byte);
        rest = behind;
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// What an escaped character stands for.
fn meant(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn words_are_split_as_redis_does() {
        for (line, expected) in [
            ("", vec![]),
            ("  get \t k\r", vec!["get", "k"]),
            (r#"SET ik "a b""#, vec!["SET", "ik", "a b"]),
            (r"SET ik 'it\'s'", vec!["SET", "ik", "it's"]),
            (r#"a"b c" '' """#, vec!["ab c", "", ""]),
            (r#""\n\r\t\b\a\x41\xzz\"\q\\""#, vec!["\n\r\t\u{8}\u{7}Axzz\"q\\"]),
            (r"'\n\x41' \n", vec![r"\n\x41", r"\n"]),
        ] {
            assert_eq!(words(line.as_bytes()).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn quotations_end_and_have_nothing_right_behind_them() {
        for line in [r#"SET k "a"#, "SET k 'a", r#""a"b"#, "'a'b", r#""a""b""#, r#""a\"#, r"'\'", r#"a b""#] {
            assert_eq!(words(line.as_bytes()), Err(ProtocolError::Quotes), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in vec(prop_oneof![
            any::<u8>(), Just(b'"'), Just(b'\''), Just(b'\\'), Just(b'x'), Just(b' '), Just(b'4'),
        ], 0..40)) {
            let _ = words(&line);
        }
    }
}

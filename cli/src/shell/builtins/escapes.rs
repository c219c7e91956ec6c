//! Backslash escapes, as `echo -e`, `printf` and `$'...'` know them.

/// How a text with escapes ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shell) enum End {
    /// With its last character.
    Whole,
    /// At a `\c`: nothing more is to be printed.
    Cut,
}

/// Replaces escapes; what is none stays as it stands.
pub(in crate::shell) fn expand(text: &str) -> (Vec<u8>, End) {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let Some(letter) = rest.chars().next() else {
            bytes.push(b'\\');
            break;
        };
        if letter == 'c' {
            return (bytes, End::Cut);
        }
        let used = escape(letter, rest, &mut bytes);
        rest = &rest[used..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    (bytes, End::Whole)
}

/// Pushes what the escape at the start of `rest` means and gives its length.
fn escape(letter: char, rest: &str, bytes: &mut Vec<u8>) -> usize {
    let simple = match letter {
        'a' => Some(7),
        'b' => Some(8),
        'e' | 'E' => Some(27),
        'f' => Some(12),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(11),
        '\\' | '\'' | '"' => u8::try_from(letter).ok(),
        _ => None,
    };
    if let Some(byte) = simple {
        bytes.push(byte);
        return 1;
    }
    numeric(letter, rest, bytes).unwrap_or_else(|| {
        bytes.push(b'\\');
        bytes.extend_from_slice(letter.to_string().as_bytes());
        letter.len_utf8()
    })
}

/// `\0nnn` and `\nnn` (octal), `\xHH`, `\uHHHH`, `\UHHHHHHHH`.
fn numeric(letter: char, rest: &str, bytes: &mut Vec<u8>) -> Option<usize> {
    let (skip, radix, most) = match letter {
        '0' => (1, 8, 3),
        '1'..='7' => (0, 8, 3),
        'x' => (1, 16, 2),
        'u' => (1, 16, 4),
        'U' => (1, 16, 8),
        _ => return None,
    };
    let digits = rest[skip..].chars().take(most).take_while(|digit| digit.is_digit(radix)).count();
    if digits == 0 && letter != '0' {
        return None;
    }
    let value = u32::from_str_radix(&rest[skip..skip + digits], radix).unwrap_or(0);
    if matches!(letter, 'u' | 'U') {
        bytes.extend_from_slice(char::from_u32(value)?.to_string().as_bytes());
    } else {
        // Octal reaches 0o777; as in C, the upper bits are cut off.
        bytes.push(u8::try_from(value & 0xff).ok()?);
    }
    Some(skip + digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_bytes() {
        for (text, bytes) in [
            (r"a\tb\n", b"a\tb\n".as_slice()),
            (r"\x41\101\0101", b"AAA"),
            (r"\u00e4", "ä".as_bytes()),
            (r"\q\", br"\q\"),
            (r"\x", br"\x"),
            (r"\0", b"\0"),
        ] {
            assert_eq!(expand(text), (bytes.to_vec(), End::Whole), "{text}");
        }
        assert_eq!(expand(r"a\cb"), (b"a".to_vec(), End::Cut));
    }
}

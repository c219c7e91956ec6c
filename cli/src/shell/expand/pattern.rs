//! Shell patterns: `*`, `?`, `[...]` and backslash.

/// Whether `text` as a whole matches. Takes time in proportion to pattern × text at worst.
pub(in crate::shell) fn matches(pattern: &str, text: &str) -> bool {
    let pattern = parse(pattern);
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0, 0);
    // Where to go back to: behind the last star, with one more character taken by it.
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at), text.get(read)) {
            (Some(Piece::Star), _) => {
                at += 1;
                star = Some((at, read));
                continue;
            }
            (Some(piece), Some(character)) if piece.takes(*character) => {
                at += 1;
                read += 1;
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        match star {
            Some((after, taken)) if taken < text.len() => {
                at = after;
                read = taken + 1;
                star = Some((after, read));
            }
            _ => return false,
        }
    }
}

/// Whether the pattern has anything special in it.
pub(in crate::shell) fn is_glob(pattern: &str) -> bool {
    parse(pattern).iter().any(|piece| !matches!(piece, Piece::Exactly(_)))
}

/// The text that a pattern without anything special stands for.
pub(in crate::shell) fn unescape(pattern: &str) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        text.push(if character == '\\' { characters.next().unwrap_or(character) } else { character });
    }
    text
}

/// Appends `text` to a pattern so that it stands for itself.
pub(in crate::shell) fn escape_into(text: &str, pattern: &mut String) {
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '-' | '!' | '^') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
}

#[derive(Debug)]
enum Piece {
    Star,
    Any,
    Exactly(char),
    Set { negated: bool, members: Vec<Member> },
}

#[derive(Debug)]
enum Member {
    Range(char, char),
    Class(Class),
}

/// `[:alpha:]` and its like.
type Class = fn(char) -> bool;

impl Piece {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Star | Self::Any => true,
            Self::Exactly(wanted) => *wanted == character,
            Self::Set { negated, members } => {
                members.iter().any(|member| match member {
                    Member::Range(from, to) => (*from..=*to).contains(&character),
                    Member::Class(class) => class(character),
                }) != *negated
            }
        }
    }
}

fn parse(pattern: &str) -> Vec<Piece> {
    let characters: Vec<char> = pattern.chars().collect();
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(character) = characters.get(at) {
        at += 1;
        pieces.push(match character {
            '*' => Piece::Star,
            '?' => Piece::Any,
            '\\' => {
                let escaped = characters.get(at).copied();
                at += usize::from(escaped.is_some());
                Piece::Exactly(escaped.unwrap_or('\\'))
            }
            '[' => match parse_set(&characters, at) {
                Some((set, end)) => {
                    at = end;
                    set
                }
                None => Piece::Exactly('['),
            },
            other => Piece::Exactly(*other),
        });
    }
    pieces
}

/// Parses what follows a `[`; gives where the pattern goes on. Without a closing bracket it is no set.
fn parse_set(characters: &[char], start: usize) -> Option<(Piece, usize)> {
    let negated = matches!(characters.get(start), Some('!' | '^'));
    let mut at = start + usize::from(negated);
    let first = at;
    let mut members = Vec::new();
    loop {
        match characters.get(at)? {
            ']' if at > first => return Some((Piece::Set { negated, members }, at + 1)),
            '[' if characters.get(at + 1) == Some(&':') => {
                let (class, end) = parse_class(characters, at + 2)?;
                members.push(Member::Class(class));
                at = end;
            }
            _ => {
                let (from, after) = set_character(characters, at)?;
                at = after;
                let is_range =
                    characters.get(at) == Some(&'-') && characters.get(at + 1).is_some_and(|c| *c != ']');
                let to = if is_range { set_character(characters, at + 1)? } else { (from, at) };
                members.push(Member::Range(from, to.0));
                at = to.1;
            }
        }
    }
}

fn set_character(characters: &[char], at: usize) -> Option<(char, usize)> {
    match characters.get(at)? {
        '\\' => Some((*characters.get(at + 1)?, at + 2)),
        character => Some((*character, at + 1)),
    }
}

fn parse_class(characters: &[char], start: usize) -> Option<(Class, usize)> {
    let length = characters[start..].iter().position(|character| *character == ':')?;
    let name: String = characters[start..start + length].iter().collect();
    if characters.get(start + length + 1) != Some(&']') {
        return None;
    }
    let class: Class = match name.as_str() {
        "alpha" => char::is_alphabetic,
        "digit" => |c| c.is_ascii_digit(),
        "alnum" => char::is_alphanumeric,
        "upper" => char::is_uppercase,
        "lower" => char::is_lowercase,
        "space" => char::is_whitespace,
        "blank" => |c| matches!(c, ' ' | '\t'),
        "punct" => |c| c.is_ascii_punctuation(),
        "cntrl" => char::is_control,
        "xdigit" => |c| c.is_ascii_hexdigit(),
        _ => return None,
    };
    Some((class, start + length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_sh() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("*.txt", "a.txt.txt", true),
            ("?", "ä", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[[:digit:]]*", "7up", true),
            ("[[:nonsense:]]", "7", false),
            ("[", "[", true),
            ("[a", "[a", true),
            (r"\*", "*", true),
            (r"\*", "x", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn hostile_patterns_end() {
        let text = "a".repeat(2000);
        assert!(!matches(&"a*".repeat(200).replace("aa", "a"), &format!("b{text}")));
        assert!(!matches(&format!("{}b", "*a".repeat(50)), &text));
    }

    #[test]
    fn escaping_makes_any_text_match_itself_only() {
        for text in ["a*b", "[x]", r"back\slash", "?!^-"] {
            let mut pattern = String::new();
            escape_into(text, &mut pattern);
            assert!(matches(&pattern, text) && !is_glob(&pattern), "{text}");
            assert_eq!(unescape(&pattern), text);
        }
    }
}

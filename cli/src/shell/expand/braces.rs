//! Braces: `a{b,c}` is `ab ac`, `{1..3}` is `1 2 3`.

use brush_parser::word::{self, BraceExpression, BraceExpressionMember, BraceExpressionOrText};

use crate::shell::parse;
use crate::shell::stop::{EvalError, Stop};

/// How many words braces may make.
const MAX_WORDS: usize = 100_000;

/// The words that a word with braces stands for; itself if it has none.
pub(super) fn expand(text: &str) -> Result<Vec<String>, Stop> {
    if !text.contains('{') {
        return Ok(vec![text.to_owned()]);
    }
    match word::parse_brace_expansions(text, &parse::options())? {
        Some(pieces) => combine(&pieces),
        None => Ok(vec![text.to_owned()]),
    }
}

fn combine(pieces: &[BraceExpressionOrText]) -> Result<Vec<String>, Stop> {
    let mut words = vec![String::new()];
    for piece in pieces {
        let endings = match piece {
            BraceExpressionOrText::Text(text) => vec![text.clone()],
            BraceExpressionOrText::Expr(expression) => alternatives(expression)?,
        };
        bound(words.len().saturating_mul(endings.len()))?;
        words = words
            .iter()
            .flat_map(|word| endings.iter().map(move |ending| format!("{word}{ending}")))
            .collect();
    }
    Ok(words)
}

fn alternatives(expression: &BraceExpression) -> Result<Vec<String>, Stop> {
    let mut all = Vec::new();
    for member in expression {
        match member {
            BraceExpressionMember::Child(pieces) => all.extend(combine(pieces)?),
            BraceExpressionMember::NumberSequence { start, end, increment } => {
                all.extend(sequence(*start, *end, *increment)?.iter().map(ToString::to_string));
            }
            BraceExpressionMember::CharSequence { start, end, increment } => {
                let codes = sequence(i64::from(u32::from(*start)), i64::from(u32::from(*end)), *increment)?;
                let letters = codes.into_iter().filter_map(|code| char::from_u32(u32::try_from(code).ok()?));
                all.extend(letters.map(String::from));
            }
        }
        bound(all.len())?;
    }
    Ok(all)
}

/// From start to end in steps of the increment, whose sign does not matter.
fn sequence(start: i64, end: i64, increment: i64) -> Result<Vec<i64>, Stop> {
    let step = increment.unsigned_abs().max(1);
    let steps = start.abs_diff(end) / step;
    bound(usize::try_from(steps).unwrap_or(usize::MAX))?;
    let at = |index: u64| {
        if start <= end {
            start.saturating_add_unsigned(index * step)
        } else {
            start.saturating_sub_unsigned(index * step)
        }
    };
    Ok((0..=steps).map(at).collect())
}

fn bound(count: usize) -> Result<(), Stop> {
    if count > MAX_WORDS {
        return Err(EvalError::TooMuch { what: "words from braces", limit: MAX_WORDS }.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_multiply() {
        for (text, words) in [
            ("a{b,c}d", vec!["abd", "acd"]),
            ("{a,b}{1,2}", vec!["a1", "a2", "b1", "b2"]),
            ("{a,{b,c}}", vec!["a", "b", "c"]),
            ("{3..1}", vec!["3", "2", "1"]),
            ("{0..10..5}", vec!["0", "5", "10"]),
            ("{a..c}", vec!["a", "b", "c"]),
            ("{a}", vec!["{a}"]),
            ("'{a,b}'", vec!["'{a,b}'"]),
            ("${x}", vec!["${x}"]),
        ] {
            assert_eq!(expand(text).unwrap(), words, "{text}");
        }
    }

    #[test]
    fn billions_are_refused() {
        assert!(matches!(expand("{1..9999999999}"), Err(Stop::Error(EvalError::TooMuch { .. }))));
        assert!(expand(&"{1..100}".repeat(5)).is_err());
    }
}

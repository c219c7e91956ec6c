//! `printf`

use tokio::io::AsyncWriteExt;

use super::escapes::{self, End};
use super::{Builtin, Context, Failure, Outcome};

/// Widths beyond this are taken for a mistake, not for a wish for gigabytes of blanks.
const MAX_WIDTH: usize = 4096;

/// Arguments of `printf`.
#[derive(Debug, clap::Args)]
pub(super) struct Printf {
    /// Text with %s %b %c %d %i %u %x %X %o %f %% and backslash escapes; used again while arguments are left
    format: String,
    /// What the directives print
    words: Vec<String>,
}

impl Builtin for Printf {
    const NAME: &'static str = "printf";
    const ABOUT: &'static str = "Print arguments in a format";
    const EXAMPLES: &'static str = "  printf '%-10s %5d\\n' apples 3 pears 12";
    const VERBATIM: bool = true;

    async fn run(self, mut context: Context) -> Outcome {
        let mut words = self.words.iter().map(String::as_str);
        let format = if self.format == "--" { words.next().unwrap_or_default() } else { &self.format };
        loop {
            let left = words.len();
            let (bytes, end) = render(format, &mut words)?;
            context.io.stdout.write_all(&bytes).await?;
            if end == End::Cut || words.len() == 0 || words.len() == left {
                return context.done();
            }
        }
    }
}

/// One pass over the format.
fn render<'a>(format: &str, words: &mut impl Iterator<Item = &'a str>) -> Result<(Vec<u8>, End), Failure> {
    let mut bytes = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        let (text, end) = escapes::expand(&rest[..at]);
        bytes.extend(text);
        if end == End::Cut {
            return Ok((bytes, end));
        }
        let (directive, after) = Directive::parse(&rest[at + 1..])?;
        rest = after;
        if directive.conversion == '%' {
            bytes.push(b'%');
        } else if directive.print(words.next(), &mut bytes)? == End::Cut {
            return Ok((bytes, End::Cut));
        }
    }
    let (text, end) = escapes::expand(rest);
    bytes.extend(text);
    Ok((bytes, end))
}

/// What stands behind a `%`.
struct Directive {
    left: bool,
    zero: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
    conversion: char,
}

impl Directive {
    fn parse(text: &str) -> Result<(Self, &str), Failure> {
        let bad = || Failure::Usage(format!("%{text}: not a directive"));
        let after_flags = text.trim_start_matches(['-', '0', '+', ' ']);
        let flags = &text[..text.len() - after_flags.len()];
        let (width, after) = number(after_flags).ok_or_else(bad)?;
        let (precision, after) = match after.strip_prefix('.') {
            Some(after) => number(after).map(|(digits, after)| (Some(digits), after)).ok_or_else(bad)?,
            None => (None, after),
        };
        let conversion = after.chars().next().filter(|c| "%sbcdiuxXof".contains(*c)).ok_or_else(bad)?;
        let directive = Self {
            left: flags.contains('-'),
            zero: flags.contains('0'),
            plus: flags.contains('+'),
            width,
            precision,
            conversion,
        };
        Ok((directive, &after[1..]))
    }

    fn print(&self, word: Option<&str>, bytes: &mut Vec<u8>) -> Result<End, Failure> {
        let word = word.unwrap_or_default();
        let mut end = End::Whole;
        let text = match self.conversion {
            's' => self.cut(word),
            'c' => word.chars().next().map(String::from).unwrap_or_default(),
            'b' => {
                let (expanded, how) = escapes::expand(word);
                end = how;
                self.cut(&String::from_utf8_lossy(&expanded))
            }
            'f' => self.signed(format!("{:.*}", self.precision.unwrap_or(6), real(word)?)),
            'x' => format!("{:x}", integer(word)?),
            'X' => format!("{:X}", integer(word)?),
            'o' => format!("{:o}", integer(word)?),
            _ => self.signed(integer(word)?.to_string()),
        };
        bytes.extend_from_slice(self.pad(text).as_bytes());
        Ok(end)
    }

    fn cut(&self, text: &str) -> String {
        text.chars().take(self.precision.unwrap_or(usize::MAX)).collect()
    }

    fn signed(&self, number: String) -> String {
        if self.plus && !number.starts_with('-') { format!("+{number}") } else { number }
    }

    fn pad(&self, text: String) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if self.left {
            return text + &" ".repeat(missing);
        }
        if self.zero && !"sbc".contains(self.conversion) {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            return format!("{sign}{}{digits}", "0".repeat(missing));
        }
        " ".repeat(missing) + &text
    }
}

/// The digits at the start (none are 0) and what follows; `None` beyond [`MAX_WIDTH`].
fn number(text: &str) -> Option<(usize, &str)> {
    let after = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = &text[..text.len() - after.len()];
    let number = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    (number <= MAX_WIDTH).then_some((number, after))
}

fn integer(word: &str) -> Result<i64, Failure> {
    let word = word.trim();
    if let Some(character) = word.strip_prefix(['\'', '"']) {
        return Ok(character.chars().next().map_or(0, |c| i64::from(u32::from(c))));
    }
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let value = match (digits.strip_prefix("0x"), digits.strip_prefix('0')) {
        _ if digits.is_empty() => Ok(0),
        (Some(hex), _) => i64::from_str_radix(hex, 16),
        (None, Some(octal)) if !octal.is_empty() => i64::from_str_radix(octal, 8),
        _ => digits.parse(),
    };
    value.map(|value| sign * value).map_err(|_| Failure::Refused(format!("{word}: not a number")))
}

fn real(word: &str) -> Result<f64, Failure> {
    let word = word.trim();
    if word.is_empty() {
        Ok(0.0)
    } else {
        word.parse().map_err(|_| Failure::Refused(format!("{word}: not a number")))
    }
}

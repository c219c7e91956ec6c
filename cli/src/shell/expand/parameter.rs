//! Parameters: `$x`, `$1`, `$?`, `"$@"` and the forms in `${...}`.

use brush_parser::ast::UnexpandedArithmeticExpr;
use brush_parser::word::{self, Parameter, ParameterExpr, ParameterTestType, SpecialParameter};

use super::change::{
    change_first, longest_prefix, longest_suffix, replace, shortest_prefix, shortest_suffix,
};
use super::fields::Fields;
use crate::shell::eval::Interpreter;
use crate::shell::io::Io;
use crate::shell::parse;
use crate::shell::stop::{EvalError, Stop, unsupported};

/// What a parameter holds.
#[derive(Clone, Debug)]
enum Value {
    One(String),
    /// `$@` and `$*`
    All {
        words: Vec<String>,
        joined: bool,
    },
}

impl Value {
    fn is_empty(&self) -> bool {
        match self {
            Self::One(text) => text.is_empty(),
            Self::All { words, .. } => words.is_empty(),
        }
    }

    fn map(self, change: impl Fn(&str) -> String) -> Self {
        match self {
            Self::One(text) => Self::One(change(&text)),
            Self::All { words, joined } => {
                Self::All { words: words.iter().map(|word| change(word)).collect(), joined }
            }
        }
    }
}

impl Interpreter {
    pub(super) async fn parameter(
        &mut self,
        expression: &ParameterExpr,
        quoted: bool,
        fields: &mut Fields,
        io: &Io,
    ) -> Result<(), Stop> {
        use ParameterExpr as E;
        match expression {
            E::UseDefaultValues { parameter, indirect: false, test_type, default_value } => {
                match self.tested(parameter, test_type)? {
                    Some(value) => self.push(&value, quoted, fields),
                    None => self.nested(default_value.as_deref(), quoted, fields, io).await?,
                }
            }
            E::AssignDefaultValues { parameter, indirect: false, test_type, default_value } => {
                let value = match (self.tested(parameter, test_type)?, parameter) {
                    (Some(value), _) => value,
                    (None, Parameter::Named(name)) => {
                        let value = self.single(default_value.as_deref().unwrap_or_default(), io).await?;
                        self.state.set(name, value.clone());
                        Value::One(value)
                    }
                    (None, parameter) => return Err(unsupported(format!("assigning to {parameter}"))),
                };
                self.push(&value, quoted, fields);
            }
            E::IndicateErrorIfNullOrUnset { parameter, indirect: false, test_type, error_message } => {
                match self.tested(parameter, test_type)? {
                    Some(value) => self.push(&value, quoted, fields),
                    None => return Err(self.required(parameter, error_message.as_deref(), io).await?),
                }
            }
            E::UseAlternativeValue { parameter, indirect: false, test_type, alternative_value } => {
                if self.tested(parameter, test_type)?.is_some() {
                    self.nested(alternative_value.as_deref(), quoted, fields, io).await?;
                }
            }
            other => {
                let value = self.transformed(other, io).await?;
                self.push(&value, quoted, fields);
            }
        }
        Ok(())
    }

    fn push(&self, value: &Value, quoted: bool, fields: &mut Fields) {
        match value {
            Value::One(text) => fields.value(text, quoted),
            Value::All { words, joined: true } if quoted => {
                let separator = self.state.get("IFS").map_or(Some(' '), |ifs| ifs.chars().next());
                fields.quoted(&words.join(&separator.map(String::from).unwrap_or_default()));
            }
            Value::All { words, .. } => fields.values(words, quoted),
        }
    }

    /// The word after `:-` and the like, expanded in its place.
    async fn nested(
        &mut self,
        text: Option<&str>,
        quoted: bool,
        fields: &mut Fields,
        io: &Io,
    ) -> Result<(), Stop> {
        let text = text.unwrap_or_default();
        if text.is_empty() {
            fields.value("", quoted);
            return Ok(());
        }
        let pieces = word::parse(text, &parse::options())?;
        self.pieces(&pieces, quoted, fields, io).await
    }

    async fn required(
        &mut self,
        parameter: &Parameter,
        message: Option<&str>,
        io: &Io,
    ) -> Result<Stop, Stop> {
        let message = match message {
            Some(message) if !message.is_empty() => self.single(message, io).await?,
            _ => "parameter null or not set".to_owned(),
        };
        Ok(EvalError::Required { name: plain_name(parameter), message }.into())
    }

    /// The forms that compute one value from another.
    async fn transformed(&mut self, expression: &ParameterExpr, io: &Io) -> Result<Value, Stop> {
        use ParameterExpr as E;
        match expression {
            E::Parameter { parameter, indirect: false } => self.value(parameter),
            E::ParameterLength { parameter, indirect: false } => {
                Ok(Value::One(match self.value(parameter)? {
                    Value::One(text) => text.chars().count().to_string(),
                    Value::All { words, .. } => words.len().to_string(),
                }))
            }
            E::RemoveSmallestSuffixPattern { parameter, indirect: false, pattern } => {
                self.cut(parameter, pattern.as_deref(), shortest_suffix, io).await
            }
            E::RemoveLargestSuffixPattern { parameter, indirect: false, pattern } => {
                self.cut(parameter, pattern.as_deref(), longest_suffix, io).await
            }
            E::RemoveSmallestPrefixPattern { parameter, indirect: false, pattern } => {
                self.cut(parameter, pattern.as_deref(), shortest_prefix, io).await
            }
            E::RemoveLargestPrefixPattern { parameter, indirect: false, pattern } => {
                self.cut(parameter, pattern.as_deref(), longest_prefix, io).await
            }
            E::Substring { parameter, indirect: false, offset, length } => {
                self.substring(parameter, offset, length.as_ref(), io).await
            }
            E::ReplaceSubstring { parameter, indirect: false, pattern, replacement, match_kind } => {
                let pattern = self.pattern(pattern, io).await?;
                let replacement = self.single(replacement.as_deref().unwrap_or_default(), io).await?;
                Ok(self.value(parameter)?.map(|text| replace(text, &pattern, &replacement, match_kind)))
            }
            E::UppercasePattern { parameter, indirect: false, pattern } if is_anything(pattern) => {
                Ok(self.value(parameter)?.map(str::to_uppercase))
            }
            E::LowercasePattern { parameter, indirect: false, pattern } if is_anything(pattern) => {
                Ok(self.value(parameter)?.map(str::to_lowercase))
            }
            E::UppercaseFirstChar { parameter, indirect: false, pattern } if is_anything(pattern) => {
                Ok(self.value(parameter)?.map(|text| change_first(text, str::to_uppercase)))
            }
            E::LowercaseFirstChar { parameter, indirect: false, pattern } if is_anything(pattern) => {
                Ok(self.value(parameter)?.map(|text| change_first(text, str::to_lowercase)))
            }
            _ => Err(unsupported("this form of ${...}")),
        }
    }

    async fn cut(
        &mut self,
        parameter: &Parameter,
        pattern: Option<&str>,
        cut: impl Fn(&str, &str) -> String,
        io: &Io,
    ) -> Result<Value, Stop> {
        let value = self.value(parameter)?;
        let Some(pattern) = pattern else { return Ok(value) };
        let pattern = self.pattern(pattern, io).await?;
        Ok(value.map(|text| cut(text, &pattern)))
    }

    async fn substring(
        &mut self,
        parameter: &Parameter,
        offset: &UnexpandedArithmeticExpr,
        length: Option<&UnexpandedArithmeticExpr>,
        io: &Io,
    ) -> Result<Value, Stop> {
        let offset = self.arithmetic(&offset.value, io).await?;
        let length = match length {
            Some(length) => Some(self.arithmetic(&length.value, io).await?),
            None => None,
        };
        Ok(self.value(parameter)?.map(|text| {
            let characters: Vec<char> = text.chars().collect();
            let start = from_either_end(offset, characters.len());
            let end = match length {
                None => characters.len(),
                Some(length) if length < 0 => from_either_end(length, characters.len()),
                Some(length) => start.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)),
            };
            characters.get(start..end.min(characters.len())).unwrap_or_default().iter().collect()
        }))
    }

    /// The value if there is one, and, for the forms with a colon, if it is not empty.
    fn tested(&self, parameter: &Parameter, test: &ParameterTestType) -> Result<Option<Value>, Stop> {
        let value = self.lookup(parameter)?;
        Ok(value.filter(|value| !matches!(test, ParameterTestType::UnsetOrNull) || !value.is_empty()))
    }

    /// The value; of an unset parameter the empty text, or an error with `set -u`.
    fn value(&self, parameter: &Parameter) -> Result<Value, Stop> {
        match self.lookup(parameter)? {
            Some(value) => Ok(value),
            None if self.state.options.nounset => Err(EvalError::Unset(plain_name(parameter)).into()),
            None => Ok(Value::One(String::new())),
        }
    }

    fn lookup(&self, parameter: &Parameter) -> Result<Option<Value>, Stop> {
        let state = &self.state;
        let text = match parameter {
            Parameter::Named(name) => state.get(name).map(str::to_owned),
            Parameter::Positional(0) => Some(state.name.clone()),
            Parameter::Positional(number) => {
                usize::try_from(*number - 1).ok().and_then(|at| state.positional.get(at)).cloned()
            }
            Parameter::Special(special) => match special {
                SpecialParameter::AllPositionalParameters { concatenate } => {
                    let words = state.positional.clone();
                    return Ok(Some(Value::All { words, joined: *concatenate }));
                }
                SpecialParameter::PositionalParameterCount => Some(state.positional.len().to_string()),
                SpecialParameter::LastExitStatus => Some(state.status.to_string()),
                SpecialParameter::CurrentOptionFlags => Some(state.options.letters()),
                SpecialParameter::ProcessId => Some(std::process::id().to_string()),
                SpecialParameter::LastBackgroundProcessId => None,
                SpecialParameter::ShellName => Some(state.name.clone()),
            },
            Parameter::NamedWithIndex { .. } | Parameter::NamedWithAllIndices { .. } => {
                return Err(unsupported("arrays"));
            }
        };
        Ok(text.map(Value::One))
    }
}

fn plain_name(parameter: &Parameter) -> String {
    match parameter {
        Parameter::Named(name) => name.clone(),
        other => other.to_string().trim_start_matches('$').to_owned(),
    }
}

/// Whether a change of case is for all characters.
fn is_anything(pattern: &Option<String>) -> bool {
    pattern.as_deref().is_none_or(|pattern| matches!(pattern, "" | "?"))
}

/// A place counted from the start, or from the end if negative.
fn from_either_end(offset: i64, length: usize) -> usize {
    let distance = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
    if offset < 0 { length.checked_sub(distance).unwrap_or(usize::MAX) } else { distance }
}

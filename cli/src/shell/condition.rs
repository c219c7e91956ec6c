//! Conditions: `test`, `[ ]` and `[[ ]]`.

use std::cmp::Ordering;

use brush_parser::ast::{BinaryPredicate, ExtendedTestExpr, TestExpr, UnaryPredicate};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::content;
use super::eval::Interpreter;
use super::expand::pattern;
use super::fs::vfs::{Entry, Kind};
use super::io::Io;
use super::stop::{EvalError, Stop, unsupported};

impl Interpreter {
    /// `test` and `[ ]`: the words are expanded already.
    pub(super) fn test<'a>(&'a self, expression: &'a TestExpr) -> BoxFuture<'a, Result<bool, Stop>> {
        async move {
            match expression {
                TestExpr::False => Ok(false),
                TestExpr::Literal(text) => Ok(!text.is_empty()),
                TestExpr::And(left, right) => Ok(self.test(left).await? && self.test(right).await?),
                TestExpr::Or(left, right) => Ok(self.test(left).await? || self.test(right).await?),
                TestExpr::Not(inner) => Ok(!self.test(inner).await?),
                TestExpr::Parenthesized(inner) => self.test(inner).await,
                TestExpr::UnaryTest(predicate, operand) => self.unary(predicate, operand).await,
                TestExpr::BinaryTest(predicate, left, right) => self.binary(predicate, left, right).await,
            }
        }
        .boxed()
    }

    /// `[[ ]]`: words are expanded where they are needed, and the right side of `==` is a pattern.
    pub(super) fn extended_test<'a>(
        &'a mut self,
        expression: &'a ExtendedTestExpr,
        io: &'a Io,
    ) -> BoxFuture<'a, Result<bool, Stop>> {
        async move {
            match expression {
                ExtendedTestExpr::And(left, right) => {
                    Ok(self.extended_test(left, io).await? && self.extended_test(right, io).await?)
                }
                ExtendedTestExpr::Or(left, right) => {
                    Ok(self.extended_test(left, io).await? || self.extended_test(right, io).await?)
                }
                ExtendedTestExpr::Not(inner) => Ok(!self.extended_test(inner, io).await?),
                ExtendedTestExpr::Parenthesized(inner) => self.extended_test(inner, io).await,
                ExtendedTestExpr::UnaryTest(predicate, word) => {
                    let operand = self.single(&word.value, io).await?;
                    self.unary(predicate, &operand).await
                }
                ExtendedTestExpr::BinaryTest(predicate, left, right) => {
                    let left = self.single(&left.value, io).await?;
                    let right = match predicate {
                        BinaryPredicate::StringExactlyMatchesPattern
                        | BinaryPredicate::StringDoesNotExactlyMatchPattern => {
                            self.pattern(&right.value, io).await?
                        }
                        _ => self.single(&right.value, io).await?,
                    };
                    self.binary(predicate, &left, &right).await
                }
            }
        }
        .boxed()
    }

    async fn unary(&self, predicate: &UnaryPredicate, operand: &str) -> Result<bool, Stop> {
        use UnaryPredicate as P;
        match predicate {
            P::StringHasZeroLength => Ok(operand.is_empty()),
            P::StringHasNonZeroLength => Ok(!operand.is_empty()),
            P::ShellVariableIsSetAndAssigned => Ok(self.state.get(operand).is_some()),
            P::FileExistsAndIsSymlink => Ok(self.is_link(operand).await),
            P::FileExists => Ok(self.entry(operand).await.is_some()),
            P::FileExistsAndIsDir => {
                Ok(self.entry(operand).await.is_some_and(|entry| entry.kind == Kind::Dir))
            }
            P::FileExistsAndIsRegularFile => {
                Ok(self.entry(operand).await.is_some_and(|entry| entry.kind == Kind::File))
            }
            P::FileExistsAndIsNotZeroLength => {
                Ok(self.entry(operand).await.is_some_and(|entry| entry.size > 0))
            }
            P::FileExistsAndIsReadable | P::FileExistsAndIsWritable => {
                Ok(self.entry(operand).await.is_some())
            }
            P::FileExistsAndIsExecutable => {
                Ok(self.entry(operand).await.is_some_and(|entry| entry.mode & 0o111 != 0))
            }
            P::FdIsOpenTerminal => Ok(false),
            _ => Err(unsupported("this file test")),
        }
    }

    async fn binary(&self, predicate: &BinaryPredicate, left: &str, right: &str) -> Result<bool, Stop> {
        use BinaryPredicate as P;
        match predicate {
            P::StringExactlyMatchesPattern => Ok(pattern::matches(right, left)),
            P::StringDoesNotExactlyMatchPattern => Ok(!pattern::matches(right, left)),
            P::StringExactlyMatchesString => Ok(left == right),
            P::StringDoesNotExactlyMatchString => Ok(left != right),
            P::StringContainsSubstring => Ok(left.contains(right)),
            P::StringMatchesRegex => match regex::Regex::new(right) {
                Ok(regex) => Ok(regex.is_match(left)),
                Err(error) => Err(EvalError::Condition(error.to_string()).into()),
            },
            P::LeftSortsBeforeRight => Ok(left < right),
            P::LeftSortsAfterRight => Ok(left > right),
            P::ArithmeticEqualTo => Ok(compare(left, right)?.is_eq()),
            P::ArithmeticNotEqualTo => Ok(compare(left, right)?.is_ne()),
            P::ArithmeticLessThan => Ok(compare(left, right)?.is_lt()),
            P::ArithmeticLessThanOrEqualTo => Ok(compare(left, right)?.is_le()),
            P::ArithmeticGreaterThan => Ok(compare(left, right)?.is_gt()),
            P::ArithmeticGreaterThanOrEqualTo => Ok(compare(left, right)?.is_ge()),
            P::FilesReferToSameDeviceAndInodeNumbers => {
                let (left, right) = (self.entry(left).await, self.entry(right).await);
                Ok(left.is_some_and(|left| right.is_some_and(|right| left.inode == right.inode)))
            }
            P::LeftFileIsNewerOrExistsWhenRightDoesNot => self.newer(left, right).await,
            P::LeftFileIsOlderOrDoesNotExistWhenRightDoes => self.newer(right, left).await,
        }
    }

    async fn newer(&self, left: &str, right: &str) -> Result<bool, Stop> {
        let time = |entry: Option<Entry>| entry.map(|entry| entry.mtime_ms);
        Ok(time(self.entry(left).await) > time(self.entry(right).await))
    }

    /// What stands at a path, links followed.
    async fn entry(&self, operand: &str) -> Option<Entry> {
        let path = self.state.cwd.resolve(operand).ok()?;
        content::follow(&*self.host.vfs, &path).await.ok().map(|(_, entry)| entry)
    }

    async fn is_link(&self, operand: &str) -> bool {
        let Ok(path) = self.state.cwd.resolve(operand) else { return false };
        matches!(self.host.vfs.stat(&path).await, Ok(entry) if entry.kind == Kind::Symlink)
    }
}

fn compare(left: &str, right: &str) -> Result<Ordering, Stop> {
    let number = |text: &str| {
        let parsed = text.trim().parse::<i64>();
        parsed.map_err(|_| Stop::from(EvalError::Condition(format!("{text}: a number was expected"))))
    };
    Ok(number(left)?.cmp(&number(right)?))
}

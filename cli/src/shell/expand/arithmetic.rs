//! Arithmetic: `$((...))`, `((...))`. Whole numbers of 64 bits that wrap, as in bash.

use brush_parser::ast::{
    ArithmeticExpr, ArithmeticTarget, BinaryOperator, UnaryAssignmentOperator, UnaryOperator,
};

use crate::shell::eval::Interpreter;
use crate::shell::io::Io;
use crate::shell::state::State;
use crate::shell::stop::{EvalError, Stop, unsupported};

/// How deep variables may name expressions that name variables: `x=x` would go on for ever.
const MAX_DEPTH: usize = 16;

impl Interpreter {
    /// The value of an expression.
    pub(in crate::shell) async fn arithmetic(&mut self, text: &str, io: &Io) -> Result<i64, Stop> {
        let text = self.document(text, io).await?;
        evaluate_text(&text, &mut self.state, 0)
    }
}

fn evaluate_text(text: &str, state: &mut State, depth: usize) -> Result<i64, Stop> {
    if depth > MAX_DEPTH {
        return Err(EvalError::Arithmetic("variables refer to each other without end").into());
    }
    if text.trim().is_empty() {
        return Ok(0);
    }
    evaluate(&brush_parser::arithmetic::parse(text)?, state, depth)
}

fn evaluate(expression: &ArithmeticExpr, state: &mut State, depth: usize) -> Result<i64, Stop> {
    match expression {
        ArithmeticExpr::Literal(value) => Ok(*value),
        ArithmeticExpr::Reference(target) => read(target, state, depth),
        ArithmeticExpr::UnaryOp(operator, operand) => {
            let value = evaluate(operand, state, depth)?;
            Ok(match operator {
                UnaryOperator::UnaryPlus => value,
                UnaryOperator::UnaryMinus => value.wrapping_neg(),
                UnaryOperator::BitwiseNot => !value,
                UnaryOperator::LogicalNot => i64::from(value == 0),
            })
        }
        ArithmeticExpr::BinaryOp(BinaryOperator::LogicalAnd, left, right) => {
            let holds = evaluate(left, state, depth)? != 0 && evaluate(right, state, depth)? != 0;
            Ok(i64::from(holds))
        }
        ArithmeticExpr::BinaryOp(BinaryOperator::LogicalOr, left, right) => {
            let holds = evaluate(left, state, depth)? != 0 || evaluate(right, state, depth)? != 0;
            Ok(i64::from(holds))
        }
        ArithmeticExpr::BinaryOp(operator, left, right) => {
            let left = evaluate(left, state, depth)?;
            binary(*operator, left, evaluate(right, state, depth)?)
        }
        ArithmeticExpr::Conditional(condition, yes, no) => {
            let taken = if evaluate(condition, state, depth)? == 0 { no } else { yes };
            evaluate(taken, state, depth)
        }
        ArithmeticExpr::Assignment(target, value) => {
            let value = evaluate(value, state, depth)?;
            write(target, value, state)
        }
        ArithmeticExpr::BinaryAssignment(operator, target, value) => {
            let before = read(target, state, depth)?;
            let value = binary(*operator, before, evaluate(value, state, depth)?)?;
            write(target, value, state)
        }
        ArithmeticExpr::UnaryAssignment(operator, target) => {
            let before = read(target, state, depth)?;
            let (after, result) = match operator {
                UnaryAssignmentOperator::PrefixIncrement => (before.wrapping_add(1), before.wrapping_add(1)),
                UnaryAssignmentOperator::PrefixDecrement => (before.wrapping_sub(1), before.wrapping_sub(1)),
                UnaryAssignmentOperator::PostfixIncrement => (before.wrapping_add(1), before),
                UnaryAssignmentOperator::PostfixDecrement => (before.wrapping_sub(1), before),
            };
            write(target, after, state)?;
            Ok(result)
        }
    }
}

fn read(target: &ArithmeticTarget, state: &mut State, depth: usize) -> Result<i64, Stop> {
    let value = state.get(name(target)?).unwrap_or_default().trim().to_owned();
    match value.parse() {
        Ok(value) => Ok(value),
        Err(_) => evaluate_text(&value, state, depth + 1),
    }
}

fn write(target: &ArithmeticTarget, value: i64, state: &mut State) -> Result<i64, Stop> {
    state.set(name(target)?, value.to_string());
    Ok(value)
}

fn name(target: &ArithmeticTarget) -> Result<&str, Stop> {
    match target {
        ArithmeticTarget::Variable(name) => Ok(name),
        ArithmeticTarget::ArrayElement(..) => Err(unsupported("arrays")),
    }
}

fn binary(operator: BinaryOperator, left: i64, right: i64) -> Result<i64, Stop> {
    let shift = u32::try_from(right & 63).unwrap_or_default();
    Ok(match operator {
        BinaryOperator::Power => power(left, right)?,
        BinaryOperator::Multiply => left.wrapping_mul(right),
        BinaryOperator::Divide => left.wrapping_div(divisor(right)?),
        BinaryOperator::Modulo => left.wrapping_rem(divisor(right)?),
        BinaryOperator::Comma => right,
        BinaryOperator::Add => left.wrapping_add(right),
        BinaryOperator::Subtract => left.wrapping_sub(right),
        BinaryOperator::ShiftLeft => left.wrapping_shl(shift),
        BinaryOperator::ShiftRight => left.wrapping_shr(shift),
        BinaryOperator::LessThan => i64::from(left < right),
        BinaryOperator::LessThanOrEqualTo => i64::from(left <= right),
        BinaryOperator::GreaterThan => i64::from(left > right),
        BinaryOperator::GreaterThanOrEqualTo => i64::from(left >= right),
        BinaryOperator::Equals => i64::from(left == right),
        BinaryOperator::NotEquals => i64::from(left != right),
        BinaryOperator::BitwiseAnd => left & right,
        BinaryOperator::BitwiseXor => left ^ right,
        BinaryOperator::BitwiseOr => left | right,
        BinaryOperator::LogicalAnd => i64::from(left != 0 && right != 0),
        BinaryOperator::LogicalOr => i64::from(left != 0 || right != 0),
    })
}

fn divisor(value: i64) -> Result<i64, Stop> {
    if value == 0 { Err(EvalError::Arithmetic("division by zero").into()) } else { Ok(value) }
}

fn power(base: i64, exponent: i64) -> Result<i64, Stop> {
    let exponent = u32::try_from(exponent)
        .map_err(|_| EvalError::Arithmetic("an exponent must not be negative or beyond 2^32"))?;
    Ok(base.wrapping_pow(exponent))
}

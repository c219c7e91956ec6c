//! `seq`

use super::{Builtin, Context, Failure, Outcome};

/// Arguments of `seq`.
#[derive(Debug, clap::Args)]
pub(super) struct Seq {
    /// LAST, or FIRST LAST, or FIRST STEP LAST
    #[arg(required = true, num_args = 1..=3, allow_negative_numbers = true)]
    numbers: Vec<i64>,
}

impl Builtin for Seq {
    const NAME: &'static str = "seq";
    const ABOUT: &'static str = "Print whole numbers, one a line";
    const EXAMPLES: &'static str = "  seq 3\n  seq 10 -5 0";

    async fn run(self, mut context: Context) -> Outcome {
        let (first, step, last) = match *self.numbers {
            [last] => (1, 1, last),
            [first, last] => (first, 1, last),
            [first, step, last] => (first, step, last),
            _ => return Err(Failure::Usage("one to three numbers".to_owned())),
        };
        if step == 0 {
            return Err(Failure::Usage("a step of 0 never ends".to_owned()));
        }
        let mut number = Some(first);
        while let Some(value) = number.filter(|value| if step > 0 { *value <= last } else { *value >= last })
        {
            context.line(value).await?;
            number = value.checked_add(step);
        }
        context.done()
    }
}

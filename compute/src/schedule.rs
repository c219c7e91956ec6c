//! Functions that are run by time: cron lines.
//!
//! Every node knows every line (a key of the swarm's memory), and none is special. A *tick*, a moment that a line names,
//! becomes a batch of one task, whose id follows from the line and the tick: whoever fires it, and however many do, it is
//! one batch, and what is known of it merges. So that it is mostly one node that fires, all go by the tick's rendezvous
//! order: the first living node at once, each further one [`turn::STEP`] later if it has heard of no firing by then.
//!
//! The clock is that of the node that fires. A tick never fires twice, whatever clocks do: an id that was used once is not
//! used again for as long as memory remembers its deletion. A tick that nobody could fire for [`due::MAX_LATE`] is left out, and so are
//! those in which no node was up.
//!
//! Reading order: [`line`] for the words, [`due`] and [`turn`] for the rules (all pure), `store` for where lines lie,
//! `cron` for the node's part, `launch` for the way from a function to a batch.

pub mod due;
pub mod line;
pub mod turn;

mod cron;
mod launch;
mod store;

pub(crate) use cron::Cron;
pub use cron::{CronError, CronSpec, CronStatus};
pub use line::{BadSchedule, CronLine, Firing, Schedule};
pub use store::ScheduleStoreError;

//! Functions that are run by the clock (cron lines), or when a file or key changes (triggers).
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
//! A change of a file or key is a batch as well, whose id follows from the trigger, the path or key, and its version. Each node looks
//! at what there is whenever memory has news, and what has changed since the trigger was made, and was not fired yet, is due: so a
//! change is not lost with the node that saw it first, and of many changes of one thing within a second the last one counts.
//!
//! Reading order: [`line`] and [`trigger`] for the words, [`due`], [`burst`] and [`turn`] for the rules (all pure), `store` for
//! where both lie, `cron` and `watch` for the node's part, `launch` for the way from a function to a batch.

pub mod burst;
pub mod due;
pub mod line;
pub mod trigger;
pub mod turn;

mod cron;
mod launch;
mod scan;
mod store;
mod watch;

pub(crate) use cron::Cron;
pub use cron::{CronError, CronSpec, CronStatus};
pub use line::{BadSchedule, CronLine, Firing, Schedule};
pub use trigger::{BadSource, Source, Trigger};
pub(crate) use watch::Watcher;
pub use watch::{TriggerError, TriggerSpec, TriggerStatus};

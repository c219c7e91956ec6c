//! Functions: programs that have a name, and are called by it from any node.
//!
//! What a function is lies where everything lasting lies: its record in the swarm's memory, its programs in the swarm's
//! tree. So every node knows every function, each can be asked for a call, and none is special. To deploy a function
//! again makes a new version of it; which version is current is one field of the record, and to roll back is to write
//! that field.
//!
//! A call runs on the node that was asked when that one has a free slot. Else the less loaded of two others gets it over
//! a direct stream, and another one if the first is lost before it has answered anything.
//!
//! Reading order: [`version`] for the words and the rules of versions, [`choice`] for whom to ask (both pure), `store`
//! for where it lies, `service` and `placing` for the way of a call to a slot, `stage` for what happens in it.

pub mod choice;
pub mod version;

mod answer;
mod placing;
mod program;
mod protocol;
mod remote;
mod service;
mod stage;
mod store;

pub use answer::{Answer, AnswerError};
pub use placing::{CallError, Running};
pub(crate) use program::ProgramError;
pub use protocol::{CallSpec, Said};
pub(crate) use service::Functions;
pub use service::{DeployError, FunctionError, FunctionSpec};
pub use store::FunctionStoreError;

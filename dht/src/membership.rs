//! Who may do what: Biscuit tokens under the swarm's root key.
//!
//! The root key signs one authority block when the swarm is founded and is then forgotten; what remains are
//! tokens, and every token can only be narrowed. A node that may invite holds a *grant* (a bearer token it
//! shows to nobody); from it, offline, it makes tickets and enrols newcomers. What a node shows at the gate
//! is its *pass*: narrowed to its own PeerId and sealed, so that a copy is worth nothing to anybody else.
//!
//! A member can also give its word to somebody outside of the swarm: a *voucher* lets whoever bears it read one thing,
//! and opens no gate.
//!
//! Losing the founder changes nothing: its grant differs in no way from that of any other full member.

mod credentials;
mod revocation;
mod rights;
mod token;
mod voucher;

pub use credentials::{Credentials, CredentialsError, Enrolment};
pub use revocation::Revocations;
pub use rights::{Right, Rights, Role, UnknownRole};
pub use token::{Refusal, SwarmId, Token, Verified};
pub use voucher::{Good, Voucher, VoucherError, VoucherRefusal};

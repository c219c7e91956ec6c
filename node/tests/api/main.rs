//! Real nodes, asked through their real doors.

mod common;
mod guards;
mod node;

//! The rooms of the `starfish` program, so that tests can enter them without a process.

pub mod allocator;
pub mod commands;
pub mod output;
pub mod shell;

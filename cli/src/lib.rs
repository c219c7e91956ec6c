//! The rooms of the `starfish` program, so that tests can enter them without a process.

pub mod commands;
pub mod output;
pub mod shell;

/// A node lives on small pieces of memory that one thread takes and another gives back: this allocator is made for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

//! The `starfish` program.

fn main() {}

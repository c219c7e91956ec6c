//! The `starfish` program.
#![cfg_attr(not(test), allow(dead_code, unused_imports, reason = "the commands that call these rooms follow"))]

mod output;
mod shell;

fn main() {}

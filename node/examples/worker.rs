//! A worker process by itself, for this crate's tests: the product starts itself as its worker.

use std::process::ExitCode;

fn main() -> ExitCode {
    starfish_node::compute::worker::main()
}

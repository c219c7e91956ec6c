//! The worker process by itself, for this crate's tests and benchmarks.

use std::process::ExitCode;

fn main() -> ExitCode {
    starfish_compute::worker::main()
}

//! Which program is tested, and in what surroundings it runs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Names another program to test instead: a release build, say, or the one out of a package.
const PROGRAM_ENV: &str = "STARFISH_TEST_PROGRAM";

/// By default it is what cargo built of the same sources, one folder above the test's own executable.
static PROGRAM: LazyLock<PathBuf> =
    LazyLock::new(|| env::var_os(PROGRAM_ENV).map_or_else(beside_this_test, PathBuf::from));

fn beside_this_test() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().nth(2).expect("a test lies in target/PROFILE/deps");
    folder.join("starfish-under-test")
}

/// The program, with none of the user's environment: `home` is its home, and loopback its network.
pub(crate) fn starfish(home: &Path) -> Command {
    assert!(PROGRAM.is_file(), "there is no program at {}: run the tests with cargo", PROGRAM.display());
    in_surroundings(Command::new(&*PROGRAM), home)
}

/// The same in another network namespace. It takes the place of `ip`, so the process is the program's own.
pub(crate) fn starfish_within(namespace: &str, home: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(&*PROGRAM);
    in_surroundings(command, home)
}

fn in_surroundings(mut command: Command, home: &Path) -> Command {
    command
        .env_clear()
        .env("HOME", home)
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("RUST_BACKTRACE", "1")
        .env("STARFISH_LISTEN", "127.0.0.1")
        .env("STARFISH_MDNS", "false")
        .env("STARFISH_UPNP", "false");
    if let Some(filter) = env::var_os("RUST_LOG") {
        command.env("RUST_LOG", filter);
    }
    command
}

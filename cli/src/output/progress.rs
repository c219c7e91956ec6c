//! Progress of what takes longer than a moment: on standard error, at a terminal only.

use std::env;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Set to anything to see no progress at all.
pub const NO_PROGRESS: &str = "STARFISH_NO_PROGRESS";

/// A bar over bytes; with no total, a spinner that counts them.
pub fn bytes(what: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} eta {eta}",
        None => "{spinner} {msg} {bytes} {bytes_per_sec}",
    };
    bar(what, total, template)
}

/// A bar over things that are counted.
pub fn items(what: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{msg} [{bar:30}] {pos}/{len} eta {eta}",
        None => "{spinner} {msg} {pos}",
    };
    bar(what, total, template)
}

fn bar(what: &str, total: Option<u64>, template: &str) -> ProgressBar {
    if env::var_os(NO_PROGRESS).is_some() || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    // The templates are constants; a wrong one would only cost the looks.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

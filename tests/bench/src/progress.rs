//! Progress on standard error, with the seconds since the run began.

use std::sync::OnceLock;
use std::time::Instant;

static BEGAN: OnceLock<Instant> = OnceLock::new();

/// A line of progress.
pub(crate) fn say(text: &str) {
    let began = BEGAN.get_or_init(Instant::now);
    eprintln!("xtask: {:>4} s: {text}", began.elapsed().as_secs());
}

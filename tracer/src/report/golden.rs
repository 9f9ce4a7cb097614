//! Golden files: what exporters are expected to write, byte by byte.
//!
//! `MEMTAP_BLESS=1 cargo test -p memtap report` writes them anew; review the difference before it
//! is kept.

use std::path::Path;
use std::{env, fs};

/// Compares what `make` gives with the golden file `name`. It is called twice: an exporter whose
/// bytes depend on the order of a hash map does not pass.
pub(super) fn check(name: &str, make: impl Fn() -> String) {
    let bytes = make();
    assert_eq!(bytes, make(), "{name} differs from one run to the next");
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if env::var_os("MEMTAP_BLESS").is_some_and(|it| it == "1") {
        fs::write(&file, bytes).unwrap_or_else(|error| panic!("failed to bless {name}: {error}"));
        return;
    }
    let golden = fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("failed to read golden file {name}: {error}"));
    assert!(
        bytes == golden,
        "{name} is not as expected (MEMTAP_BLESS=1 keeps the new one)\n--- expected\n{golden}\n--- made\n{bytes}"
    );
}

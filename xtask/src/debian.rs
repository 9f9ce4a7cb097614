//! Debian's package of the library's source: downloaded, unpacked, never installed.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::private_apt::{PrivateApt, remove_dir};
use crate::workspace;

/// The suite that has the pinned version. Its source package is independent of architecture and
/// release.
const SUITE: &str = "trixie-backports";

/// Unpacks the `rust-src` package of exactly rustc's `version` into the directory `destination`.
pub(crate) fn unpack_rust_src(version: &str, destination: &Path) -> Result<()> {
    let apt = PrivateApt::of_suite(&workspace::cache_dir()?.join("apt"), SUITE)?;
    let package = choose(&apt.versions("rust-src")?, version)?;
    // Unpacked beside its place and then renamed, so that an interrupted run leaves nothing half
    // done.
    let staging = destination.with_extension("partial");
    remove_dir(&staging)?;
    apt.unpack(&package, &staging)?;
    remove_dir(destination)?;
    fs::rename(&staging, destination)
        .with_context(|| format!("failed to move {} into place", destination.display()))
}

/// The package to download, as `name=version`, out of the versions that are offered.
fn choose(offered: &[String], version: &str) -> Result<String> {
    let matching = |candidate: &&String| {
        candidate
            .strip_prefix(version)
            .is_some_and(|revision| revision.starts_with(['+', '-', '~']))
    };
    match offered.iter().find(matching) {
        Some(exact) => Ok(format!("rust-src={exact}")),
        None => bail!(
            "failed to find rust-src {version} in {SUITE}, which offers {}",
            if offered.is_empty() {
                "none".to_owned()
            } else {
                offered.join(", ")
            }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers() -> [String; 2] {
        ["1.96.1+dfsg1-2~bpo13+1", "1.95.0+dfsg1-2~bpo13+1"].map(str::to_owned)
    }

    #[test]
    fn the_exact_version_is_chosen() {
        assert_eq!(
            choose(&offers(), "1.95.0").ok().as_deref(),
            Some("rust-src=1.95.0+dfsg1-2~bpo13+1")
        );
    }

    #[test]
    fn another_version_is_refused_by_name() {
        for wanted in ["1.95", "1.9", "1.97.0"] {
            let error = choose(&offers(), wanted).map_err(|error| error.to_string());
            assert!(error.is_err_and(|message| message.contains("1.96.1")), "{wanted}");
        }
        let error = choose(&[], "1.95.0").map_err(|error| error.to_string());
        assert!(error.is_err_and(|message| message.ends_with("offers none")));
    }
}

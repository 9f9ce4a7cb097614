//! bcc's memleak, which is written for this question alone.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::{Running, Seen, Tracer};
use crate::bench::target::Target;
use crate::privilege;

/// memleak under the name that Debian gives it. It counts no calls: it tells what is left.
pub(crate) struct Memleak;

const PROGRAM: &str = "/usr/sbin/memleak-bpfcc";

/// Where bcc finds the headers that it compiles its program with: those that a kernel carries, those of its
/// release.
const KERNEL_HEADERS: &str = "/sys/kernel/kheaders.tar.xz";

/// So long that it prints once, when it is stopped.
const INTERVAL_S: &str = "3600";

impl Tracer for Memleak {
    fn missing(&self) -> Option<String> {
        if !Path::new(PROGRAM).exists() {
            return Some("bpfcc-tools is not installed".to_owned());
        }
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let build = format!("/lib/modules/{}/build", release.trim());
        let headers = [KERNEL_HEADERS, &build];
        (!headers.iter().any(|path| Path::new(path).exists())).then(|| {
            format!(
                "bcc compiles with the kernel's headers: neither {} is here",
                headers.join(" nor ")
            )
        })
    }

    fn attach(&self, target: &Target, folder: &Path) -> Result<Running> {
        let mut command = privilege::elevated(Path::new(PROGRAM));
        command.args(["-p", &target.pid().to_string(), INTERVAL_S]);
        Running::start(&mut command, folder)
    }

    fn seen(&self, folder: &Path) -> Result<Seen> {
        let text = fs::read_to_string(folder.join("stdout")).context("failed to read memleak's output")?;
        seen(&text)
    }
}

/// Nothing, if it reported and no block is left in its report.
fn seen(output: &str) -> Result<Seen> {
    ensure!(
        output.contains("outstanding allocations"),
        "failed to find a report in memleak's output"
    );
    let left = output
        .lines()
        .find(|line| line.contains(" allocations from stack"));
    match left {
        None => Ok(Seen::Nothing),
        Some(left) => anyhow::bail!("memleak has left {}, and the loop keeps none", left.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_stay_are_no_figure() {
        let report =
            "Attaching to pid 7, Ctrl+C to quit.\n[10:00:00] Top 10 stacks with outstanding allocations:\n";
        assert_eq!(seen(report).ok(), Some(Seen::Nothing));
        assert!(
            seen(&format!(
                "{report}\t64 bytes in 1 allocations from stack\n\t\tmain\n"
            ))
            .is_err()
        );
        assert!(seen("Attaching to pid 7, Ctrl+C to quit.\n").is_err());
    }
}

//! What can go wrong at the kernel boundary.

use aya::programs::ProgramError;

use super::refusal;

/// What can go wrong at the kernel boundary.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The object lacks something that this version of the loader knows: they were built apart.
    #[error("the eBPF object has no {0}: rebuild memtap")]
    Missing(String),
    /// A program was refused.
    #[error(
        "the kernel refused the eBPF program {program}: {reason}; `-v` shows the verifier's whole answer"
    )]
    Program {
        /// Its name.
        program: String,
        /// What the kernel said, in a line.
        reason: String,
    },
    /// A map could not be read or written.
    #[error("failed to use the eBPF map {map}: {source}")]
    Map {
        /// Its name.
        map: String,
        /// What the kernel said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No weights can be made of so little.
    #[error(
        "failed to sample one allocation per {interval_bytes} bytes in {share} of the time: intervals are 1 byte to 1 GiB, shares \
         above 0 and at most 1, and an interval divided by the share is at most 2 GiB"
    )]
    Sampling {
        /// The mean distance of sample points in bytes.
        interval_bytes: u64,
        /// The share of the time in which probes are attached.
        share: f64,
    },
    /// The kernel's type information is missing or unreadable.
    #[error(transparent)]
    Btf(#[from] super::btf::BtfError),
    /// The kernel has no links of many uprobes.
    #[error(
        "the kernel has no links of many uprobes ({0}); Linux 6.6 and later have, `--attach perf` does without"
    )]
    Multi(#[source] std::io::Error),
    /// The object's code could not be put together.
    #[error("failed to put the eBPF programs together: {0}; rebuild memtap")]
    Relocation(String),
}

impl BpfError {
    /// An error of a program. The verifier's answer can have thousands of lines, the last of which
    /// say why.
    pub(super) fn program(name: &str, error: &ProgramError) -> Self {
        let text = error.to_string();
        // A message is one line.
        for line in text.lines() {
            log::debug!("{name}: {line}");
        }
        let is_account = |line: &&str| {
            ["processed ", "verification time", "stack depth", "mark_precise"]
                .iter()
                .any(|start| line.starts_with(start))
        };
        let (first, account) = text.split_once(" Verifier output:").unwrap_or((&text, ""));
        let mut lines = account.lines();
        let last = lines
            .rfind(|line| !is_account(line) && !line.trim().is_empty())
            .map(str::trim);
        let reason = last.map(refusal::in_words).map_or_else(
            || first.to_owned(),
            |last| format!("{}: {last}", first.trim_end_matches('.')),
        );
        Self::Program {
            program: name.to_owned(),
            reason,
        }
    }

    /// An error of a map.
    pub(crate) fn map(name: &str, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Map {
            map: name.to_owned(),
            source: Box::new(source),
        }
    }
}

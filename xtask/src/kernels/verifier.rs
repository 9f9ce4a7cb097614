//! The number of instructions that each kernel's verifier went through for each program: figures
//! that people review.
//!
//! A program's cost to the verifier is near its cost to load, and a program that comes near the
//! limit of a million is one that the next kernel may refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::workspace;

/// The file of the figures, below the repository's root.
const FILE: &str = "tests/kernels/verifier.json";

/// By how much a figure may grow before somebody has to look: a tenth.
const TOLERANCE: u64 = 10;

/// The most instructions that the verifier may go through for a recording of live blocks with
/// sampling: its time is nearly all that starting takes.
const MAX_RECORDING: u64 = 497_000;

/// The name under which `memtap doctor` gives a program's figure for such a recording, where it is
/// another one.
const RECORDING: &str = ", live, sampled";

/// Instructions by program, on one kernel.
pub(crate) type Counts = BTreeMap<String, u64>;

/// The reviewed figures: by program, then by kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    programs: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Reads the figures in what `memtap doctor --json` printed.
pub(crate) fn counts_in(doctor: &str) -> Result<Counts> {
    let document: Value = serde_json::from_str(doctor).with_context(|| {
        format!(
            "failed to read the output of `memtap doctor --json`: {}",
            doctor.trim()
        )
    })?;
    let programs = document["programs"]
        .as_array()
        .context("failed to find `programs` in the output of `memtap doctor --json`")?;
    let mut counts = Counts::new();
    for program in programs {
        let name = program["name"].as_str().with_context(|| {
            format!("failed to find `name` of a program in the output of `memtap doctor --json`: {program}")
        })?;
        let count = program["verified_instructions"].as_u64().with_context(|| {
            format!(
                "failed to find `verified_instructions` of the program {name} in the output of `memtap \
                 doctor --json`"
            )
        })?;
        // A program can be loaded in several forms; the costliest is the one to look at.
        let kept = counts.entry(name.to_owned()).or_default();
        *kept = count.max(*kept);
    }
    Ok(counts)
}

/// The release of the kernel in what `memtap doctor --json` printed.
pub(super) fn release_in(doctor: &str) -> Option<String> {
    let document: Value = serde_json::from_str(doctor).ok()?;
    document["kernel"].as_str().map(str::to_owned)
}

/// Returns what `memtap doctor --json` does not say yes to, except for what the kernel `lacks`.
/// Tests alone do not show it: where the kernel refuses to walk by tables, memtap walks by frame
/// pointers, and small programs have them.
pub(super) fn missing_in(doctor: &str, lacks: &[&str]) -> Vec<String> {
    let Ok(document) = serde_json::from_str::<Value>(doctor) else {
        return vec![format!(
            "`memtap doctor --json` prints no JSON: {}",
            doctor.trim()
        )];
    };
    let checks = document["checks"].as_array().into_iter().flatten();
    checks
        .filter(|check| check["answer"] != "yes")
        .filter(|check| check["check"].as_str().is_none_or(|name| !lacks.contains(&name)))
        .map(|check| format!("missing here: {}: {}", check["check"], check["detail"]))
        .collect()
}

impl Recorded {
    /// Reads the file; where there is none, nothing is recorded.
    pub(super) fn read() -> Result<Self> {
        match fs::read_to_string(path()) {
            Ok(text) => Self::parse(&text).with_context(|| format!("failed to read {FILE}")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("failed to read {FILE}")),
        }
    }

    /// Writes the file.
    pub(super) fn write(&self) -> Result<()> {
        let path = path();
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("failed to create {}", directory.display()))?;
        }
        fs::write(path, self.text()?).with_context(|| format!("failed to write {FILE}"))
    }

    fn parse(text: &str) -> Result<Self> {
        let programs = serde_json::from_str(text)?;
        Ok(Self { programs })
    }

    fn text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(&self.programs).context("failed to write JSON")?;
        Ok(text + "\n")
    }

    /// Returns whether anything is recorded of `kernel`.
    pub(super) fn has(&self, kernel: &str) -> bool {
        self.programs.values().any(|kernels| kernels.contains_key(kernel))
    }

    /// Takes over what was found on `kernel`, and forgets what is not loaded there any more.
    pub(super) fn bless(&mut self, kernel: &str, found: &Counts) {
        for kernels in self.programs.values_mut() {
            kernels.remove(kernel);
        }
        for (program, &count) in found {
            let kernels = self.programs.entry(program.clone()).or_default();
            kernels.insert(kernel.to_owned(), count);
        }
        self.programs.retain(|_, kernels| !kernels.is_empty());
    }

    /// Returns what is wrong with what was found on `kernel`, one sentence each.
    pub(super) fn objections(&self, kernel: &str, found: &Counts) -> Vec<String> {
        if !self.has(kernel) {
            return vec![format!(
                "no instruction counts of kernel {kernel} are recorded; run with --bless"
            )];
        }
        let mut objections = Vec::new();
        for (program, &count) in found {
            let recorded = self.programs.get(program).and_then(|kernels| kernels.get(kernel));
            match recorded {
                None => objections.push(format!(
                    "{program} is new on kernel {kernel}, with {count} instructions; run with --bless"
                )),
                Some(&recorded) if count > recorded + recorded / TOLERANCE => objections.push(format!(
                    "{program} grew on kernel {kernel}, from {recorded} verified instructions to {count}; \
                     make it smaller, or run with --bless"
                )),
                Some(_) => {}
            }
        }
        let recording = recording(found);
        if recording > MAX_RECORDING {
            objections.push(format!(
                "a recording takes {recording} verified instructions on kernel {kernel}, more than {MAX_RECORDING}"
            ));
        }
        let gone = self
            .programs
            .iter()
            .filter(|(program, kernels)| kernels.contains_key(kernel) && !found.contains_key(*program));
        objections.extend(
            gone.map(|(program, _)| format!("{program} is gone on kernel {kernel}; run with --bless")),
        );
        objections
    }
}

/// Instructions of all programs of a recording of live blocks with sampling.
fn recording(found: &Counts) -> u64 {
    let names: BTreeSet<&str> = found
        .keys()
        .map(|name| name.split(',').next().unwrap_or(name))
        .collect();
    let figures = names.iter().filter_map(|name| {
        let variants = [RECORDING, ", live", ""];
        variants
            .iter()
            .find_map(|variant| found.get(&format!("{name}{variant}")))
    });
    figures.sum()
}

fn path() -> PathBuf {
    workspace::root().join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(programs: &[(&str, u64)]) -> Counts {
        programs
            .iter()
            .map(|&(name, count)| (name.to_owned(), count))
            .collect()
    }

    #[test]
    fn the_doctor() {
        let text = r#"{"kernel": "6.1.0-50-cloud-amd64", "programs": [
            {"name": "free", "verified_instructions": 70},
            {"name": "malloc", "verified_instructions": 90},
            {"name": "free", "verified_instructions": 60}]}"#;
        let found = counts_in(text).expect("all fields are there");
        assert_eq!(found, counts(&[("free", 70), ("malloc", 90)]));
        assert_eq!(release_in(text).as_deref(), Some("6.1.0-50-cloud-amd64"));
    }

    #[test]
    fn what_the_doctor_lacks_is_named() {
        for (text, missing) in [
            ("Segmentation fault", "Segmentation fault"),
            ("{}", "`programs`"),
            (r#"{"programs": [{}]}"#, "`name`"),
            (
                r#"{"programs": [{"name": "free"}]}"#,
                "`verified_instructions` of the program free",
            ),
        ] {
            let error = counts_in(text).map_err(|error| format!("{error:#}"));
            assert!(error.is_err_and(|message| message.contains(missing)), "{text}");
        }
    }

    #[test]
    fn what_is_missing() {
        let text = r#"{"checks": [{"check": "uprobes", "answer": "yes", "detail": ""},
            {"check": "tables", "answer": "no", "detail": "too large"}]}"#;
        assert_eq!(
            missing_in(text, &["uprobes"]),
            ["missing here: \"tables\": \"too large\""]
        );
        assert_eq!(missing_in(text, &["tables"]), Vec::<String>::new());
        assert_eq!(missing_in("Killed", &["tables"]).len(), 1);
    }

    #[test]
    fn growth() {
        let mut recorded = Recorded::default();
        recorded.bless("6.1", &counts(&[("free", 100), ("malloc", 1000)]));
        assert!(
            recorded
                .objections("6.1", &counts(&[("free", 110), ("malloc", 10)]))
                .is_empty()
        );
        let objections = recorded.objections("6.1", &counts(&[("free", 111), ("calloc", 5)]));
        assert_eq!(objections.len(), 3, "{objections:?}");
        assert!(objections[0].contains("calloc is new"));
        assert!(objections[1].contains("free grew on kernel 6.1, from 100"));
        assert!(objections[2].contains("malloc is gone"));
        assert_eq!(recorded.objections("7.2", &counts(&[("free", 1)])).len(), 1);
    }

    #[test]
    fn a_recording() {
        let found = counts(&[
            ("begin", 1),
            ("begin, live", 10),
            ("begin, live, sampled", 400_000),
            ("free, live", 97_000),
            ("fork", 1),
        ]);
        assert_eq!(recording(&found), 497_001);
        let mut recorded = Recorded::default();
        recorded.bless("6.1", &found);
        let objections = recorded.objections("6.1", &found);
        assert_eq!(objections.len(), 1, "{objections:?}");
    }

    #[test]
    fn blessing_keeps_other_kernels() {
        let mut recorded = Recorded::default();
        recorded.bless("6.1", &counts(&[("free", 100), ("old", 1)]));
        recorded.bless("7.2", &counts(&[("free", 200)]));
        recorded.bless("6.1", &counts(&[("free", 101)]));
        let text = recorded.text().expect("memory can be written to");
        assert_eq!(
            text,
            "{\n  \"free\": {\n    \"6.1\": 101,\n    \"7.2\": 200\n  }\n}\n"
        );
        assert_eq!(Recorded::parse(&text).expect("its own text"), recorded);
    }
}

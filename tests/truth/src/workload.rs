//! The table of workloads. A new row is a new entry in [`ALL`].

use anyhow::{Result, bail};

use super::job::TracedJob;
use super::scratch::ScratchDirectory;
use super::workloads;
use test_support::packages::{self, Package};

/// A program to be compared, and how to get it ready.
pub(crate) struct TruthWorkload {
    pub(crate) name: &'static str,
    /// Packages beyond those that the comparison itself needs.
    pub(crate) packages: &'static [Package],
    /// Prepares it in a directory of its own; nothing where the program is not on this machine.
    pub(crate) prepare: fn(&ScratchDirectory) -> Result<Option<TracedJob>>,
    /// The reason to give then.
    pub(crate) absent: &'static str,
}

/// Every workload, in the order of the rows.
const ALL: &[TruthWorkload] = &[
    workload("chain", &[], workloads::chain),
    workload("python3", packages::TRUTH_PYTHON, workloads::python),
    workload("perl", packages::TRUTH_PERL, workloads::perl),
    workload("git", packages::TRUTH_GIT, workloads::git),
    workload("cc1", &[], workloads::cc1),
    TruthWorkload {
        absent: "postgres is not here; install postgresql-15, or whichever version the distribution has (it \
                 is not installed by itself, since that starts a server)",
        ..workload("postgres", &[], workloads::postgres)
    },
    workload("cargo", &[], workloads::cargo),
    workload("node", packages::TRUTH_NODE, workloads::node),
];

const fn workload(
    name: &'static str,
    packages: &'static [Package],
    prepare: fn(&ScratchDirectory) -> Result<Option<TracedJob>>,
) -> TruthWorkload {
    TruthWorkload {
        name,
        packages,
        prepare,
        absent: "not on this machine",
    }
}

/// Those of these names; all where none is given.
pub(crate) fn select(names: &[String]) -> Result<Vec<&'static TruthWorkload>> {
    let known: Vec<&str> = ALL.iter().map(|workload| workload.name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!(
            "failed to find a workload named {name}; there are {}",
            known.join(", ")
        );
    }
    let is_wanted =
        |workload: &&TruthWorkload| names.is_empty() || names.iter().any(|name| name == workload.name);
    Ok(ALL.iter().filter(is_wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::select;

    #[test]
    fn names() {
        assert!(select(&[]).expect("all").len() > 2);
        let two = select(&["perl".to_owned(), "chain".to_owned()]).expect("two");
        assert_eq!(
            two.iter().map(|one| one.name).collect::<Vec<_>>(),
            ["chain", "perl"]
        );
        assert!(select(&["pearl".to_owned()]).is_err());
    }
}

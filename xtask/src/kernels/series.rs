//! The kernels that can be booted: Debian's, one series each.

/// A series of Debian's kernels, of which the newest is booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Series {
    /// As a user names it, such as `6.1`.
    pub(super) name: &'static str,
    /// The suite of Debian that has it.
    pub(super) suite: &'static str,
    /// True if memtap may refuse to run on it, if it does so by one clear error.
    pub(super) may_refuse: bool,
    /// True if the kernel tells how many instructions its verifier went through: `verified_insns`
    /// in `struct bpf_prog_info` of `include/uapi/linux/bpf.h`, from 5.16.
    pub(super) counts_instructions: bool,
    /// Checks of `memtap doctor` that the kernel is too old for.
    pub(super) lacks: &'static [&'static str],
}

/// Links of many uprobes are in Linux since 6.6.
const LINKS: &str = "links of many uprobes";

/// Those that are booted where none is named, the oldest that must pass first.
pub(super) const ALL: [&Series; 4] = [&V6_1, &V6_12, &V7_2, &V5_10];

/// Those that `cargo xtask test` boots: the oldest and the newest that must pass.
pub(super) const FOR_TESTS: [&Series; 2] = [&V6_1, &V7_2];

const V5_10: Series = Series {
    name: "5.10",
    suite: "bullseye",
    may_refuse: true,
    counts_instructions: false,
    lacks: &[LINKS],
};
const V6_1: Series = Series {
    name: "6.1",
    suite: "bookworm",
    may_refuse: false,
    counts_instructions: true,
    lacks: &[LINKS],
};
const V6_12: Series = Series {
    name: "6.12",
    suite: "trixie",
    lacks: &[],
    ..V6_1
};
const V7_2: Series = Series {
    name: "7.2",
    suite: "trixie-backports",
    ..V6_12
};

/// The series of that name, for the command line.
pub(super) fn parse(name: &str) -> Result<&'static Series, String> {
    let names = || ALL.map(|series| series.name).join(", ");
    let found = ALL.into_iter().find(|series| series.name == name);
    found.ok_or_else(|| format!("there are {}", names()))
}

/// The series that a kernel's release belongs to: `6.18` for `6.18.44-abc`.
pub(super) fn of_release(release: &str) -> String {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .filter(|number| !number.is_empty());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => format!("{major}.{minor}"),
        _ => release.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for series in ALL {
            assert_eq!(parse(series.name), Ok(series));
        }
        assert!(parse("6").is_err_and(|message| message.contains("6.12")));
    }

    #[test]
    fn releases() {
        assert_eq!(of_release("6.18.44-fc-v657"), "6.18");
        assert_eq!(of_release("7.2.12+deb13-cloud-amd64"), "7.2");
        assert_eq!(of_release("6.1-rc1"), "6.1");
        assert_eq!(of_release("x"), "x");
    }
}

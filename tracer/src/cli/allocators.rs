//! What is said of allocators: where they were found, and what of them could not be followed.

use std::collections::BTreeSet;

use tracer_ebpf::Function;

use crate::allocator::plan::short_name;
use crate::profile::Profile;
use crate::report::session::Probe;
use crate::report::units;

/// Files that are named; of more the number is told.
const MOST_NAMED: usize = 4;

/// Where probes are, and how many; nothing where there are none.
pub(super) fn in_words(probes: &[Probe]) -> Option<String> {
    if probes.is_empty() {
        return None;
    }
    let mut files: Vec<String> = Vec::new();
    let mut objects = BTreeSet::new();
    for probe in probes {
        if objects.insert(&probe.object) {
            files.push(short_name(&probe.object));
        }
    }
    let more = files.len().saturating_sub(MOST_NAMED);
    files.truncate(MOST_NAMED);
    if more > 0 {
        files.push(format!("{more} more"));
    }
    let stepped = probes.iter().filter(|probe| probe.single_stepped).count();
    let stepped = if stepped == 0 {
        "none single-stepped".to_owned()
    } else {
        format!("{stepped} single-stepped")
    };
    Some(format!(
        "{}, {}, {stepped}",
        files.join(", "),
        units::counted(probes.len() as u128, "probe")
    ))
}

/// What to say of blocks of `operator new`, which has no probe at its return where it may throw; nothing where all were
/// followed.
pub(super) fn unfollowed(profile: &Profile) -> Option<String> {
    let stacks = profile
        .stacks
        .iter()
        .filter(|stack| stack.function == Function::OperatorNew);
    let (mut blocks, mut bytes) = (0u128, 0u128);
    for stack in stacks {
        blocks += u128::from(stack.values.heap.untracked);
        bytes += u128::from(stack.values.heap.untracked_bytes);
    }
    (blocks > 0).then(|| {
        format!(
            "{} of operator new ({}) were counted and not followed, since a probe at the return of a function that throws would \
             end the program: they are in no figure of what is live, and their frees are unmatched",
            units::counted(blocks, "block"),
            units::bytes(bytes)
        )
    })
}

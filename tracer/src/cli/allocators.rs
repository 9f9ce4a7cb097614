//! Messages on allocators: the files with probes, and blocks that could not be tracked.

use std::path::Path;

use tracer_ebpf::Function;

use crate::probe_plan::plan::short_name;
use crate::profile::Profile;
use crate::profile::session::{Probe, ProbeKind};
use crate::recorder::Recorder;
use crate::report::units;

/// Files that are named; of more the number is told.
const MAX_NAMED: usize = 4;

/// Returns the allocators that have probes, their files, and the number of probes; nothing where
/// there are none.
pub(super) fn in_words(recorder: &Recorder) -> Option<String> {
    let probes = recorder.probes();
    let mut files: Vec<(&Path, &[String])> = Vec::new();
    for probe in probes {
        if files.iter().all(|(file, _)| *file != probe.object) {
            files.push((&probe.object, recorder.allocators(&probe.object)));
        }
    }
    words(&files, probes)
}

fn words(files: &[(&Path, &[String])], probes: &[Probe]) -> Option<String> {
    if probes.is_empty() {
        return None;
    }
    let mut places: Vec<String> = files
        .iter()
        .take(MAX_NAMED)
        .map(|(file, allocators)| format!("{} in {}", allocators.join(" and "), short_name(file)))
        .collect();
    let more = files.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        places.push(format!("{more} more files"));
    }
    // Of the places inside functions only failed calls meet such.
    let is_stepped = |probe: &&Probe| probe.single_stepped && probe.kind == ProbeKind::Entry;
    let stepped = probes.iter().filter(is_stepped).count();
    let stepped = if stepped == 0 {
        "none single-stepped".to_owned()
    } else {
        format!("{stepped} single-stepped")
    };
    Some(format!(
        "{}, {}, {stepped}",
        places.join(", "),
        units::counted(probes.len() as u128, "probe")
    ))
}

/// Returns a warning on blocks of `operator new`, which has no probe at its return where it may
/// throw; nothing where all were tracked.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocators_are_named_with_their_files() {
        let probe = |object: &str, single_stepped| Probe {
            object: object.into(),
            symbol: "malloc".to_owned(),
            offset: 0,
            kind: ProbeKind::Entry,
            single_stepped,
        };
        let (jemalloc, both) = (["jemalloc".to_owned()], ["mimalloc", "glibc"].map(str::to_owned));
        let files: [(&Path, &[String]); 2] = [
            (Path::new("/usr/lib/libjemalloc.so.2"), &jemalloc),
            (Path::new("/opt/app"), &both),
        ];
        let probes = [probe("/usr/lib/libjemalloc.so.2", false), probe("/opt/app", true)];
        assert_eq!(
            words(&files, &probes).as_deref(),
            Some("jemalloc in libjemalloc.so.2, mimalloc and glibc in app, 2 probes, 1 single-stepped")
        );
        assert_eq!(words(&[], &[]), None);
    }
}

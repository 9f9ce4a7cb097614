//! Messages at the start of a recording, and when the sample changes.

use super::allocators;
use super::settings::RecordSettings;
use crate::message;
use crate::recorder::{Followed, Recorder};
use crate::report::units;
use crate::settings::{Record, Sample, Target};

/// Prints the targets, the probes and the sample before tracing begins.
pub(super) fn start(settings: &RecordSettings, recorder: &Recorder) {
    if settings.report.quiet {
        return;
    }
    let settings = &settings.record;
    let mut what = Vec::new();
    if let Some(probes) = allocators::in_words(recorder) {
        what.push(probes);
    }
    if settings.region {
        what.push("mmap, munmap, mremap, brk".to_owned());
    }
    if settings.heap {
        what.push(choice(settings, &recorder.followed()));
    } else {
        what.push("every call".to_owned());
    }
    message::say(format_args!("{}: {}", whom(settings, recorder), what.join("; ")));
    let memory = recorder.memory();
    for (map, bytes) in &memory {
        log::debug!("map {map}: {}", units::bytes((*bytes).into()));
    }
    log::debug!(
        "all maps: {}",
        units::bytes(memory.values().map(|bytes| u128::from(*bytes)).sum())
    );
}

/// Prints that the sample has changed: on the terminal the first time, then in the log.
pub(super) fn level(settings: &RecordSettings, followed: &Followed, is_first: bool) {
    let line = match followed.over_budget_percent {
        Some(percent) => format!(
            "the traps alone cost {percent:.0} % of a CPU, which --max-overhead {} does not permit, and with --live the \
             probes must stay in: {} from now on; without --live they can be in for a part of the time",
            percent_text(&settings.record),
            words(followed)
        ),
        None => format!("{} from now on", words(followed)),
    };
    if is_first && !settings.report.quiet {
        message::say(format_args!("{line}"));
    } else {
        log::debug!("{line}");
    }
}

/// Returns the sample, and what chooses it.
fn choice(settings: &Record, followed: &Followed) -> String {
    let now = words(followed);
    match (settings.sample, settings.overhead_max_percent) {
        (Sample::Every, None) => format!("{now} (--sample BYTES follows fewer)"),
        (_, None) => now,
        (Sample::Auto, Some(_)) => format!(
            "as many allocations as {} % of a CPU permits (--max-overhead): {now} at first",
            percent_text(settings)
        ),
        (_, Some(_)) => format!(
            "{now} at first, as long as {} % of a CPU permits (--max-overhead)",
            percent_text(settings)
        ),
    }
}

/// `every allocation`, `one per 512 KiB, 2.1 % of the time`
pub(super) fn words(followed: &Followed) -> String {
    let what = match followed.interval_bytes {
        0 | 1 => "every allocation".to_owned(),
        bytes => format!("one allocation per {}", units::bytes(bytes.into())),
    };
    if followed.share < 1.0 {
        format!("{what}, {} of the time", share_text(followed.share))
    } else {
        what
    }
}

/// A share of time, to two digits where it is small.
fn share_text(share: f64) -> String {
    let percent = 100.0 * share;
    if percent < 1.0 {
        format!("{percent:.2} %")
    } else {
        format!("{percent:.1} %")
    }
}

fn percent_text(settings: &Record) -> String {
    settings
        .overhead_max_percent
        .map_or_else(String::new, |percent| format!("{percent}"))
}

/// Returns the names of the targets.
pub(super) fn whom(settings: &Record, recorder: &Recorder) -> String {
    let found = recorder.found();
    match &settings.target {
        Target::All => "every process".to_owned(),
        Target::Command(command) => command[0].to_string_lossy().into_owned(),
        Target::Cgroup(path) if found.is_empty() => {
            format!("cgroup {}: no process is in it, waiting for one", path.display())
        }
        Target::Comm(name) if found.is_empty() => {
            format!("{}: none runs now, waiting for one to start", name.display())
        }
        _ => {
            let names: Vec<String> = found
                .iter()
                .take(4)
                .map(|(comm, pid)| format!("{comm} ({pid})"))
                .collect();
            let more = if found.len() > 4 {
                format!(" and {} more", found.len() - 4)
            } else {
                String::new()
            };
            let names = names.join(", ") + &more;
            match &settings.target {
                Target::Cgroup(path) => format!("cgroup {}: {names}", path.display()),
                _ => names,
            }
        }
    }
}

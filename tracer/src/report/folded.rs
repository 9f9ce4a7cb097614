//! Folded stacks: one line per stack, its frames from the outermost to the innermost, and its
//! weight.
//!
//! ```text
//! redis-server;main;aeMain;processEventsWhileBlocked;sdsnewlen;malloc 64000
//! ```
//!
//! The first frame is the process, the last is the function that was called. A `;` inside a name is
//! written `:`, a line break as a space, another control character as `\u{1b}`. After the process
//! stands `[truncated]` where the walk did not reach the outermost frame, or `[stack lost]`, alone,
//! where nothing is known between process and function.
//!
//! Stacks with the same line are added up. A line may weigh 0 (`malloc(0)`, a call that failed): it
//! is a stack that was seen, and no line is left out for being small. Lines are sorted by their
//! bytes, as `LC_ALL=C sort` does.

use std::cmp::Ordering;
use std::io::{self, BufWriter, Write};

use tracer_ebpf::Function;

use super::merge::{Completeness, FrameGrouping, Merged, ProcessGrouping};
use super::{ExportOptions, Written, label};
use crate::profile::Profile;

/// Writes the profile as folded stacks, and flushes `out`.
///
/// Fails only as `out` fails.
pub(crate) fn write(profile: &Profile, options: ExportOptions, out: &mut dyn Write) -> io::Result<Written> {
    let folded = FoldedProfile::of(profile, options);
    let mut out = BufWriter::new(out);
    for line in &folded.lines {
        let mut separator = "";
        for name in folded.names(&line.names) {
            write!(out, "{separator}{name}")?;
            separator = ";";
        }
        writeln!(out, " {}", line.weight)?;
    }
    out.flush()?;
    Ok(folded.written())
}

/// Folded lines. Each name is kept once: names of C++ and Rust are long, and stacks share them.
pub(super) struct FoldedProfile {
    names: Vec<String>,
    /// The lines, sorted.
    pub(super) lines: Vec<FoldedLine>,
    total: u128,
}

/// A line.
pub(super) struct FoldedLine {
    /// Indices into the names, from the process to the function.
    pub(super) names: Vec<usize>,
    /// The weight in the metric's unit.
    pub(super) weight: u128,
}

impl FoldedProfile {
    /// Folds a profile.
    pub(super) fn of(profile: &Profile, options: ExportOptions) -> Self {
        let merged = Merged::of(
            profile,
            options.metric,
            ProcessGrouping::per_pid(options.per_pid),
            FrameGrouping::Names,
        );

        let mut names = vec![label::TRUNCATED.to_owned(), label::STACK_LOST.to_owned()];
        let (truncated, lost) = (0, 1);
        let functions = names.len();
        names.extend(Function::ALL.iter().map(|it| it.name().to_owned()));
        let processes = names.len();
        names.extend(
            merged
                .processes
                .iter()
                .map(|it| label::folded(&label::process(&profile.processes[*it], options.per_pid))),
        );
        let frames = names.len();
        names.extend(
            merged
                .frames
                .iter()
                .map(|it| label::folded(&label::frame(&profile.frames[*it]))),
        );

        let lines = merged.stacks.into_iter().map(|stack| {
            let place = stack.place;
            let mut names = vec![processes + place.process];
            match place.walk {
                Completeness::Whole => {}
                Completeness::Truncated => names.push(truncated),
                Completeness::Lost => names.push(lost),
            }
            names.extend(place.frames.iter().map(|it| frames + it));
            names.extend(
                Function::ALL
                    .iter()
                    .position(|it| *it == place.function)
                    .map(|it| functions + it),
            );
            FoldedLine {
                names,
                weight: stack.weight,
            }
        });
        let mut folded = Self {
            lines: lines.collect(),
            names,
            total: merged.total,
        };
        let mut lines = std::mem::take(&mut folded.lines);
        lines.sort_unstable_by(|a, b| folded.compare(a, b));
        folded.lines = lines;
        folded
    }

    /// The names behind indices.
    pub(super) fn names<'a>(&'a self, indices: &'a [usize]) -> impl Iterator<Item = &'a str> {
        indices.iter().map(|it| &*self.names[*it])
    }

    /// Returns the number of lines, and the sum of their weights.
    pub(super) const fn written(&self) -> Written {
        Written {
            stacks: self.lines.len(),
            total: self.total,
        }
    }

    /// The order of the lines' bytes, without making the lines: long stacks with long names are
    /// gigabytes.
    fn compare(&self, a: &FoldedLine, b: &FoldedLine) -> Ordering {
        let same = a.names.iter().zip(&b.names).take_while(|(a, b)| a == b).count();
        // From the last frame that both have, since what follows it may be `;` in one and a space
        // in the other.
        let from = same.saturating_sub(1);
        self.bytes(a, from).cmp(self.bytes(b, from))
    }

    /// The bytes of a line from one of its frames on.
    fn bytes<'a>(&'a self, line: &'a FoldedLine, from: usize) -> impl Iterator<Item = u8> + 'a {
        let last = line.names.len() - 1;
        let names = (from..=last).flat_map(move |index| {
            let separator = if index == last { b' ' } else { b';' };
            let name = &self.names[line.names[index]];
            name.bytes().chain(std::iter::once(separator))
        });
        names.chain(
            // Made only where the comparison comes that far, which it nearly never does.
            std::iter::once_with(move || line.weight.to_string().into_bytes()).flatten(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::super::sample::{SampleProfile, mixed, options};
    use super::*;
    use crate::profile::Metric;
    use tracer_ebpf::StackEnd;

    fn text(profile: &Profile, options: ExportOptions) -> String {
        let mut out = Vec::new();
        let written = write(profile, options, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), written.stacks);
        let weights = text.lines().map(|line| line.rsplit_once(' ').unwrap().1);
        let sum: u128 = weights.map(|it| it.parse::<u128>().unwrap()).sum();
        assert_eq!(sum, written.total);
        let mut sorted: Vec<&str> = text.lines().collect();
        sorted.sort_unstable();
        assert_eq!(text.lines().collect::<Vec<_>>(), sorted);
        text
    }

    #[test]
    fn mixed_profile() {
        for metric in Metric::ALL {
            for per_pid in [false, true] {
                let suffix = if per_pid { "-per-pid" } else { "" };
                let name = format!("mixed-{}{suffix}.folded", metric.name());
                golden::check(&name, || text(&mixed(), ExportOptions { metric, per_pid }));
            }
        }
    }

    #[test]
    fn nothing_gives_no_lines() {
        assert_eq!(text(&Profile::default(), options()), "");
    }

    #[test]
    fn sums_outgrow_64_bits() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        let frame = sample.symbol("f");
        for _ in 0..2 {
            sample.heap(process, Function::Malloc, &[frame], 1, u64::MAX);
        }
        assert_eq!(
            text(&sample.profile, options()),
            format!("p;f;malloc {}\n", u128::from(u64::MAX) * 2)
        );
    }

    #[test]
    fn zero_weights_stay() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        sample.heap(process, Function::Malloc, &[], 1, 0);
        assert_eq!(text(&sample.profile, options()), "p;malloc 0\n");
    }

    #[test]
    fn deepest_stacks_are_written_whole() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        let name = "n".repeat(500);
        let frames: Vec<usize> = (0..tracer_ebpf::MAX_FRAMES)
            .map(|it| sample.symbol(&format!("{name}{it}")))
            .collect();
        sample.stack(process, Function::Calloc, &frames, Some(StackEnd::Truncated));
        let text = text(&sample.profile, options());
        assert!(text.starts_with("p;[truncated];n"));
        assert_eq!(text.matches(';').count(), tracer_ebpf::MAX_FRAMES + 2);
        assert!(text.len() > 500 * tracer_ebpf::MAX_FRAMES);
    }

    #[test]
    fn lines_are_sorted_by_bytes_where_names_have_odd_ends() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        let names = [
            "f", "f 1", "f(int)", "f::g", "f<T>", "malloc", "malloc 1", "malloc:",
        ];
        let frames = names.map(|name| sample.symbol(name));
        for (bytes, frame) in (1..).zip(frames) {
            sample.heap(process, Function::Malloc, &[frame], 1, bytes * 7);
            sample.heap(process, Function::Malloc, &[frame, frames[0]], 1, bytes);
        }
        sample.heap(process, Function::Malloc, &[], 1, 3);
        // `text` checks the order.
        assert_eq!(text(&sample.profile, options()).lines().count(), 17);
    }

    #[test]
    fn same_names_are_one_process_unless_asked() {
        let mut sample = SampleProfile::default();
        for pid in [7, 8] {
            let process = sample.process(pid, "worker");
            sample.heap(process, Function::Malloc, &[], 1, 5);
        }
        let mut options = options();
        assert_eq!(text(&sample.profile, options), "worker;malloc 10\n");
        options.per_pid = true;
        assert_eq!(
            text(&sample.profile, options),
            "worker-7;malloc 5\nworker-8;malloc 5\n"
        );
    }

    #[test]
    fn a_writer_that_fails_is_an_error() {
        let mut out: &mut [u8] = &mut [0; 4];
        let error = write(&mixed(), options(), &mut out).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }
}

//! A flame graph: an interactive SVG that any browser shows, drawn by inferno from the folded
//! lines.
//!
//! Colours follow from names alone, so that equal profiles give equal files and a function keeps
//! its colour from one profile to the next. Frames narrower than 0.01 % of the whole are not drawn;
//! their weight is in the frames below them.

use std::io::{self, BufWriter, Write};

use inferno::flamegraph::color::{BasicPalette, Palette};
use inferno::flamegraph::{self, Options as Graph};

use super::folded::FoldedProfile;
use super::prune::pruned;
use super::{ExportOptions, Written, title, units};
use crate::profile::{Metric, Profile};

/// Writes the profile as a flame graph, and flushes `out`. Where there is nothing to draw, the
/// picture says so.
///
/// Fails only as `out` fails.
pub(crate) fn write(profile: &Profile, options: ExportOptions, out: &mut dyn Write) -> io::Result<Written> {
    draw(profile, options, graph(profile, options), pruned, out)
}

/// The settings of the picture.
fn graph(profile: &Profile, options: ExportOptions) -> Graph<'static> {
    let mut graph = Graph::default();
    graph.title = heading(profile, options);
    graph.colors = Palette::Basic(BasicPalette::Mem);
    graph.deterministic = true;
    graph.count_name = unit(options.metric).into();
    graph
}

/// The function that shortens lines before they are drawn: [`pruned`], except where a test compares
/// with all.
type Prune = for<'a> fn(&[(&'a [usize], u128)], u128) -> Vec<(&'a [usize], u128)>;

/// Draws the picture.
fn draw(
    profile: &Profile,
    options: ExportOptions,
    mut graph: Graph<'_>,
    prune: Prune,
    out: &mut dyn Write,
) -> io::Result<Written> {
    let folded = FoldedProfile::of(profile, options);
    let written = folded.written();
    let mut out = BufWriter::new(out);
    if written.total == 0 {
        write!(out, "{}", blank(&graph.title, options.metric))?;
        out.flush()?;
        return Ok(written);
    }

    graph.subtitle = Some(format!(
        "{} in {}{}",
        amount(written.total, options.metric),
        units::counted(written.stacks as u128, "stack"),
        estimated(profile, options.metric)
    ));
    // inferno counts in 64 bits: heavier profiles are drawn to scale.
    let shift = (u128::BITS - written.total.leading_zeros()).saturating_sub(u64::BITS);
    graph.factor = (0..shift).fold(1.0, |factor, _| factor * 2.0);
    let lines: Vec<(&[usize], u128)> = folded.lines.iter().map(|it| (&*it.names, it.weight)).collect();
    let lines: Vec<String> = prune(&lines, written.total)
        .into_iter()
        .map(|(names, weight)| {
            let names: Vec<&str> = folded.names(names).collect();
            format!("{} {}", drawable(&names.join(";")), weight >> shift)
        })
        .collect();
    flamegraph::from_lines(&mut graph, lines.iter().map(String::as_str), out)?;
    Ok(written)
}

/// Returns the note that weights are estimates, and of which sample.
fn estimated(profile: &Profile, metric: Metric) -> String {
    match profile.sample_bytes {
        Some(bytes) if metric != Metric::RegionBytes => {
            format!(", estimates from {}", units::samples(bytes))
        }
        _ => String::new(),
    }
}

/// The line as inferno and XML take it.
pub(super) fn drawable(line: &str) -> String {
    // The two characters that a name may have and XML may not.
    let line = line.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}");
    // inferno takes such a line for a comment and drops it.
    match line.strip_prefix("# ") {
        Some(rest) => format!("#\u{a0}{rest}"),
        None => line,
    }
}

/// The title: the metric, and whose.
fn heading(profile: &Profile, options: ExportOptions) -> String {
    let metric = options.metric.name();
    let whose = title::processes(profile);
    if whose.is_empty() {
        format!("memtap: {metric}")
    } else {
        drawable(&format!("memtap: {metric} of {whose}"))
    }
}

/// Returns the unit of the weights.
pub(super) const fn unit(metric: Metric) -> &'static str {
    if metric.is_bytes() { "bytes" } else { "calls" }
}

/// A weight for people.
fn amount(weight: u128, metric: Metric) -> String {
    if metric.is_bytes() {
        units::bytes(weight)
    } else {
        units::counted(weight, metric.counts())
    }
}

/// A picture that says that there is nothing to draw, in place of an error after the whole session:
/// that the target allocated nothing is an answer too.
fn blank(title: &str, metric: Metric) -> String {
    let nothing = match metric {
        Metric::AllocBytes | Metric::AllocCount => "nothing was allocated",
        Metric::LiveBytes | Metric::LiveCount => "nothing is still allocated",
        Metric::FreedBytes => "nothing was given back",
        Metric::TemporaryCount => "no block was given back at once",
        Metric::PeakBytes => "nothing was allocated when memtap looked",
        Metric::RegionBytes => "the address space did not grow",
    };
    message(title, nothing)
}

/// A picture of a text.
pub(super) fn message(title: &str, text: &str) -> String {
    let title = title
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!(
        "<?xml version=\"1.0\" standalone=\"no\"?>\n\
         <svg version=\"1.1\" width=\"1200\" height=\"90\" viewBox=\"0 0 1200 90\" \
         xmlns=\"http://www.w3.org/2000/svg\" font-family=\"monospace\" text-anchor=\"middle\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#eef2ee\"/>\n\
         <text x=\"50%\" y=\"30\" font-size=\"17\">{title}</text>\n\
         <text x=\"50%\" y=\"60\" font-size=\"12\">{text}</text>\n\
         </svg>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::golden;
    use super::super::sample::{SampleProfile, mixed, options};
    use super::*;
    use tracer_ebpf::Function;

    fn text(profile: &Profile, options: ExportOptions) -> String {
        let mut out = Vec::new();
        write(profile, options, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn mixed_profile() {
        // Without the script, which is inferno's and most of the file.
        golden::check("mixed-alloc-bytes.svg", || {
            let mut graph = super::graph(&mixed(), options());
            graph.no_javascript = true;
            graph.pretty_xml = true;
            let mut out = Vec::new();
            draw(&mixed(), options(), graph, pruned, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        });
    }

    #[test]
    fn what_is_left_out_would_not_have_been_drawn() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        let frames: Vec<usize> = (0..40).map(|it| sample.symbol(&format!("f{it:02}"))).collect();
        // From a few parts in a million to nearly all; each is its caller's last.
        for (index, bytes) in (0..40).zip([1, 3, 10, 33, 99, 101, 500, 9999].into_iter().cycle()) {
            sample.heap(
                process,
                Function::Malloc,
                &frames[..index],
                1,
                bytes * (1 << (index / 4)),
            );
            sample.heap(process, Function::Calloc, &frames[index..], 1, bytes);
        }
        let drawn = |prune: Prune| {
            let graph = super::graph(&sample.profile, options());
            let mut out = Vec::new();
            draw(&sample.profile, options(), graph, prune, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(drawn(pruned) == drawn(|lines, _| lines.to_vec()));
    }

    #[test]
    fn estimates_say_so() {
        let mut profile = mixed();
        profile.sample_bytes = Some(512 << 10);
        assert!(text(&profile, options()).contains("stacks, estimates from one sample per 512.0 KiB"));
        let regions = ExportOptions {
            metric: Metric::RegionBytes,
            ..options()
        };
        assert!(!text(&profile, regions).contains("estimates from"));
    }

    #[test]
    fn order_in_the_profile_does_not_matter() {
        let mut other = mixed();
        other.stacks.reverse();
        assert_eq!(text(&mixed(), options()), text(&other, options()));
        assert!(text(&other, options()).contains("<script"));
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        golden::check("empty.svg", || text(&Profile::default(), options()));
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "<&>");
        sample.heap(process, Function::Malloc, &[], 1, 0);
        let svg = text(&sample.profile, options());
        assert!(svg.contains("alloc-bytes of &lt;&amp;&gt;-1"), "{svg}");
        assert!(svg.contains("nothing was allocated"));
    }

    #[test]
    fn weights_beyond_64_bits_are_drawn_to_scale() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "p");
        for name in ["a", "b", "c", "d"] {
            let frame = sample.symbol(name);
            sample.heap(process, Function::Malloc, &[frame], 1, u64::MAX);
        }
        let svg = text(&sample.profile, options());
        assert!(svg.contains("64.0 EiB in 4 stacks"));
        assert!(svg.contains("25.00%)"), "{svg}");
    }

    #[test]
    fn odd_names_are_drawn() {
        let mut sample = SampleProfile::default();
        let process = sample.process(1, "# odd");
        let frame = sample.symbol("a\u{ffff}b<T>");
        sample.heap(process, Function::Malloc, &[frame], 1, 8);
        let svg = text(&sample.profile, options());
        assert!(svg.contains("a\u{fffd}b&lt;T&gt; (8 bytes, 100.00%)"));
        assert!(svg.contains("#\u{a0}odd (8 bytes"));
    }

    #[test]
    fn many_processes_are_counted() {
        let mut sample = SampleProfile::default();
        for pid in 1..=4 {
            sample.process(pid, "p");
        }
        assert_eq!(
            heading(&sample.profile, options()),
            "memtap: alloc-bytes of 4 processes"
        );
    }
}

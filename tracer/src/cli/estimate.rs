//! `memtap estimate`: what each way of tracing would cost, and which to take.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::arguments::EstimateSettings;
use super::{announce, resources, terminal};
use crate::message::{self, escape};
use crate::numeric::{rounded, saturating_u64};
use crate::privileges;
use crate::recorder::{Estimate, Estimator, TracingWay};
use crate::report::units;
use crate::settings::Target;

/// The ways that are compared: what they are called, and the options that ask for them.
const WAYS: [(&str, &str, TracingWay); 5] = [
    ("every allocation", "--sample 1 --max-overhead off", way(1, false)),
    ("one per 64 KiB", "--sample 64k", way(64 << 10, false)),
    ("one per 512 KiB", "--sample 512k", way(512 << 10, false)),
    (
        "every allocation until it is freed",
        "--live --sample 1 --max-overhead off",
        way(1, true),
    ),
    (
        "one per 512 KiB until it is freed",
        "--live --sample 512k",
        way(512 << 10, true),
    ),
];

/// The default budget.
const BUDGET_PERCENT: f64 = 2.0;

/// Rates that are so many times what was counted are said to be.
const SLOWED_NOTABLY: f64 = 1.02;

/// A command that costs no more than this is best traced whole.
const FINE_FOR_A_COMMAND_PERCENT: f64 = 50.0;

const fn way(interval_bytes: u64, live: bool) -> TracingWay {
    TracingWay { interval_bytes, live }
}

/// Runs `estimate`.
pub(super) fn run(asked: &EstimateSettings) -> Result<ExitCode> {
    privileges::require()?;
    resources::require()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    runtime.block_on(estimate(asked))
}

async fn estimate(asked: &EstimateSettings) -> Result<ExitCode> {
    let mut estimator = Estimator::start(&asked.record)?;
    let whom = announce::whom(&asked.record, estimator.recorder());
    let child = estimator.release()?;
    let waiting = child.map(|mut child| tokio::task::spawn_blocking(move || child.wait()));
    let (estimate, child) = estimator
        .estimate(asked.duration, waiting)
        .await
        .context("failed to count calls")?;
    let printed = if asked.json {
        terminal::print_json(&document(&estimate, asked))
    } else {
        terminal::print_text(&text(&estimate, &whom, asked))
    };
    if let Some(child) = child {
        if !child.is_finished() {
            message::say(format_args!(
                "the command still runs; waiting for it, no longer traced"
            ));
        }
        child
            .await
            .context("failed to wait for the command")?
            .context("failed to wait for the command")?;
    }
    printed?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the estimate for people.
fn text(estimate: &Estimate, whom: &str, asked: &EstimateSettings) -> String {
    let mut text = format!(
        "{} · looked at for {}",
        escape::one_line(whom),
        units::duration(estimate.counted)
    );
    if estimate.is_cut {
        text.push_str(", since it calls so often that more would be felt");
    }
    if estimate.slowing_factor >= SLOWED_NOTABLY {
        let _infallible = write!(
            text,
            "; that slowed it, and rates are {:.2} times what was counted",
            estimate.slowing_factor
        );
    }
    text.push_str("\n\n");
    let calls = estimate.calls();
    let rate = |count| units::group(saturating_u64(estimate.per_second(count)).into());
    let _infallible = write!(text, "  {} allocations/s", rate(calls));
    if let Some(mean) = estimate.bytes().checked_div(calls) {
        let _infallible = write!(
            text,
            " · {}/s · {} on average",
            units::bytes(saturating_u64(estimate.per_second(estimate.bytes())).into()),
            units::bytes(mean.into())
        );
    }
    let _infallible = writeln!(text, " · {} frees/s", rate(estimate.frees));
    let functions: Vec<String> = estimate
        .functions
        .iter()
        .map(|(function, calls, _)| format!("{} {}/s", function.name(), rate(*calls)))
        .collect();
    if functions.len() > 1 {
        let _infallible = writeln!(text, "  {}", functions.join(" · "));
    }
    let _infallible = writeln!(text, "\n{:<36}{:>10}  OPTIONS", "WHAT IS FOLLOWED", "OF A CPU");
    for (name, options, way) in WAYS {
        let _infallible = writeln!(
            text,
            "{name:<36}{:>10}  {options}",
            percent(estimate.percent(way))
        );
    }
    let (followed, cost) = estimate.with_budget(BUDGET_PERCENT);
    let _infallible = writeln!(
        text,
        "{:<36}{:>10}  --max-overhead {BUDGET_PERCENT}",
        announce::words(&followed),
        percent(cost)
    );
    let measured = |is_measured| if is_measured { "measured" } else { "assumed" };
    let _infallible = writeln!(
        text,
        "\na trap costs {:.0} ns ({}), a call that is followed {:.0} ns more ({})",
        estimate.traps.emulated_ns,
        measured(estimate.traps.is_measured),
        estimate.work.mean_ns(1.0),
        measured(estimate.work.is_measured),
    );
    let _infallible = writeln!(text, "try: {}", recommended(estimate, asked));
    text
}

/// The command to take: what follows all where that is cheap, else what keeps to the budget.
fn recommended(estimate: &Estimate, asked: &EstimateSettings) -> String {
    let every = estimate.percent(way(1, false));
    let options: &[&str] = match (&asked.record.target, every) {
        (Target::Command(_), ..=FINE_FOR_A_COMMAND_PERCENT) => &[],
        (Target::Command(_), _) => &["--sample", "512k"],
        (_, ..=BUDGET_PERCENT) => &["-d", "10s"],
        // In windows, of which there should be some.
        (_, _) => &["-d", "30s"],
    };
    let words = ["sudo", "memtap", "record"]
        .into_iter()
        .chain(options.iter().copied());
    let target = asked
        .target
        .iter()
        .map(|word| escape::one_line(&quoted(word)).into_owned());
    let words = words.map(str::to_owned).chain(target);
    words.collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &OsString) -> String {
    let word = word.to_string_lossy();
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "-_./=:,@%+".contains(it);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A cost, to two digits where it is small.
fn percent(percent: f64) -> String {
    if percent < 0.05 {
        "<0.1 %".to_owned()
    } else if percent < 10.0 {
        format!("{percent:.1} %")
    } else {
        format!("{percent:.0} %")
    }
}

/// Returns the estimate for machines.
fn document(estimate: &Estimate, asked: &EstimateSettings) -> serde_json::Value {
    let functions: serde_json::Map<String, serde_json::Value> = estimate
        .functions
        .iter()
        .map(|(function, calls, bytes)| {
            let rates = json!({
                "calls_per_s": rounded(estimate.per_second(*calls)),
                "bytes_per_s": rounded(estimate.per_second(*bytes)),
            });
            (function.name().to_owned(), rates)
        })
        .collect();
    let ways: Vec<_> = WAYS
        .iter()
        .map(|(_, options, way)| {
            json!({
                "options": options,
                "sample_bytes": way.interval_bytes,
                "live": way.live,
                "overhead_percent": rounded(estimate.percent(*way)),
            })
        })
        .collect();
    let (followed, cost) = estimate.with_budget(BUDGET_PERCENT);
    json!({
        "schema": "memtap.estimate/1",
        "counted_s": rounded(estimate.counted.as_secs_f64()),
        "slowing_factor": rounded(estimate.slowing_factor),
        "allocations_per_s": rounded(estimate.per_second(estimate.calls())),
        "bytes_per_s": rounded(estimate.per_second(estimate.bytes())),
        "frees_per_s": rounded(estimate.per_second(estimate.frees)),
        "functions": functions,
        "trap_ns": saturating_u64(estimate.traps.emulated_ns),
        "return_ns": saturating_u64(estimate.traps.return_ns),
        "traps_measured": estimate.traps.is_measured,
        "followed_ns": saturating_u64(estimate.work.mean_ns(1.0)),
        "programs_measured": estimate.work.is_measured,
        "ways": ways,
        "budget": {
            "max_overhead_percent": BUDGET_PERCENT,
            "sample_bytes": followed.interval_bytes,
            "probed_time_share": rounded(followed.share),
            "overhead_percent": rounded(cost),
        },
        "recommended": recommended(estimate, asked),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_can_be_pasted() {
        assert_eq!(quoted(&"-p".into()), "-p");
        assert_eq!(quoted(&"a b".into()), "'a b'");
        assert_eq!(quoted(&"it's".into()), r"'it'\''s'");
        assert_eq!(quoted(&"".into()), "''");
    }

    #[test]
    fn costs_have_as_many_digits_as_they_need() {
        assert_eq!(percent(0.01), "<0.1 %");
        assert_eq!(percent(1.94), "1.9 %");
        assert_eq!(percent(131.2), "131 %");
    }
}

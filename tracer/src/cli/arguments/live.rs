//! The arguments of `live`, beside those of `record`.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::record::RecordArguments;
use crate::cli::settings::{LiveSettings, RecordSettings};
use crate::cli::sizes;

/// The text before the help.
pub(super) const EXAMPLES: &str = "\
Examples:
  sudo memtap live -p 4711 -d 1m                      what of a minute's allocations is still there, leaks first
  sudo memtap live -p 4711 --interval 10s             a report every ten seconds, until Ctrl-C
  sudo memtap live -p 4711 -d 1h --older-than 10m     only what has been there for ten minutes
  sudo memtap live -d 1m -o leaks.svg -- ./server     a command, and a flame graph of what it holds
  sudo memtap live -d 1m --fail-if-growth 10M -- ./server    in a test: exit code 4 if it grows

The report lists stacks by score: growth that goes on through the second half of the recording, as far as it does not
slow down and as far as the old blocks stay. A steady leak has its growth since half-way as score; a cache that is full,
or replaces its blocks, has next to none.";

/// The text after the help.
pub(super) const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 --strict and something was lost; 4 --fail-if-growth and live bytes grew
by more; for -- COMMAND its own code unless that is 0 (128+N for signal N)";

/// Arguments of `live`.
#[derive(Debug, Args)]
pub(in crate::cli) struct LiveArguments {
    /// The arguments of `record`; `--live` is implied.
    #[command(flatten)]
    pub(super) record: RecordArguments,
    /// Only blocks that are at least so old count in the table: 30s, 5m
    #[arg(long, value_parser = sizes::duration, value_name = "AGE", help_heading = "Report")]
    older_than: Option<Duration>,
    /// A report every so often, beside the one at the end
    #[arg(long, value_parser = sizes::duration, value_name = "TIME", help_heading = "Report")]
    interval: Option<Duration>,
    /// Exit with 4 if live bytes grew by more than this between the half-way mark and the end
    #[arg(long, value_parser = sizes::size, value_name = "BYTES", help_heading = "Report")]
    fail_if_growth: Option<u64>,
}

/// Reports that follow each other faster would mostly measure each other.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

impl LiveArguments {
    /// Checks what was said, and makes settings of it.
    pub(in crate::cli) fn settings(&self) -> Result<RecordSettings> {
        if self.interval.is_some_and(|interval| interval < MIN_INTERVAL) {
            bail!("--interval must be at least {} ms", MIN_INTERVAL.as_millis());
        }
        let settings = self.record.settings_of(Some(LiveSettings {
            older_than: self.older_than,
            interval: self.interval,
            growth_max_bytes: self.fail_if_growth,
        }))?;
        if let (Some(duration), Some(age)) = (settings.record.duration, self.older_than)
            && age >= duration
        {
            bail!(
                "--older-than {} s is not less than --duration {} s: no block could be so old",
                age.as_secs_f64(),
                duration.as_secs_f64()
            );
        }
        if settings.report.is_piped() && self.interval.is_some() {
            bail!("--interval and -o - cannot both write to standard output");
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::arguments::{CommandArguments, CommandLine};
    use crate::profile::Metric;
    use crate::report::table::live::LiveSort;

    fn settings(words: &[&str]) -> Result<RecordSettings> {
        let words = ["memtap", "live"].iter().chain(words);
        match CommandLine::try_parse_from(words)?.command {
            CommandArguments::Live(live) => live.settings(),
            _ => bail!("not live"),
        }
    }

    #[test]
    fn blocks_are_followed_without_being_asked_to() {
        let plain = settings(&["-a"]).unwrap();
        assert!(plain.record.live);
        assert_eq!(plain.report.metric, Metric::LiveBytes);
        let report = plain.report.live.unwrap();
        assert_eq!(plain.report.table.live_sort, LiveSort::Score);
        assert_eq!((report.older_than, report.growth_max_bytes), (None, None));
        let outputs = settings(&["-a", "--live", "-o", "a.svg", "-o", "alloc-bytes=b.svg"])
            .unwrap()
            .report
            .outputs;
        assert_eq!(outputs[0].metric, Metric::LiveBytes);
        assert_eq!(outputs[1].metric, Metric::AllocBytes);
    }

    #[test]
    fn options_have_units() {
        let words = [
            "-a",
            "--older-than",
            "30s",
            "--interval",
            "5s",
            "--fail-if-growth",
            "10M",
            "--sort",
            "live-bytes",
        ];
        let asked = settings(&words).unwrap().report;
        assert_eq!(asked.table.live_sort, LiveSort::LiveBytes);
        let report = asked.live.unwrap();
        assert_eq!(report.older_than, Some(Duration::from_secs(30)));
        assert_eq!(report.interval, Some(Duration::from_secs(5)));
        assert_eq!(report.growth_max_bytes, Some(10 << 20));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for words in [
            &["-a", "--older-than", "soon"][..],
            &["-a", "--older-than", "10s", "-d", "10s"],
            &["-a", "--interval", "0"],
            &["-a", "--interval", "5ms"],
            &["-a", "--interval", "1s", "-o", "-"],
            &["-a", "--fail-if-growth", "lots"],
            &["-a", "--sort", "colour"],
            &["-a", "--events", "region"],
            &["-a", "--metric", "region-bytes"],
            &[],
        ] {
            assert!(settings(words).is_err(), "{words:?}");
        }
        assert!(settings(&["-a", "--older-than", "9s", "-d", "10s"]).is_ok());
    }
}

//! The arguments of `estimate`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, FromArgMatches as _};

use super::record::RecordArguments;
use crate::cli::sizes;
use crate::settings;

/// The text before the help of `estimate`.
pub(super) const EXAMPLES: &str = "\
Examples:
  sudo memtap estimate -p 4711             what each way of tracing would cost a running process
  sudo memtap estimate -- ./server --port 80   a command, in its first second
  sudo memtap estimate -a -d 10s           the whole machine, over a longer time";

/// Arguments of `estimate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct EstimateArguments {
    /// Look at these processes
    #[arg(
        short,
        long,
        value_name = "PID",
        value_delimiter = ',',
        group = "looked-at",
        help_heading = "Target (one of)"
    )]
    pid: Vec<u32>,
    /// Look at every process of the machine
    #[arg(short, long, group = "looked-at", help_heading = "Target (one of)")]
    all: bool,
    /// Look at every process of this name
    #[arg(
        long,
        value_name = "NAME",
        group = "looked-at",
        help_heading = "Target (one of)"
    )]
    comm: Option<OsString>,
    /// Look at every process of this cgroup (v2) and of those below it
    #[arg(
        long,
        value_name = "PATH",
        group = "looked-at",
        help_heading = "Target (one of)"
    )]
    cgroup: Option<PathBuf>,
    /// Look at this command, from its first instruction
    #[arg(
        last = true,
        value_name = "COMMAND",
        group = "looked-at",
        help_heading = "Target (one of)"
    )]
    command: Vec<OsString>,
    /// Look for so long, or less where calls are so frequent that it would be felt
    #[arg(short, long, value_parser = sizes::duration, default_value = "1s")]
    duration: Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Settings of `estimate`.
#[derive(Debug)]
pub(in crate::cli) struct EstimateSettings {
    /// The recording that it is an estimate of.
    pub(in crate::cli) record: settings::Record,
    /// The words that name its target.
    pub(in crate::cli) target: Vec<OsString>,
    /// The time to count calls for.
    pub(in crate::cli) duration: Duration,
    /// True for JSON.
    pub(in crate::cli) json: bool,
}

impl EstimateArguments {
    /// Checks what was said, as `record` would.
    pub(in crate::cli) fn settings(&self) -> Result<EstimateSettings> {
        let target = self.target();
        let record = clap::Command::new("memtap record").no_binary_name(true);
        let matches = RecordArguments::augment_args(record).try_get_matches_from(&target)?;
        let record = RecordArguments::from_arg_matches(&matches)?.settings()?.record;
        Ok(EstimateSettings {
            record,
            target,
            duration: self.duration,
            json: self.json,
        })
    }

    fn target(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if !self.pid.is_empty() {
            let pids: Vec<String> = self.pid.iter().map(u32::to_string).collect();
            words.extend(["-p".into(), pids.join(",").into()]);
        } else if self.all {
            words.push("-a".into());
        } else if let Some(comm) = &self.comm {
            words.extend(["--comm".into(), comm.into()]);
        } else if let Some(cgroup) = &self.cgroup {
            words.extend(["--cgroup".into(), cgroup.into()]);
        } else if !self.command.is_empty() {
            words.push("--".into());
            words.extend(self.command.iter().cloned());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::arguments::{CommandArguments, CommandLine};
    use crate::settings::Target;

    fn estimate(words: &[&str]) -> Result<EstimateSettings> {
        let words = ["memtap", "estimate"].iter().chain(words);
        match CommandLine::try_parse_from(words)?.command {
            CommandArguments::Estimate(estimate) => estimate.settings(),
            _ => anyhow::bail!("not estimate"),
        }
    }

    #[test]
    fn targets_are_those_of_record() {
        assert_eq!(
            estimate(&["-p", "7,8"]).unwrap().record.target,
            Target::Pids(vec![7, 8])
        );
        let cgroup = estimate(&["--cgroup", "a/b"]).unwrap();
        assert_eq!(cgroup.record.target, Target::Cgroup("a/b".into()));
        assert_eq!(cgroup.target, ["--cgroup", "a/b"]);
        let command = estimate(&["-d", "2s", "--", "ls", "-l"]).unwrap();
        assert_eq!(
            command.record.target,
            Target::Command(vec!["ls".into(), "-l".into()])
        );
        assert_eq!(command.duration, Duration::from_secs(2));
        assert_eq!(command.target, ["--", "ls", "-l"]);
        for wrong in [
            &["-p", "0"][..],
            &[],
            &["-a", "-p", "7"],
            &["--comm", "a-name-that-is-too-long"],
        ] {
            assert!(estimate(wrong).is_err(), "{wrong:?}");
        }
    }
}

//! The arguments of `--sample` and `--max-overhead`.

use anyhow::{Result, bail};

use crate::cli::sizes;
use crate::report::units;
use crate::settings::{Sample, Target};

/// The argument of `--max-overhead`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Overhead {
    /// No budget.
    Off,
    /// Percent of one CPU's time.
    Percent(f64),
}

/// The budget where processes were running before memtap came: little enough for a production
/// machine.
const DEFAULT_PERCENT: f64 = 2.0;

/// The smallest budget, in percent: the single hits by which a rate is known cost more than less.
const MIN_PERCENT: f64 = 0.001;

/// The largest budget, in percent: that of as many CPUs as Linux knows (`CONFIG_NR_CPUS`).
const MAX_PERCENT: f64 = 819_200.0;

/// The least that can be sampled: one allocation per so many bytes. Figures on the kernel side are
/// made for no more.
const MAX_INTERVAL_BYTES: u64 = tracer_ebpf::sampling::INTERVAL_MAX as u64;

/// `1`, `512k`, `auto`
pub(super) fn sample(text: &str) -> Result<Sample, String> {
    if text == "auto" {
        return Ok(Sample::Auto);
    }
    match sizes::size(text)? {
        0 => Err("0 bytes are no sample interval; 1 follows every allocation".to_owned()),
        1 => Ok(Sample::Every),
        bytes if bytes > MAX_INTERVAL_BYTES => Err(format!(
            "one sample per {} is too few to tell anything; at most 1 GiB",
            units::bytes(bytes.into())
        )),
        bytes => Ok(Sample::Bytes(bytes)),
    }
}

/// `2`, `0.5`, `2%`, `off`
pub(super) fn overhead(text: &str) -> Result<Overhead, String> {
    if text == "off" {
        return Ok(Overhead::Off);
    }
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    match number.parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent < MIN_PERCENT => Err(format!(
            "{MIN_PERCENT} % of a CPU is the smallest share that can be kept to"
        )),
        Ok(percent) if percent > MAX_PERCENT && percent.is_finite() => Err(format!(
            "no tracing costs more than {MAX_PERCENT} % of a CPU; off is for no budget"
        )),
        Ok(percent) if percent > 0.0 && percent.is_finite() => Ok(Overhead::Percent(percent)),
        _ => Err(format!(
            "`{text}` is no share of a CPU's time; write 2, 0.5 or off"
        )),
    }
}

/// Returns the sample, and the budget in percent, of a target: by default every allocation of a
/// command that memtap starts itself, and as many as two percent permit of processes that run
/// already.
pub(super) fn of(
    sample: Option<Sample>,
    overhead: Option<Overhead>,
    target: &Target,
) -> Result<(Sample, Option<f64>)> {
    let is_command = matches!(target, Target::Command(_));
    let percent = match overhead {
        Some(Overhead::Off) => None,
        Some(Overhead::Percent(percent)) => Some(percent),
        // Whoever says how much is followed, and nothing of a budget, wants just that.
        None if is_command || sample.is_some_and(|sample| sample != Sample::Auto) => None,
        None => Some(DEFAULT_PERCENT),
    };
    let sample = sample.unwrap_or(if percent.is_some() {
        Sample::Auto
    } else {
        Sample::Every
    });
    match (sample, percent) {
        (Sample::Auto, None) => {
            bail!("--sample auto needs a budget to choose by: give --max-overhead PERCENT")
        }
        (sample, percent) => Ok((sample, percent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Target {
        Target::Command(vec!["ls".into()])
    }

    #[test]
    fn a_command_is_followed_whole_and_what_runs_is_spared() {
        assert_eq!(of(None, None, &command()).unwrap(), (Sample::Every, None));
        for target in [Target::All, Target::Cgroup("x".into())] {
            assert_eq!(of(None, None, &target).unwrap(), (Sample::Auto, Some(2.0)));
        }
        assert_eq!(
            of(Some(Sample::Every), None, &Target::Pids(vec![7])).unwrap(),
            (Sample::Every, None)
        );
        assert_eq!(
            of(None, Some(Overhead::Off), &Target::All).unwrap(),
            (Sample::Every, None)
        );
        assert_eq!(
            of(None, Some(Overhead::Percent(5.0)), &command()).unwrap(),
            (Sample::Auto, Some(5.0))
        );
        assert!(of(Some(Sample::Auto), Some(Overhead::Off), &Target::All).is_err());
    }

    #[test]
    fn words_are_numbers_or_names() {
        assert_eq!(sample("512k"), Ok(Sample::Bytes(512 << 10)));
        assert_eq!(sample("1"), Ok(Sample::Every));
        assert_eq!(sample("1g"), Ok(Sample::Bytes(1 << 30)));
        assert!(sample("1025m").unwrap_err().contains("at most 1 GiB"));
        assert_eq!(sample("auto"), Ok(Sample::Auto));
        assert_eq!(overhead("2%"), Ok(Overhead::Percent(2.0)));
        assert_eq!(overhead("off"), Ok(Overhead::Off));
        assert_eq!(overhead("0.001"), Ok(Overhead::Percent(0.001)));
        for wrong in ["1e-300", "0.0009", "1e300", "NaN", "inf"] {
            assert!(overhead(wrong).is_err(), "{wrong}");
        }
        for wrong in ["0", "some", "-1"] {
            assert!(sample(wrong).is_err(), "{wrong}");
            assert!(overhead(wrong).is_err(), "{wrong}");
        }
    }
}

//! The arguments on unwinding.

use std::ffi::OsString;

use clap::{Args, ValueEnum};

use crate::settings;

/// Arguments that say how stacks are walked.
#[derive(Debug, Args)]
pub(super) struct UnwindArguments {
    /// Unwinder of stacks
    #[arg(long, default_value = "auto", value_enum)]
    unwind: UnwindArgument,
    /// Stop a target for some milliseconds when it calls from code that it has just loaded, until
    /// there are unwind tables [default: auto for -- COMMAND, else never; always where no WHEN is
    /// given]
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always"
    )]
    stop_on_dlopen: Option<StopWhen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum UnwindArgument {
    /// By the files' unwind tables (`.eh_frame`), by frame pointers in code without one
    Auto,
    /// By unwind tables alone
    Dwarf,
    /// By frame pointers alone
    Fp,
}

/// Processes that may be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StopWhen {
    /// Those whose parent will not notice: with one thread, no debugger, in its parent's process
    /// group, and not of a shell that looks after jobs
    Auto,
    /// Every target; its parent may notice
    Always,
    /// None
    Never,
}

impl From<StopWhen> for settings::StopPolicy {
    fn from(when: StopWhen) -> Self {
        match when {
            StopWhen::Auto => Self::Unseen,
            StopWhen::Always => Self::Always,
            StopWhen::Never => Self::Never,
        }
    }
}

impl UnwindArguments {
    /// Returns the unwinder.
    pub(super) fn unwind(&self) -> settings::Unwind {
        match self.unwind {
            UnwindArgument::Auto => settings::Unwind::Auto,
            UnwindArgument::Dwarf => settings::Unwind::Dwarf,
            UnwindArgument::Fp => settings::Unwind::FramePointer,
        }
    }

    /// Returns the processes that are stopped while tables are made, for this command, if any.
    pub(super) fn stop_for_code(&self, command: &[OsString]) -> settings::StopPolicy {
        match self.stop_on_dlopen {
            Some(when) => when.into(),
            // What others run is not ours to stop.
            None if !command.is_empty() => settings::StopPolicy::Unseen,
            None => settings::StopPolicy::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::UnwindArguments;
    use crate::settings::StopPolicy;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        unwind: UnwindArguments,
        #[arg(last = true)]
        command: Vec<std::ffi::OsString>,
    }

    fn stop(words: &[&str]) -> Option<StopPolicy> {
        let words = std::iter::once(&"memtap").chain(words);
        let only = Only::try_parse_from(words).ok()?;
        Some(only.unwind.stop_for_code(&only.command))
    }

    #[test]
    fn who_is_stopped() {
        let option = "--stop-on-dlopen";
        assert_eq!(stop(&[]), Some(StopPolicy::Never));
        assert_eq!(stop(&["--", "ls"]), Some(StopPolicy::Unseen));
        assert_eq!(stop(&[option]), Some(StopPolicy::Always));
        assert_eq!(stop(&[option, "--", "ls"]), Some(StopPolicy::Always));
        assert_eq!(stop(&["--stop-on-dlopen=auto"]), Some(StopPolicy::Unseen));
        assert_eq!(
            stop(&["--stop-on-dlopen=never", "--", "ls"]),
            Some(StopPolicy::Never)
        );
        assert_eq!(stop(&["--stop-on-dlopen=sometimes"]), None);
    }
}

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
    stop_on_dlopen: Option<StopOnDlopen>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StopOnDlopen {
    /// Those whose parent will not notice: with one thread, no debugger, in its parent's process
    /// group
    Auto,
    /// Every target; its parent may notice
    Always,
    /// None: stacks are finished from copies, as far as there is room for these
    Never,
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
    pub(super) fn stop_for_code(&self, command: &[OsString]) -> settings::StopForCode {
        match self.stop_on_dlopen {
            Some(StopOnDlopen::Always) => settings::StopForCode::Always,
            Some(StopOnDlopen::Auto) => settings::StopForCode::Unseen,
            // What others run is not ours to stop.
            None if !command.is_empty() => settings::StopForCode::Unseen,
            Some(StopOnDlopen::Never) | None => settings::StopForCode::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::UnwindArguments;
    use crate::settings::StopForCode;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        unwind: UnwindArguments,
        #[arg(last = true)]
        command: Vec<std::ffi::OsString>,
    }

    fn stop(words: &[&str]) -> Option<StopForCode> {
        let words = std::iter::once(&"memtap").chain(words);
        let only = Only::try_parse_from(words).ok()?;
        Some(only.unwind.stop_for_code(&only.command))
    }

    #[test]
    fn who_is_stopped() {
        let option = "--stop-on-dlopen";
        assert_eq!(stop(&[]), Some(StopForCode::Never));
        assert_eq!(stop(&["--", "ls"]), Some(StopForCode::Unseen));
        assert_eq!(stop(&[option]), Some(StopForCode::Always));
        assert_eq!(stop(&[option, "--", "ls"]), Some(StopForCode::Always));
        assert_eq!(stop(&["--stop-on-dlopen=auto"]), Some(StopForCode::Unseen));
        assert_eq!(
            stop(&["--stop-on-dlopen=never", "--", "ls"]),
            Some(StopForCode::Never)
        );
        assert_eq!(stop(&["--stop-on-dlopen=sometimes"]), None);
    }
}

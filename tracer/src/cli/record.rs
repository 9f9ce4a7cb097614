//! `memtap record` and `memtap live`: from settings to files.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitCode, ExitStatus};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, getpgid, getpgrp, kill_process};

use super::outputs::OutputFiles;
use super::progress::ProgressLine;
use super::settings::RecordSettings;
use super::{allocators, announce, live, resources, terminal};
use crate::privileges;
use crate::process::exit_watch::ExitWatch;
use crate::profile::Session;
use crate::profile::session::{MapMemory, SessionSettings, Traced};
use crate::recorder::{self, Followed, Observer, Progress, Recorder, Recording, Stop};
use crate::report::source::Origin;
use crate::report::{self, ReportSource, table};
use crate::settings::{Record, StopPolicy, Target};
use crate::signals::{Ending, Endings};
use crate::{message, output};

/// Exit code with `--strict` when something was lost.
const LOST: u8 = 3;

/// The reason for an end by SIGTRAP, in a message.
const OF_A_TRAP: &str = "died of SIGTRAP: if that is not its own doing, it has copied code with a breakpoint of memtap's in it to memory \
     without a file, as programs do that have their code on huge pages (iodlr, BOLT's hugify, HHVM, ClickHouse); \
     turn that off for the recording, or attach by -p once it has done so";

/// Runs `record`, and `live`, which is a recording with another report.
pub(super) fn run(settings: &RecordSettings) -> Result<ExitCode> {
    privileges::require()?;
    resources::require()?;
    // Every output is opened before tracing starts: a wrong path is found before anything is
    // disturbed.
    let files = OutputFiles::open(&settings.report)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the event loop")?;
    let outcome = runtime.block_on(record(settings, files));
    // Where it failed, the thread that waits for the command would be waited for.
    runtime.shutdown_background();
    outcome
}

async fn record(settings: &RecordSettings, files: OutputFiles) -> Result<ExitCode> {
    let targets = watched(&settings.record.target);
    let mut recorder = Recorder::start(&settings.record)?;
    announce::start(settings, &recorder);
    let child = recorder.release()?;
    let pid = child.as_ref().map(Child::id);
    let waiting = child.map(|mut child| tokio::task::spawn_blocking(move || child.wait()));

    let began_unix_ns = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0);
    let mut reader = RecordObserver {
        settings,
        began_unix_ns,
        line: ProgressLine::new(settings.report.progress),
        has_changed: false,
    };
    let stopped = recorder
        .watch(settings.record.duration, waiting, &mut reader)
        .await?;
    reader.line.clear();
    quit_at_next_signal()?;
    let recording = recorder.collect().context("failed to read what was recorded")?;
    let session = session_of(&settings.record, &recording, began_unix_ns);
    let code = write(settings, files, &recording, &session)?;

    let status = match (stopped.status, stopped.child) {
        (Some(status), _) => Some(status),
        (None, Some(child)) => Some(see_off(stopped.why, pid, child, settings.report.quiet).await?),
        (None, None) => None,
    };
    if status.is_some_and(|status| status.signal() == Some(Signal::TRAP.as_raw())) {
        log::warn!("the command {OF_A_TRAP}");
    }
    for target in &targets {
        if target.signal() == Some(Signal::TRAP.as_raw()) {
            log::warn!("process {} {OF_A_TRAP}", target.pid());
        }
    }
    Ok(status
        .map(code_of)
        .filter(|code| *code != 0)
        .map_or(code, ExitCode::from))
}

/// The named processes, watched for what ends them. One that cannot be watched is not there: the
/// recorder says so.
fn watched(target: &Target) -> Vec<ExitWatch> {
    let Target::Pids(pids) = target else {
        return Vec::new();
    };
    pids.iter().filter_map(|pid| ExitWatch::open(*pid).ok()).collect()
}

/// Whoever sits before the terminal.
struct RecordObserver<'a> {
    settings: &'a RecordSettings,
    /// The beginning, in nanoseconds of Unix time.
    began_unix_ns: u64,
    line: ProgressLine,
    /// True if the sample has changed before.
    has_changed: bool,
}

impl Observer for RecordObserver<'_> {
    fn on_progress(&mut self, progress: &Progress) {
        self.line.show(progress);
    }

    fn on_level(&mut self, followed: &Followed) {
        self.line.clear();
        announce::level(self.settings, followed, !self.has_changed);
        self.has_changed = true;
    }

    fn report_interval(&self) -> Option<Duration> {
        self.settings.report.live?.interval
    }

    fn on_interim_report(&mut self, recording: &Recording) {
        self.line.clear();
        let session = session_of(&self.settings.record, recording, self.began_unix_ns);
        if let Err(error) = live::print(&self.settings.report, &recording.profile, &session) {
            log::warn!("{error:#}");
        }
    }
}

/// Lets the next signal end memtap at once, and memtap alone. It is waited for on a thread of its
/// own: this one is busy with names, or waits for a server of debug information.
fn quit_at_next_signal() -> Result<()> {
    const FAILED: &str = "failed to start waiting for signals";
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context(FAILED)?;
    let inside = runtime.enter();
    let mut endings = Endings::new().context(FAILED)?;
    drop(inside);
    let wait = move || {
        let ending = runtime.block_on(async {
            loop {
                let ending = endings.next().await;
                // A terminal that goes is told of by the kernel, by the shell and by sudo: to hear
                // of it twice is no impatience, and the profile is still to be written.
                if ending.signal != libc::SIGHUP {
                    break ending;
                }
            }
        });
        output::discard_unfinished();
        std::process::exit(128 + ending.signal);
    };
    std::thread::Builder::new().spawn(wait).map(drop).context(FAILED)
}

/// The time that a command may take to end until a message says that memtap waits for it.
const QUIET_END: Duration = Duration::from_secs(2);

/// Waits for a command that still runs when the recording has ended. The signal that ended the
/// recording is passed on to it.
async fn see_off(
    stop: Stop,
    pid: Option<u32>,
    mut waiting: recorder::ChildStatus,
    quiet: bool,
) -> Result<ExitStatus> {
    let process = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let mut patience = Duration::ZERO;
    if let (Stop::Signal(ending), Some(process)) = (stop, process) {
        forward_signal(ending, process);
        patience = QUIET_END;
    }
    let status = if let Ok(status) = tokio::time::timeout(patience, &mut waiting).await {
        status
    } else {
        if !quiet {
            message::say(format_args!(
                "the command (process {}) still runs; waiting for it, no longer traced",
                pid.unwrap_or_default()
            ));
        }
        waiting.await
    };
    let failed = "failed to wait for the command";
    status.context(failed)?.context(failed)
}

/// Forwards the signal that ended the recording to a command, unless it has it already: the
/// terminal sends it to a whole process group, and many programs take a second one for impatience.
/// The child has not been waited for, so the process ID is still its own.
fn forward_signal(ending: Ending, process: Pid) {
    let has_it = ending.by_terminal && getpgid(Some(process)).is_ok_and(|group| group == getpgrp());
    let Some(signal) = Signal::from_named_raw(ending.signal).filter(|_| !has_it) else {
        return;
    };
    if let Err(error) = kill_process(process, signal) {
        log::debug!("failed to forward signal {}: {error}", ending.signal);
    }
}

/// The code that a shell gives a command: its own, or 128 + N for signal N.
fn code_of(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// Writes everything that was asked for; the table where nothing was.
fn write(
    settings: &RecordSettings,
    files: OutputFiles,
    recording: &Recording,
    session: &Session,
) -> Result<ExitCode> {
    let (record, report) = (&settings.record, &settings.report);
    let view = report.view();
    let source = ReportSource {
        profile: &recording.profile,
        origin: Origin::Recording(session),
        view: &view,
    };
    let mut is_whole = files.write(report, &source, &recording.address_stacks);
    let printed = if report.live.is_some() && !report.is_piped() {
        live::print(report, &recording.profile, session)
    } else if report.table_too || report.outputs.is_empty() && report.raw.is_none() {
        terminal::print(report, |options, out| {
            table::write(&recording.profile, session, options, out)
        })
    } else {
        Ok(())
    };
    if let Err(error) = printed {
        message::fail(format_args!("{error:#}"));
        is_whole = false;
    }
    if !report.quiet
        && let Some(hint) = report::hint(&recording.profile, record.symbols.debuginfod.is_some())
    {
        message::say(format_args!("{hint}"));
    }
    if !report.quiet
        && record.stop_for_code != StopPolicy::Always
        && let Some(tables) = &recording.tables
        && let Some(hint) = report::early::hint(&recording.profile, tables)
    {
        message::say(format_args!("{hint}"));
    }
    for phrase in report::losses::phrases(&session.losses) {
        log::warn!("lost: {phrase}");
    }
    if let Some(warning) = allocators::unfollowed(&recording.profile) {
        log::warn!("{warning}");
    }
    let grew = live::judge(report, recording)?;
    Ok(
        match (is_whole, grew, report.strict && session.losses.total() > 0) {
            (false, _, _) => ExitCode::FAILURE,
            (true, true, _) => ExitCode::from(live::GREW),
            (true, false, true) => ExitCode::from(LOST),
            (true, false, false) => ExitCode::SUCCESS,
        },
    )
}

fn session_of(settings: &Record, recording: &Recording, began_unix_ns: u64) -> Session {
    let command: &[OsString] = match &settings.target {
        Target::Command(command) => command,
        _ => &[],
    };
    Session {
        began_unix_ns,
        command: command
            .iter()
            .map(|it| it.to_string_lossy().into_owned())
            .collect(),
        duration: recording.duration,
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        settings: SessionSettings {
            traced: Traced {
                heap: settings.heap,
                region: settings.region,
                live: settings.live,
                sampled: recording.profile.sample_bytes.is_some(),
            },
            sample_bytes: recording.profile.sample_bytes.unwrap_or(1),
            unwind: settings.unwind.name().to_owned(),
            scope: settings.heap.then_some(settings.probed),
            scope_at_end: settings.heap.then_some(recording.probed),
            follow: Some(settings.follow || matches!(settings.target, Target::All | Target::Cgroup(_))),
            min_size: settings.min_size,
            max_size: settings.max_size,
        },
        probes: recording.probes.clone(),
        events: recording.events,
        losses: recording.losses.clone(),
        memory: recording
            .memory
            .iter()
            .map(|(name, bytes)| MapMemory {
                name: name.clone(),
                bytes: *bytes,
            })
            .collect(),
        tables: recording.tables,
        cost: recording.cost,
    }
}

//! A command under memtap, under the shim, and alone.

use std::ffi::{OsStr, OsString};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use memtap_tests::{
    ARMS, Account, Context, Fixture, HeapFigures, Memtap, MemtapRecording, ShimImage, run, shim_images,
    without_pids,
};

/// A fixture with its arguments.
pub(crate) fn words<S: AsRef<OsStr>>(fixture: &Fixture, arguments: &[S]) -> Vec<OsString> {
    let arguments = arguments.iter().map(|argument| argument.as_ref().to_owned());
    std::iter::once(fixture.path.clone().into_os_string())
        .chain(arguments)
        .collect()
}

pub(crate) fn command(words: &[OsString]) -> Result<Command> {
    let (program, arguments) = words.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Returns what the shim saw is what the fixture's processes tell, image by image.
pub(crate) fn shim_agrees(context: &Context, words: &[OsString], code: i32) -> Result<Vec<ShimImage>> {
    let (images, finished) = shim_images(context, command(words)?)?;
    ensure!(
        finished.code() == code,
        "it ended with {} behind the shim",
        finished.code()
    );
    let accounts = Account::parse_all(&finished.stdout)?;
    let found = images
        .iter()
        .map(|image| (image.pid, image.comm.as_str(), image.figures.clone()));
    each_agrees(&accounts, &found.collect::<Vec<_>>()).context("the shim")?;
    Ok(images)
}

/// memtap's figures are what the fixture's processes tell, and what the shim sees; the fixture says
/// and ends the same without either.
pub(crate) fn memtap_agrees(context: &Context, words: &[OsString], code: i32) -> Result<MemtapRecording> {
    let images = shim_agrees(context, words, code)?;
    let mut recording = None;
    for arm in ARMS {
        let agrees = arm_agrees(context, words, code, &images, arm);
        recording = Some(agrees.with_context(|| format!("--probes {arm}"))?);
    }
    recording.context("memtap was not run")
}

fn arm_agrees(
    context: &Context,
    words: &[OsString],
    code: i32,
    images: &[ShimImage],
    arm: &str,
) -> Result<MemtapRecording> {
    let recording = recorded(context, words, code, Some(arm))?;
    let accounts = Account::parse_all(&recording.finished.stdout)?;
    let summary = recording.summary()?;
    let processes = summary.processes()?;
    let mut found = Vec::new();
    for process in &processes {
        found.push((
            process.pid,
            process.comm.as_str(),
            HeapFigures::parse(&process.totals)?,
        ));
    }
    each_agrees(&accounts, &found).context("memtap")?;
    let totals = HeapFigures::parse(&summary.json["totals"])?;
    let shim = HeapFigures::sum(images.iter().map(|image| &image.figures));
    if let Some(difference) = HeapFigures::difference(&shim, &totals.clone().without(&["peak/"])) {
        anyhow::bail!("the shim (expected) and memtap (found):\n{difference}");
    }
    let peak = (totals.get("peak/count"), totals.get("peak/bytes"));
    let expected = match (
        &found[..],
        accounts.iter().find_map(|account| account.peak_together),
    ) {
        (_, Some(together)) => Some(together),
        ([(_, _, one)], None) => Some((one.get("peak/count"), one.get("peak/bytes"))),
        _ => None,
    };
    if let Some(expected) = expected {
        ensure!(
            peak == expected,
            "the peak of all processes is {peak:?} instead of {expected:?}"
        );
    }
    let alone = run(command(words)?)?;
    ensure!(alone.code() == code, "alone it ends with {}", alone.code());
    ensure!(
        sorted(&alone.stdout) == sorted(&recording.finished.stdout),
        "its output is another alone:\n{}",
        alone.stdout
    );
    Ok(recording)
}

/// Returns what its processes reported, in whatever order.
fn sorted(stdout: &str) -> Vec<String> {
    let mut lines: Vec<_> = without_pids(stdout).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// `memtap record --live -- WORDS`, with nothing lost.
pub(crate) fn record(context: &Context, words: &[OsString], code: i32) -> Result<MemtapRecording> {
    recorded(context, words, code, None)
}

/// The same with `--probes ARM`.
pub(crate) fn recorded(
    context: &Context,
    words: &[OsString],
    code: i32,
    arm: Option<&str>,
) -> Result<MemtapRecording> {
    let probes = arm.into_iter().flat_map(|arm| ["--probes", arm]);
    let recording = Memtap::record(context)?
        .argument("--live")
        .arguments(probes)
        .command(words)
        .run()?
        .ended_with(code)?;
    recording.summary()?.lost_nothing()?;
    Ok(recording)
}

/// Every account has its image, and there is no other image that did or has anything.
fn each_agrees(accounts: &[Account], found: &[(u32, &str, HeapFigures)]) -> Result<()> {
    let mut left: Vec<_> = found
        .iter()
        .filter(|(_, _, figures)| !figures.is_empty())
        .collect();
    for account in accounts {
        let Account { pid, comm, .. } = account;
        let at = left
            .iter()
            .position(|image| image.0 == *pid && image.1 == comm)
            .with_context(|| format!("no {comm} {pid}, or too few of them, among {found:?}"))?;
        let (_, _, figures) = left.remove(at);
        if let Some(difference) = account.difference(figures)? {
            anyhow::bail!("{comm} {pid} is not what the fixture tells:\n{difference}");
        }
    }
    ensure!(left.is_empty(), "images that no fixture tells of: {left:?}");
    Ok(())
}

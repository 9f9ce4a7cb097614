//! Code that is loaded while memtap records, and allocates before its table can be there. Where
//! nothing is stopped until then, such walks are finished in user space, from copies of the stacks.

use std::time::Duration;

use anyhow::{Result, ensure};
use memtap_tests::{Context, Memtap, Need, eventually};

use super::bursts::{Bursts, is_whole};
use crate::case::{Case, case};
use crate::stacks::walked::Walked;

pub(crate) const CASES: &[Case] = &[
    case("tables::loaded_late", &[Need::Compiler], loaded_late),
    case("tables::loaded_unseen", &[Need::Compiler], loaded_unseen),
    case("tables::executed_late", &[Need::Compiler], executed_late),
];

/// A command that is not stopped for its tables.
const NEVER: &str = "--stop-on-dlopen=never";

/// Calls from late libraries, in all: the ring has room for some 400 copies.
const CALLS: usize = 200;

/// Several libraries: that the tables of all of them are made before their first calls is beyond
/// chance.
const LIBRARIES: usize = 8;

fn loaded_late(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?.argument(NEVER);
    let bursts = Bursts::new(context, memtap.directory(), LIBRARIES)?;
    let program = Bursts::program(context)?;
    let calls = (CALLS / LIBRARIES).to_string();
    let command = [program.path.as_os_str(), calls.as_ref()];
    let walked = Walked::run(bursts.of_memtap(memtap)?.command(command))?;
    let tables = is_whole(&walked, &walked.recording.reported()?)?;
    ensure!(
        tables["finished_from_copies"] > 0,
        "no walk came to code without a table: {tables:?}"
    );
    Ok(())
}

/// memtap stands still while a library is loaded and used: every one of its calls must be finished
/// from a copy.
fn loaded_unseen(context: &Context) -> Result<()> {
    unseen(context, &[NEVER], CALLS)
}

/// The same with these options, and so many calls.
pub(super) fn unseen(context: &Context, options: &[&str], calls: usize) -> Result<()> {
    let memtap = Memtap::record(context)?.arguments(options.iter().copied());
    let bursts = Bursts::new(context, memtap.directory(), 1)?.waiting();
    let program = Bursts::program(context)?;
    let words = calls.to_string();
    let command = [program.path.as_os_str(), words.as_ref()];
    let mut session = Walked::start(bursts.of_memtap(memtap)?.command(command))?;
    session.wait_until_tracing()?;
    session.signal("STOP")?;
    bursts.begin()?;
    let is_done = eventually(Duration::from_secs(20), || Ok(bursts.is_done()))?;
    session.signal("CONT")?;
    ensure!(is_done, "the program does not come to its end");
    let walked = Walked::end(session)?;
    let tables = is_whole(&walked, &walked.recording.reported()?)?;
    ensure!(
        tables["finished_from_copies"] == calls as u64,
        "{calls} walks came to code without a table: {tables:?}"
    );
    Ok(())
}

/// A shell executes what it has read: neither the program nor its library can be known before.
fn executed_late(context: &Context) -> Result<()> {
    let memtap = Memtap::record(context)?.argument(NEVER);
    let bursts = Bursts::new(context, memtap.directory(), LIBRARIES)?;
    let program = Bursts::program(context)?;
    let read = Bursts::to_be_read(&program, memtap.directory())?;
    let calls = CALLS / LIBRARIES;
    let script = format!("{read}; exec \"$program\" {calls}");
    let walked = Walked::run(bursts.of_memtap(memtap)?.command(["sh", "-c", &script]))?;
    let tables = is_whole(&walked, &walked.recording.reported()?)?;
    ensure!(
        tables["finished_from_copies"] > 0,
        "no walk came to code without a table: {tables:?}"
    );
    Ok(())
}

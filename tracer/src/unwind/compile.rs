//! An ELF file's bytes → its [`Table`].

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::thread;

use crate::elf::{Elf, ReadRef};
use crate::unwind::call_sites::prune;
use crate::unwind::cfi::{CfiPart, RuleStart};
use crate::unwind::frames::Frames;
use crate::unwind::merge::merge;
use crate::unwind::{Code, CompileStatistics, Error, Table};

/// The rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rows {
    /// Rows that return addresses can find; a fifth to a tenth of all. In code that a signal
    /// interrupted, or at a page fault, the wrong rule may be found.
    #[default]
    CallSites,
    /// All: right at every instruction.
    All,
}

/// The options of the compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileOptions {
    /// The rows of the table.
    pub rows: Rows,
    /// The number of threads that may work on one file, this one among them. Small files are not
    /// worth a second.
    pub threads: NonZeroUsize,
}

impl Default for CompileOptions {
    fn default() -> Self {
        Self {
            rows: Rows::default(),
            threads: NonZeroUsize::MIN,
        }
    }
}

/// Functions that one thread does in about a millisecond: starting a thread for fewer saves
/// nothing.
const FUNCTIONS_PER_THREAD: usize = 4096;
/// Rows that one thread prunes in about a millisecond.
const ROWS_PER_THREAD: usize = 32_768;

/// Makes the table of a file, given whole (or of an ELF image in memory, as the vdso is).
///
/// The time is linear in the size of the unwind information and of the code.
///
/// # Errors
/// Whatever [`Error`] says. Malformed parts of the unwind information are no error but counted in
/// [`Table::statistics`].
pub fn compile(data: &[u8], options: CompileOptions) -> Result<Table, Error> {
    compile_elf(&Elf::parse(data)?, options)
}

/// Does the same for a file whose headers were read.
///
/// # Errors
/// Those of [`compile()`].
pub fn compile_elf<'data, R: ReadRef<'data>>(
    elf: &Elf<'data, R>,
    options: CompileOptions,
) -> Result<Table, Error> {
    if elf.is_relocatable() {
        return Err(Error::NoCode);
    }
    let code = Code::of(elf)?;
    let frames = Frames::find(elf)?;
    let mut statistics = CompileStatistics {
        malformed: frames.malformed,
        section_bytes: frames.bytes.len() as u64,
        ..CompileStatistics::default()
    };
    let parts = shares(
        &frames.entries,
        options.threads,
        FUNCTIONS_PER_THREAD,
        |entries| CfiPart::read(&frames, &code, entries),
    );
    for part in &parts {
        statistics.add(&part.statistics);
    }
    let merged = merge(parts, &code, &mut statistics);
    let rules = merged.rules.rules();
    let rows = match options.rows {
        Rows::All => merged.rows,
        Rows::CallSites => prune_all(&merged.rows, rules, &code, options.threads),
    };
    statistics.rows_kept = rows.len() as u64;
    Ok(Table::new(&rows, rules, &code, elf, options.rows, statistics))
}

fn prune_all(
    rows: &[RuleStart],
    rules: &[crate::unwind::layout::Rule],
    code: &Code<'_>,
    threads: NonZeroUsize,
) -> Vec<RuleStart> {
    let end_of_share = |share: &[RuleStart]| {
        // Shares are slices of `rows`, sorted by address: the row after a share begins where it
        // ends.
        let last = share.last().map_or(0, |row| row.pc);
        rows.get(rows.partition_point(|row| row.pc <= last))
            .map_or(code.end(), |row| row.pc)
    };
    let mut shares = shares(rows, threads, ROWS_PER_THREAD, |share| {
        prune(share, end_of_share(share), rules, code)
    });
    let mut all = if shares.is_empty() {
        Vec::new()
    } else {
        shares.remove(0)
    };
    for share in shares {
        let repeats = all
            .last()
            .zip(share.first())
            .is_some_and(|(last, first)| last.rule == first.rule);
        all.extend(share.into_iter().skip(usize::from(repeats)));
    }
    all
}

/// Cuts `items` into equal shares of at least `least`, runs `work` on each, and returns the results
/// in order.
fn shares<T: Sync, R: Send>(
    items: &[T],
    threads: NonZeroUsize,
    least: usize,
    work: impl Fn(&[T]) -> R + Sync,
) -> Vec<R> {
    let threads = threads.get().min(items.len() / least).max(1);
    if threads == 1 {
        return vec![work(items)];
    }
    let work = &work;
    thread::scope(|scope| {
        let mut shares = items.chunks(items.len().div_ceil(threads));
        let mine = shares.next().unwrap_or_default();
        let others: Vec<_> = shares.map(|share| scope.spawn(move || work(share))).collect();
        let mut results = vec![work(mine)];
        for other in others {
            results.push(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        results
    })
}

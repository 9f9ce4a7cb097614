//! Totals of each function, below the stacks.

use std::io::{self, Write};

use tracer_ebpf::Function;

use super::TableOptions;
use super::columns::{Align, Column, Columns};
use crate::profile::{HeapTotals, Profile, Session};
use crate::report::sums::{FunctionSums, Sums};
use crate::report::units;

/// Writes the totals of what was traced.
pub(super) fn write(
    profile: &Profile,
    session: &Session,
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let sums = FunctionSums::of(profile, None);
    let heap: Vec<(Function, Sums)> = sums.heap().collect();
    if session.settings.traced.heap && !heap.is_empty() {
        let mut columns = counts("FUNCTION", &heap, options);
        columns.push_fixed(figures("BYTES", &heap, |_, it| Some(it.bytes)));
        let margins = heap
            .iter()
            .map(|(_, it)| units::margin_percent(it.bytes, it.variances.bytes));
        columns.extend(super::margin_column(margins));
        columns.push_fixed(figures("AVG", &heap, |_, it| {
            // Failed calls add no bytes, and are not part of the average.
            it.bytes.checked_div(it.calls - it.failed.min(it.calls))
        }));
        push_failed(&mut columns, &heap);
        write_block(&columns, heap.len(), options, out)?;
        if let Some(held) = &profile.held {
            write_frees(held, &sums.heap_total(), session, options, out)?;
        }
    }
    if session.settings.traced.region {
        let regions =
            [Function::Mmap, Function::Munmap, Function::Mremap, Function::Brk].map(|it| (it, sums.get(it)));
        let mut columns = counts("ADDRESS SPACE", &regions, options);
        columns.push_fixed(figures("MAPPED", &regions, mapped));
        columns.push_fixed(figures("UNMAPPED", &regions, unmapped));
        push_failed(&mut columns, &regions);
        write_block(&columns, regions.len(), options, out)?;
    }
    Ok(())
}

/// Writes what was freed.
fn write_frees(
    held: &HeapTotals,
    total: &Sums,
    session: &Session,
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut columns = Columns::new(options.charset);
    columns.push_fixed(Column::new("GIVEN BACK", Align::Left, ["free".to_owned()]));
    let mut push = |name, cell: String| columns.push_fixed(Column::new(name, Align::Right, [cell]));
    push("CALLS", units::group(held.free_calls.into()));
    push("BLOCKS", units::group(total.freed));
    push("BYTES", units::bytes(total.freed_bytes));
    // Of a sample it is not known.
    if !session.settings.traced.sampled {
        push("UNMATCHED", units::group(held.unmatched.into()));
    }
    write_block(&columns, 1, options, out)
}

/// Bytes that calls added to the address space: of `mremap` the new sizes, of `brk` growth.
fn mapped(function: Function, sums: &Sums) -> Option<u128> {
    match function {
        Function::Munmap => None,
        _ => Some(sums.bytes),
    }
}

/// Bytes that calls took from the address space: of `mremap` the old sizes, of `brk` what it shrank
/// by.
fn unmapped(function: Function, sums: &Sums) -> Option<u128> {
    match function {
        Function::Munmap => Some(sums.bytes),
        Function::Mremap | Function::Brk => Some(sums.bytes_out),
        _ => None,
    }
}

/// Names and calls.
fn counts(name: &'static str, rows: &[(Function, Sums)], options: &TableOptions<'_>) -> Columns {
    let mut columns = Columns::new(options.charset);
    let names = rows.iter().map(|(function, _)| function.name().to_owned());
    columns.push_fixed(Column::new(name, Align::Left, names));
    let calls = rows.iter().map(|(_, sums)| units::group(sums.calls));
    columns.push_fixed(Column::new("CALLS", Align::Right, calls));
    columns
}

/// A column of bytes.
fn figures(
    name: &'static str,
    rows: &[(Function, Sums)],
    bytes: impl Fn(Function, &Sums) -> Option<u128>,
) -> Column {
    let cells = rows
        .iter()
        .map(|(function, sums)| bytes(*function, sums).map_or(units::NONE.to_owned(), units::bytes));
    Column::new(name, Align::Right, cells)
}

/// Failed calls, if there were any.
fn push_failed(columns: &mut Columns, rows: &[(Function, Sums)]) {
    if rows.iter().any(|(_, sums)| sums.failed > 0) {
        let cells = rows.iter().map(|(_, sums)| units::group(sums.failed));
        columns.push_fixed(Column::new("FAILED", Align::Right, cells));
    }
}

/// An empty line, the header, the rows.
fn write_block(
    columns: &Columns,
    rows: usize,
    options: &TableOptions<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out)?;
    columns.write_header("", options.colours, out)?;
    for row in 0..rows {
        columns.write_row(row, "", out)?;
    }
    Ok(())
}

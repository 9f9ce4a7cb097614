//! From the functions of a file to the probes on it.

use std::path::Path;
use std::sync::Arc;

use iced_x86::{Decoder, DecoderOptions, FlowControl};
use tracer_ebpf::{CodeRange, Function, MAX_CODE_RANGES, ProbeSite, Shape};

use super::elf::{self, ElfError, Placed, Symbols};
use super::functions::{C_FAMILY, GLIBC_MARK, LIBC_MARK, Row, Tail};
use super::place::{arguments, places, shape_at};
use crate::target::files::MappedFile;

/// A probe to be attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedProbe {
    /// What calls count as.
    pub function: Function,
    /// The symbol.
    pub symbol: &'static str,
    /// Which program serves it.
    pub shape: Shape,
    /// What the function itself is given: a probe further on may be served by another program.
    pub called: Shape,
    /// The address in the file of the function's first instruction.
    pub address: u64,
    /// Bytes from there to the probe.
    pub offset: u64,
    /// Where in the file.
    pub file_offset: u64,
    /// What the kernel side must know of it.
    pub site: ProbeSite,
    /// Whether the kernel must single-step the instruction there, which makes a hit much dearer.
    pub single_stepped: bool,
    /// Other places for it, the best first, should another tracer hold that one.
    pub others: Vec<PlannedProbe>,
}

/// A file that has an allocator, and the probes that trace it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The file.
    pub file: Arc<MappedFile>,
    /// The probes, in the order of the table of functions.
    pub probes: Vec<PlannedProbe>,
}

/// What a file is to us.
#[derive(Debug, Clone)]
pub enum Found {
    /// It has an allocator.
    Allocator(Plan),
    /// It is a statically linked program without symbols: it may have one that cannot be found.
    StaticWithoutSymbols,
    /// It has none.
    Nothing,
}

/// Looks for an allocator in a file: a libc's, shared or linked into a program.
pub fn examine(file: &Arc<MappedFile>) -> Result<Found, ElfError> {
    let mut names: Vec<&str> = C_FAMILY.iter().map(|row| row.symbol).collect();
    names.extend([LIBC_MARK, GLIBC_MARK]);
    let symbols = elf::find_functions(&file.open_path(), &file.path, &names)?;
    if !symbols.functions.contains_key("malloc") || !symbols.functions.contains_key(LIBC_MARK) {
        let is_static = symbols.interpreter.is_none() && !symbols.has_symbols;
        return Ok(if is_static {
            Found::StaticWithoutSymbols
        } else {
            Found::Nothing
        });
    }
    Ok(Found::Allocator(Plan {
        file: Arc::clone(file),
        probes: probes(&symbols),
    }))
}

fn probes(symbols: &Symbols) -> Vec<PlannedProbe> {
    let mut found: Vec<(&Row, Placed)> = Vec::new();
    for row in C_FAMILY {
        let Some(placed) = symbols.functions.get(row.symbol) else {
            continue;
        };
        // One address has one probe: the first name in the table's order stands for it.
        if found.iter().all(|(_, other)| other.address != placed.address) {
            found.push((row, *placed));
        }
    }
    let jumps_on = |row: &Row, placed: &Placed| {
        let code = symbols.code.get(&placed.address).map_or(&[][..], Vec::as_slice);
        row.tail != Tail::Never && may_jump_on(code, placed, &found)
    };
    let any_jumps_on = found.iter().any(|(row, placed)| jumps_on(row, placed));
    found
        .iter()
        .filter_map(|(row, placed)| {
            let mut tail = 0;
            if jumps_on(row, placed) {
                tail |= ProbeSite::TAIL_MAKES;
                if row.tail == Tail::Always {
                    tail |= ProbeSite::TAIL_MAKES_WITH_BLOCK;
                }
            }
            if any_jumps_on
                && matches!(
                    row.function,
                    Function::Malloc | Function::Realloc | Function::Free
                )
            {
                tail |= ProbeSite::TAIL_TAKES;
            }
            if symbols.functions.contains_key(GLIBC_MARK) {
                tail |= ProbeSite::GLIBC_CHUNKS;
            }
            let code = symbols.code.get(&placed.address).map_or(&[][..], Vec::as_slice);
            let is_array = row.shape == Shape::ResizeArray;
            let mut at = places(code, arguments(row.shape), is_array)
                .into_iter()
                .filter_map(|place| {
                    let shape = shape_at(row.shape, &place)?;
                    let mut site = site(
                        row.function,
                        placed,
                        place.offset,
                        tail,
                        &found,
                        &symbols.own_calls,
                    );
                    site.pushed_bytes = place.pushed_bytes;
                    Some(PlannedProbe {
                        function: row.function,
                        symbol: row.symbol,
                        shape,
                        called: row.shape,
                        address: placed.address,
                        offset: place.offset,
                        file_offset: placed.file_offset + place.offset,
                        site,
                        single_stepped: place.single_stepped,
                        others: Vec::new(),
                    })
                });
            let best = at.next();
            let others = at.collect();
            best.map(|best| PlannedProbe { others, ..best })
        })
        .collect()
}

/// The site's callers, as distances from the probe: every other function's code, and calls that the library makes for
/// itself elsewhere (glibc frees what it kept for a thread that ends).
fn site(
    function: Function,
    placed: &Placed,
    offset: u64,
    tail: u32,
    found: &[(&Row, Placed)],
    own_calls: &[(u64, u64)],
) -> ProbeSite {
    let probe = placed.address + offset;
    let distance = |address: u64| address.wrapping_sub(probe).cast_signed();
    let mut callers = [CodeRange::default(); MAX_CODE_RANGES];
    let mut len = 1;
    for (_, other) in found {
        if other.address == placed.address || other.len == 0 || len >= MAX_CODE_RANGES {
            continue;
        }
        let start = distance(other.address);
        // A call that is the last instruction of a function returns to just past its end.
        callers[len] = CodeRange {
            start: start + 1,
            end: start.saturating_add_unsigned(other.len + 1),
        };
        len += 1;
    }
    let elsewhere = own_calls
        .iter()
        .filter(|(target, _)| *target == placed.address)
        .map(|(_, next)| distance(*next));
    for next in elsewhere {
        let is_known = callers[1..len]
            .iter()
            .any(|range| range.start <= next && next < range.end);
        if !is_known && len < MAX_CODE_RANGES {
            callers[len] = CodeRange {
                start: next,
                end: next + 1,
            };
            len += 1;
        }
    }
    let used = &callers[1..len];
    callers[0] = CodeRange {
        start: used.iter().map(|range| range.start).min().unwrap_or(0),
        end: used.iter().map(|range| range.end).max().unwrap_or(0),
    };
    ProbeSite {
        function: function.number(),
        callers_len: u32::try_from(len).unwrap_or(0),
        tail,
        pushed_bytes: 0,
        callers,
    }
}

/// Whether the code has a jump to one of the functions, or one whose target it does not tell.
fn may_jump_on(code: &[u8], placed: &Placed, found: &[(&Row, Placed)]) -> bool {
    let end = placed.address.saturating_add(placed.len);
    let inside = |target: u64| placed.address <= target && target < end;
    let starts_one = |target: u64| found.iter().any(|(_, other)| other.address == target);
    let decoder = Decoder::with_ip(64, code, placed.address, DecoderOptions::NONE);
    decoder
        .into_iter()
        .any(|instruction| match instruction.flow_control() {
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                let target = instruction.near_branch_target();
                // A jump that leaves the function may go through a linkage table.
                starts_one(target) || !inside(target)
            }
            // Through a linkage table's own entry; jump tables are in registers.
            FlowControl::IndirectBranch => instruction.is_ip_rel_memory_operand(),
            _ => false,
        })
}

/// The name of a file for messages: its last part.
#[must_use]
pub fn short_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(address: u64, len: u64) -> Placed {
        Placed {
            address,
            len,
            file_offset: address,
        }
    }

    fn symbols(functions: &[(&str, Placed, &[u8])]) -> Symbols {
        let mut symbols = Symbols::default();
        for (name, placed, code) in functions {
            symbols.functions.insert((*name).to_owned(), *placed);
            symbols.code.insert(placed.address, code.to_vec());
        }
        symbols
    }

    #[test]
    fn one_address_has_one_probe_named_by_the_first_name() {
        let shared = placed(0x1000, 4);
        let symbols = symbols(&[("memalign", shared, &[0x55]), ("aligned_alloc", shared, &[0x55])]);
        let probes = probes(&symbols);
        assert_eq!(probes.len(), 1);
        assert_eq!(probes[0].symbol, "aligned_alloc");
        assert!(!probes[0].single_stepped);
    }

    #[test]
    fn jump_from_realloc_to_malloc_marks_both() {
        // realloc at 0x1010 is `jmp 0x1000`
        let symbols = symbols(&[
            ("malloc", placed(0x1000, 4), &[0x48, 0x85, 0xff, 0xc3]),
            ("realloc", placed(0x1010, 5), &[0xe9, 0xeb, 0xff, 0xff, 0xff]),
        ]);
        let probes = probes(&symbols);
        assert_eq!(probes[0].site.tail, ProbeSite::TAIL_TAKES);
        assert!(probes[0].single_stepped, "test rdi, rdi");
        assert_eq!(probes[1].site.tail, ProbeSite::TAIL_TAKES | ProbeSite::TAIL_MAKES);
        let caller = probes[0].site.callers[1];
        assert_eq!((caller.start, caller.end), (0x11, 0x16));
        assert_eq!(probes[0].site.callers[0], caller);
    }

    #[test]
    fn without_jumps_nothing_is_marked() {
        let symbols = symbols(&[
            ("malloc", placed(0x1000, 1), &[0xc3]),
            ("realloc", placed(0x1010, 1), &[0xc3]),
        ]);
        assert!(probes(&symbols).iter().all(|probe| probe.site.tail == 0));
    }
}

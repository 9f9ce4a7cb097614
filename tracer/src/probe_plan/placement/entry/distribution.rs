//! The allocators of the distribution: no function of theirs needs a probe that the kernel must
//! single-step.

use std::path::{Path, PathBuf};

use tracer_ebpf::{Operand, Operands};

use super::{ProbePlace, operands, places};
use crate::probe_plan::dataflow::AbstractState;
use crate::probe_plan::detect::functions::{FunctionTable, Throws};
use crate::probe_plan::detect::symbols;
use crate::probe_plan::roles::Roles;

/// The bytes below the CFA at a function's first instruction: those of the return address.
const RETURN_ADDRESS_BYTES: u32 = 8;

/// The packages, their libraries, and a function that each must have.
const LIBRARIES: [(&str, &str, &str); 5] = [
    ("libc6", "libc.so.6", "reallocarray"),
    ("libjemalloc2", "libjemalloc.so.2", "mallocx"),
    ("libtcmalloc-minimal4", "libtcmalloc_minimal.so.4", "tc_malloc"),
    ("libmimalloc2.0", "libmimalloc.so.2", "mi_malloc"),
    ("musl", "ld-musl-x86_64.so.1", "reallocarray"),
];

/// The directories of libraries: Debian's, the older ones, others' (`/lib64`).
const FOLDERS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/lib",
    "/usr/lib64",
    "/usr/lib",
];

fn library(name: &str) -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

#[test]
#[expect(clippy::print_stdout, reason = "the table is the point")]
fn no_function_of_the_distribution_is_single_stepped() {
    let table = FunctionTable::default();
    let wanted = |name: &str| table.has(name);
    let mut stepped = Vec::new();
    for (package, name, must_have) in LIBRARIES {
        let path = library(name)
            .unwrap_or_else(|| panic!("there is no {name} on this machine: install the package {package}"));
        let file = std::fs::File::open(&path).expect("readable");
        let symbols = symbols::find_functions(&file, &path, &wanted, &[], None).expect("an ELF file");
        assert!(symbols.functions.contains_key(must_have), "{name}");
        println!("{name} ({package})");
        for row in table.rows() {
            let symbol = &row.symbol;
            let Some(placed) = symbols.functions.get(symbol) else {
                continue;
            };
            let all = places(&symbols.code, placed.address, placed.len, &row.roles);
            let cheap = all.iter().filter(|place| !place.single_stepped);
            let cheap: Vec<String> = cheap.map(|place| shown(place, &row.roles)).collect();
            println!("  {symbol:<36} {}", cheap.join("  "));
            // The best place serves a return probe too, where there is to be one.
            if row.throws == Throws::Never {
                assert_eq!(
                    all[0].operands.cfa_bytes, RETURN_ADDRESS_BYTES,
                    "{name}: {symbol}"
                );
            }
            if all[0].single_stepped {
                stepped.push(format!("{name}: {symbol} at {:#x}", placed.address));
            }
        }
    }
    assert!(stepped.is_empty(), "single-stepped: {stepped:#?}");
}

/// A place as the table shows it: `+0x7`, with the bytes pushed before it, and the values that were
/// moved.
fn shown(place: &ProbePlace, roles: &Roles) -> String {
    let pushed = match place.operands.cfa_bytes - RETURN_ADDRESS_BYTES {
        0 => String::new(),
        bytes => format!(" (pushed {bytes})"),
    };
    let first = operands(&AbstractState::at_entry(None, &[]), roles).expect("all are in registers");
    let values = |operands: &Operands| {
        [
            ("size", operands.size),
            ("factor", operands.factor),
            ("high", operands.high),
            ("block", operands.block),
            ("out", operands.out),
            ("alignment", operands.alignment),
        ]
    };
    let here = values(&place.operands).into_iter().zip(values(&first));
    let moved: Vec<String> = here
        .filter(|((_, here), (_, first))| here != first)
        .map(|((name, here), _)| format!(" {name} {}", name_of(here)))
        .collect();
    format!("+{:#x}{pushed}{}", place.offset, moved.concat())
}

fn name_of(operand: Operand) -> String {
    const NAMES: [&str; 8] = ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"];
    let bits = operand.bits();
    if bits & Operand::REGISTER == 0 {
        return format!("{bits:#x}");
    }
    let number = (bits & 15) as usize;
    NAMES
        .get(number)
        .map_or(format!("r{number}"), ToString::to_string)
}

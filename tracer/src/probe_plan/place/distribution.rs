//! The allocators of the distribution: no function of theirs needs a probe that the kernel must single-step.

use std::path::{Path, PathBuf};

use super::{Arguments, Place, Shape, arguments, places, shape_at};
use crate::probe_plan::elf;
use crate::probe_plan::functions::{Table, Throws};
use iced_x86::Register;

/// The packages, their libraries, and a function that each must have.
const LIBRARIES: [(&str, &str, &str); 5] = [
    ("libc6", "libc.so.6", "reallocarray"),
    ("libjemalloc2", "libjemalloc.so.2", "mallocx"),
    ("libtcmalloc-minimal4", "libtcmalloc_minimal.so.4", "tc_malloc"),
    ("libmimalloc2.0", "libmimalloc.so.2", "mi_malloc"),
    ("musl", "ld-musl-x86_64.so.1", "reallocarray"),
];

/// Where libraries are: Debian's folder, the older ones, others' (`/lib64`).
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
    let table = Table::default();
    let wanted = |name: &str| table.has(name);
    let mut stepped = Vec::new();
    let mut without_program = Vec::new();
    for (package, name, must_have) in LIBRARIES {
        let path = library(name)
            .unwrap_or_else(|| panic!("there is no {name} on this machine: install the package {package}"));
        let symbols = elf::find_functions(&path, &path, &wanted, &[], None).expect("an ELF file");
        assert!(symbols.functions.contains_key(must_have), "{name}");
        println!("{name} ({package})");
        for row in table.rows() {
            let symbol = &row.symbol;
            let Some(placed) = symbols.functions.get(symbol) else {
                continue;
            };
            let arguments = arguments(row.shape);
            let code = &symbols.code[&placed.address];
            let all = places(code, arguments, row.shape == Shape::ResizeArray);
            let cheap = all.iter().filter(|place| !place.single_stepped);
            let cheap: Vec<String> = cheap.map(|place| shown(place, arguments)).collect();
            println!("  {symbol:<36} {}", cheap.join("  "));
            // The best place serves a return probe too, where there is to be one.
            if row.throws == Throws::Never {
                assert_eq!(all[0].pushed_bytes, 0, "{name}: {symbol}");
            }
            if shape_at(row.shape, &all[0]).is_none() {
                without_program.push(format!("{name}: {symbol}"));
            }
            if all[0].single_stepped {
                stepped.push(format!("{name}: {symbol} at {:#x}", placed.address));
            }
        }
    }
    assert!(stepped.is_empty(), "single-stepped: {stepped:#?}");
    // What is traced now is read there by a program.
    assert!(
        without_program.is_empty(),
        "no program reads the arguments: {without_program:#?}"
    );
}

/// A place as the table shows it: `+0x7`, with the bytes pushed before it, and where the arguments are if they were moved.
fn shown(place: &Place, arguments: &[Register]) -> String {
    let pushed = match place.pushed_bytes {
        0 => String::new(),
        bytes => format!(" (pushed {bytes})"),
    };
    let moved = match &place.arguments {
        Arguments::Apart(registers) if registers == arguments => String::new(),
        Arguments::Apart(registers) => format!(" {registers:?}"),
        Arguments::Multiplied(registers) => format!(" {registers:?} and the product"),
    };
    format!("+{:#x}{pushed}{moved}", place.offset)
}

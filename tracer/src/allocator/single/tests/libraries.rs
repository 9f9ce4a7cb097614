//! The allocators that this machine has. What can be planned in them depends on their builds; what is planned is proven.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::allocator::elf;
use crate::allocator::functions::C_FAMILY;
use crate::allocator::single::{Image, Kind, plan};

/// A library's allocator functions, each with its sites or why there are none.
fn verdicts(path: &Path) -> Vec<(&'static str, Result<Vec<Kind>, String>)> {
    let names: Vec<&str> = C_FAMILY.iter().map(|row| row.symbol).collect();
    let symbols = elf::find_functions(path, path, &names).expect("an ELF file");
    let image = Image::read(path).expect("an image");
    let mut verdicts = Vec::new();
    for row in C_FAMILY {
        let Some(placed) = symbols.functions.get(row.symbol) else {
            continue;
        };
        let others: HashSet<u64> = symbols
            .functions
            .values()
            .map(|other| other.address)
            .filter(|address| *address != placed.address)
            .collect();
        let started = std::time::Instant::now();
        let planned = plan(&image, placed.address, row.shape, &others);
        let took = started.elapsed();
        println!(
            "  {} at {:#x}, {} bytes ({took:.1?}):",
            row.symbol, placed.address, placed.len
        );
        match &planned {
            Ok(sites) => {
                for site in sites {
                    let stepped = if site.stepped { ", single-stepped" } else { "" };
                    println!(
                        "    {:?} at +{:#x}{stepped}: {:x?}",
                        site.kind,
                        site.address.wrapping_sub(placed.address).cast_signed(),
                        site.site
                    );
                }
            }
            Err(reason) => println!("    entry and return: {reason}"),
        }
        let kinds = planned.map(|sites| sites.iter().map(|site| site.kind).collect());
        verdicts.push((row.symbol, kinds.map_err(|reason| reason.to_string())));
    }
    verdicts
}

#[test]
fn allocators_of_this_machine() {
    let own_libc = crate::target::maps::executable_mappings(std::process::id())
        .expect("readable")
        .into_iter()
        .map(|mapping| mapping.path)
        .find(|path| path.to_string_lossy().contains("libc.so"));
    let folder = Path::new("/usr/lib/x86_64-linux-gnu");
    let libraries = [
        own_libc,
        Some(PathBuf::from("/lib/ld-musl-x86_64.so.1")),
        Some(folder.join("libjemalloc.so.2")),
        Some(folder.join("libtcmalloc_minimal.so.4")),
        Some(folder.join("libmimalloc.so.2")),
    ];
    for path in libraries.into_iter().flatten() {
        if path.exists() {
            println!("{}", path.display());
            let verdicts = verdicts(&path);
            assert!(verdicts.iter().any(|(symbol, _)| *symbol == "malloc"));
        } else {
            println!("{}: not on this machine", path.display());
        }
    }
}

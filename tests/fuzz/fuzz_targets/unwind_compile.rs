//! Any bytes: a sound table or an error, never a panic. `cargo test` does the same to damaged real
//! files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use memtap::unwind::layout::PAGE_SHIFT;
use memtap::unwind::{
    Arena, Capacity, CompileOptions, FoundTable, PcKind, Reach, Registers, Rows, StackCopy, TableImage, compile, walk,
};

fuzz_target!(|data: &[u8]| {
    for rows in [Rows::All, Rows::CallSites] {
        let Ok(table) = compile(data, CompileOptions { rows, ..CompileOptions::default() }) else { continue };
        let capacity = Capacity { row_chunks: 64, pages: table.page_count(), rules: 1 << 16 };
        let mut image = TableImage::new(capacity);
        if let Ok(inserted) = Arena::new(capacity).insert(&table) {
            image.apply(&inserted.delta);
            let placement = inserted.placement;
            for relative in (0..u64::from(table.page_count()) << PAGE_SHIFT).step_by(61) {
                let found = image.rule_at(placement.page_base(), placement.page_count(), relative);
                assert_eq!(found, table.rule_at(relative));
            }
        }
        // The file's own bytes as a stack, so that the fuzzer chooses what is on it.
        let find = |relative, _| FoundTable::In { table: &table, relative };
        let registers = Registers { pc: 0, pc_kind: PcKind::Exact, sp: 0, bp: Some(64) };
        let reach = Reach { max_frames: 127, frame_pointers: true };
        walk(registers, &StackCopy { base: 0, bytes: data }, find, &mut Vec::new(), reach);
    }
});

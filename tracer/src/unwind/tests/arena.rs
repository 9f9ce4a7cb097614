//! Tables in the kernel's arrays.

use super::{CODE, Cfi, TestElf, cfa_offset};
use crate::unwind::layout::{CHUNK_ROWS, PAGE_BYTES, PageEntry, Rule, row};
use crate::unwind::{Arena, ArenaFull, Capacity, CompileOptions, Inserted, Rows, Table, TableImage, compile};

const CAPACITY: Capacity = Capacity {
    row_chunks: 2,
    pages: 64,
    rules: 40,
};

/// A table of some pages, whose rules begin with these offsets.
fn table(pages: u32, offset: u8) -> Table {
    let mut cfi = Cfi::eh_frame("zR");
    for page in 0..pages {
        let address = CODE + u64::from(page * PAGE_BYTES);
        cfi.fde(
            address,
            PAGE_BYTES,
            &[&cfa_offset(offset)[..], &[0x42], &cfa_offset(offset + 8)].concat(),
        );
    }
    let code = vec![0x90; (pages * PAGE_BYTES) as usize];
    let options = CompileOptions {
        rows: Rows::All,
        ..CompileOptions::default()
    };
    compile(&TestElf::new(&code, cfi).bytes(), options).unwrap()
}

/// Asserts that the kernel finds what the table has.
fn assert_same(image: &TableImage, inserted: &Inserted, table: &Table) {
    let (base, count) = (inserted.placement.page_base(), inserted.placement.page_count());
    for relative in (0..u64::from(table.page_count() * PAGE_BYTES)).chain([u64::MAX]) {
        assert_eq!(
            image.rule_at(base, count, relative),
            table.rule_at(relative),
            "{relative:#x}"
        );
    }
}

#[test]
fn the_kernel_finds_what_the_tables_have() {
    let mut arena = Arena::new(CAPACITY);
    let mut image = TableImage::new(CAPACITY);
    let (first, second, third) = (table(3, 8), table(5, 16), table(4, 64));
    let one = arena.insert(&first).unwrap();
    image.apply(&one.delta);
    let two = arena.insert(&second).unwrap();
    image.apply(&two.delta);
    assert_same(&image, &one, &first);
    assert_same(&image, &two, &second);

    // Two of the rules of each are shared: no information, and rsp + 16.
    let usage = arena.usage();
    assert_eq!(
        (usage.rows, usage.pages, usage.rules),
        (first.row_count() + second.row_count(), 8, 4)
    );
    assert_eq!(usage.bytes(), first.image_bytes() + second.image_bytes() + 4 * 16);
    assert_eq!(one.placement.bytes(), first.image_bytes());

    // What the first gave back, the third takes, as far as it goes.
    arena.remove(one.placement);
    let three = arena.insert(&third).unwrap();
    image.apply(&three.delta);
    assert_eq!(three.delta.rows.len(), 2);
    assert_eq!(three.delta.rows[0].at, 0);
    assert_same(&image, &two, &second);
    assert_same(&image, &three, &third);

    arena.remove(three.placement);
    arena.remove(two.placement);
    let usage = arena.usage();
    assert_eq!((usage.rows, usage.pages, usage.rules), (0, 0, 1));
    let again = arena.insert(&first).unwrap();
    assert_eq!(
        (
            again.placement.page_base(),
            again.delta.rows[0].at,
            again.delta.rows.len()
        ),
        (0, 0, 1)
    );
}

#[test]
fn a_full_arena_changes_nothing() {
    let first = table(3, 8);
    let full = |capacity: Capacity| {
        let mut arena = Arena::new(capacity);
        let before = arena.usage();
        let error = arena.insert(&first).unwrap_err();
        assert_eq!(arena.usage(), before);
        error
    };
    assert_eq!(
        full(Capacity {
            row_chunks: 0,
            ..CAPACITY
        }),
        ArenaFull::Rows { needed: 6, free: 0 }
    );
    assert_eq!(
        full(Capacity { pages: 2, ..CAPACITY }),
        ArenaFull::Pages {
            needed: 3,
            longest: 2
        }
    );
    assert_eq!(
        full(Capacity { rules: 2, ..CAPACITY }),
        ArenaFull::Rules { needed: 2, free: 1 }
    );
}

#[test]
fn pages_do_not_straddle_chunks() {
    // A row for each of the first bytes: some pages of them leave a rest of a chunk that is too
    // small.
    let mut cfi = Cfi::eh_frame("zR");
    let mut instructions = Vec::new();
    for row in 0..900u16 {
        let [offset, ..] = (row % 2 * 8).to_le_bytes();
        instructions.extend([0x0e, 8 + offset, 0x41]);
    }
    cfi.fde(CODE, 0x1000, &instructions);
    let code = vec![0x90; 0x1000];
    let options = CompileOptions {
        rows: Rows::All,
        ..CompileOptions::default()
    };
    let table = compile(&TestElf::new(&code, cfi).bytes(), options).unwrap();
    assert_eq!(table.row_count(), 900);

    let mut arena = Arena::new(CAPACITY);
    let mut image = TableImage::new(CAPACITY);
    let inserted: Vec<_> = std::iter::from_fn(|| arena.insert(&table).ok()).collect();
    assert_eq!(inserted.len(), 36, "18 of 900 rows in each chunk of 16,384");
    for one in &inserted {
        image.apply(&one.delta);
    }
    for one in &inserted {
        for page in &one.delta.pages.values {
            let last = page.first() + table.row_count() - 1;
            assert_eq!(page.first() / CHUNK_ROWS, last / CHUNK_ROWS);
        }
        assert_same(&image, one, &table);
    }
    for one in inserted {
        arena.remove(one.placement);
    }
    assert_eq!(arena.usage().rows, 0);
    assert_eq!(image.rule_at(0, 0, 0), None);
    // A page without rows is not in use.
    assert_eq!(
        TableImage::new(CAPACITY).rule_at(0, 1, 0),
        Some(Rule::NO_INFO),
        "zeroed arrays know nothing"
    );
}

/// Asserts that at each offset the part of the page that is searched has the row that the whole
/// page has, and is no longer than the offset's quarter asks for.
fn assert_parts(offsets: &[u32]) {
    const FIRST: u32 = 1000;
    let rows: Vec<u32> = (0..).zip(offsets).map(|(rule, at)| row(*at, rule)).collect();
    let entry = PageEntry::new(FIRST, &rows);
    assert_eq!(entry.first(), FIRST);
    for offset in 0..PAGE_BYTES {
        let (first, count) = entry.part(offset);
        let range = (first - FIRST) as usize..(first - FIRST + count) as usize;
        let wanted = offsets.partition_point(|at| *at <= offset) - 1;
        assert!(
            range.contains(&wanted),
            "{offset:#x}: {wanted} is not in {range:?}"
        );
        if rows.len() <= 255 {
            let quarter = offset / (PAGE_BYTES / 4);
            let inside = offsets.iter().filter(|at| **at / (PAGE_BYTES / 4) == quarter);
            assert!(range.len() <= inside.count() + 1, "{offset:#x}: {range:?}");
        }
    }
}

#[test]
fn a_quarter_of_a_page_has_its_rows_and_the_one_before() {
    assert_parts(&[0]);
    assert_parts(&[0, 0x3fff]);
    assert_parts(&[0, 0xfff, 0x1000, 0x1001, 0x3000]);
    assert_parts(&[0, 1, 2, 0x2fff]);
    let many =
        |count: u32, start: u32| -> Vec<u32> { std::iter::once(0).chain(start..start + count - 1).collect() };
    for count in [254, 255, 256, 257] {
        for start in [1, 0xf80, 0x1000, 0x3f00 - 1] {
            assert_parts(&many(count, start));
        }
    }
    assert_parts(&many(PAGE_BYTES, 1));
}

//! Damaged files: whatever the bytes, there is a sound table or an error, soon.

use std::time::{Duration, Instant};

use super::{CODE, Cfi, TestElf, UNDEFINED_RETURN, cfa_offset};
use crate::unwind::layout::{CHUNK_ROWS, PAGE_SHIFT, row_offset, row_rule};
use crate::unwind::{
    Arena, Capacity, CompileOptions, FoundTable, PcKind, Reach, Registers, Rows, StackCopy, Table,
    TableImage, compile, walk,
};

/// Of each part of a file; some 8,000 in all.
const ROUNDS: u64 = 1000;
/// For one small file, in a debug build on a busy machine.
const LIMIT: Duration = Duration::from_secs(5);

/// xorshift64* (Marsaglia, Vigna): the same files every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// Compiles both ways and asserts what must hold of any table.
fn exercise(data: &[u8]) -> bool {
    let mut is_sound = false;
    for rows in [Rows::All, Rows::CallSites] {
        let threads = std::num::NonZeroUsize::MIN;
        if let Ok(table) = compile(data, CompileOptions { rows, threads }) {
            assert_sound(&table);
            is_sound = true;
        }
    }
    is_sound
}

fn assert_sound(table: &Table) {
    let mut rows = 0;
    for page in (0..).map_while(|page| table.page(page)) {
        assert_eq!(row_offset(page[0]), 0);
        assert!(page.is_sorted_by(|a, b| row_offset(*a) < row_offset(*b)));
        assert!(
            page.iter()
                .all(|row| (row_rule(*row) as usize) < table.rules().len())
        );
        rows += page.len();
    }
    assert_eq!(rows, table.row_count() as usize);
    let end = u64::from(table.page_count()) << PAGE_SHIFT;
    assert_eq!(table.rule_at(end), None);

    let rules = u32::try_from(table.rules().len()).unwrap();
    let row_chunks = table.row_count() / CHUNK_ROWS + 2;
    let capacity = Capacity {
        row_chunks,
        pages: table.page_count(),
        rules,
    };
    let mut arena = Arena::new(capacity);
    if let Ok(inserted) = arena.insert(table) {
        let mut image = TableImage::new(capacity);
        image.apply(&inserted.delta);
        let placement = &inserted.placement;
        for relative in (0..end).step_by(61) {
            let found = image.rule_at(placement.page_base(), placement.page_count(), relative);
            assert_eq!(found, table.rule_at(relative));
        }
        arena.remove(inserted.placement);
        assert_eq!(arena.usage().rows, 0);
    }
    // A stack on which every word is an address in the code.
    let words: Vec<u8> = (0..512u64)
        .flat_map(|word| (word * 0x9e5 % end.max(1)).to_le_bytes())
        .collect();
    let registers = Registers {
        pc: end / 2,
        pc_kind: PcKind::Exact,
        sp: 0,
        bp: Some(64),
    };
    let mut frames = Vec::new();
    let find = |relative, _| FoundTable::In { table, relative };
    let walk = walk(
        registers,
        &StackCopy {
            base: 0,
            bytes: &words,
        },
        find,
        &mut frames,
        Reach {
            max_frames: 127,
            frame_pointers: true,
        },
    );
    assert!(frames.len() <= 127, "{walk:?}");
}

/// Damages a file in the given range, `ROUNDS` times. Returns how many damaged files still had a
/// table.
fn mutate(name: &str, sound: &[u8], from: usize, to: usize) -> u64 {
    assert!(exercise(sound), "{name} is sound");
    let mut random = Random(0x6d65_6d74_6170);
    let mut still_sound = 0;
    for round in 0..ROUNDS {
        let mut file = sound.to_vec();
        for _ in 0..=random.below(8) {
            let at = from + random.below(to - from);
            match random.below(4) {
                0 => file[at] ^= 1 << random.below(8),
                1 => file[at] = 0xff,
                2 => file[at] = 0,
                _ => file[at] = random.next().to_le_bytes()[0],
            }
        }
        if random.below(16) == 0 {
            file.truncate(from + random.below(to - from));
        }
        let start = Instant::now();
        still_sound += u64::from(exercise(&file));
        assert!(
            start.elapsed() < LIMIT,
            "{name}, round {round}: {:?}",
            start.elapsed()
        );
    }
    assert!(
        still_sound > 0,
        "{name}: every damage was noticed, so the tables were never tried"
    );
    still_sound
}

fn hand_made(section: Option<&'static str>) -> Vec<u8> {
    let mut cfi = Cfi::eh_frame("zRS");
    cfi.fde(CODE + 0x10, 9, &[0x10, 16, 3, 0x77, 0xa8, 0x01]);
    cfi.cie("zR", &super::INITIAL);
    let mut offsets = Vec::new();
    for function in 0..24 {
        offsets.push(i32::try_from(cfi.bytes.len()).unwrap());
        let body = [
            &cfa_offset(16)[..],
            &[0x41, 0x86, 2, 0x0a, 0x44, 0x0d, 6, 0x48, 0x0b],
        ]
        .concat();
        cfi.fde(CODE + 0x40 + function * 0x80, 0x70, &body);
    }
    cfi.fde(
        CODE + 0xd00,
        0x40,
        &[
            0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22,
        ],
    );
    cfi.fde(CODE + 0xd40, 0x40, &UNDEFINED_RETURN);
    offsets.truncate(13);
    let code: Vec<u8> = (0..0x2000u32)
        .map(|at| if at % 97 == 0 { 0xff } else { 0xd0 })
        .collect();
    TestElf {
        section,
        header: Some(offsets),
        ..TestElf::new(&code, cfi)
    }
    .bytes()
}

#[test]
fn damaged_headers_and_entries() {
    for section in [Some(".eh_frame"), None] {
        let file = hand_made(section);
        assert!(mutate("headers", &file, 0, 0xe8) < ROUNDS);
        assert!(mutate("entries", &file, 0x180, 0x800) < ROUNDS);
        // Where section headers are broken, the program header serves.
        let end = file.len();
        assert_eq!(mutate("section headers", &file, end - 0xd0, end), ROUNDS);
    }
}

#[test]
fn a_damaged_program() {
    let Some(file) = super::differential::read("/bin/true") else {
        return;
    };
    let end = file.len();
    mutate("/bin/true", &file, 0, end);
    // Where its headers are.
    assert!(mutate("headers of /bin/true", &file, 0, 0x400) < ROUNDS);
}

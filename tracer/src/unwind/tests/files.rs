//! Finding unwind information in files, and refusing files.

use super::compile::{ALL, rules, sp};
use super::{CODE, Cfi, TestElf, cfa_offset};
use crate::elf;
use crate::unwind::layout::Rule;
use crate::unwind::{Error, compile};

#[test]
fn section_headers_are_not_needed() {
    let mut cfi = Cfi::eh_frame("zR");
    let first = i32::try_from(cfi.bytes.len()).unwrap();
    cfi.fde(CODE, 0x10, &[]);
    let second = i32::try_from(cfi.bytes.len()).unwrap();
    cfi.fde(CODE + 0x10, 0x10, &cfa_offset(16));
    let mut elf = TestElf {
        section: None,
        ..TestElf::new(&[0x90; 0x40], cfi)
    };
    assert_eq!(compile(&elf.bytes(), ALL).unwrap_err(), Error::NoUnwindInfo);
    for table in [vec![], vec![first, second], vec![second, first, first, 3]] {
        elf.header = Some(table);
        let table = compile(&elf.bytes(), ALL).unwrap();
        assert_eq!(rules(&table, [0, 0x10, 0x20]), [sp(8), sp(16), Rule::NO_INFO]);
    }
}

#[test]
fn debug_frame_serves_where_it_is_all() {
    let mut cfi = Cfi::debug_frame();
    cfi.fde(CODE, 0x10, &cfa_offset(16));
    let mut elf = TestElf::new(&[0x90; 0x40], cfi);
    assert_eq!(
        rules(&compile(&elf.bytes(), ALL).unwrap(), [0, 0x10]),
        [sp(16), Rule::NO_INFO]
    );
    let plain = elf.frames.clone();
    elf.flags = 0x800;
    elf.frames = zlib(1, plain.len(), &plain);
    assert_eq!(
        rules(&compile(&elf.bytes(), ALL).unwrap(), [0, 0x10]),
        [sp(16), Rule::NO_INFO]
    );
    for broken in [
        zlib(2, plain.len(), &plain),
        zlib(1, 1 << 40, &plain),
        zlib(1, plain.len() + 1, &plain),
        vec![1],
    ] {
        elf.frames = broken;
        assert_eq!(
            compile(&elf.bytes(), ALL).unwrap_err(),
            elf::ElfError::Compression.into()
        );
    }
}

/// `Elf64_Chdr`, and a zlib stream (RFC 1950) of one stored block.
fn zlib(kind: u32, size: usize, plain: &[u8]) -> Vec<u8> {
    let (a, b) = plain.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    let len = u16::try_from(plain.len()).unwrap();
    let header = [kind.to_le_bytes(), [0; 4]].concat();
    let sizes = [size as u64, 1].map(u64::to_le_bytes).concat();
    let block = [&[0x78, 1, 1][..], &len.to_le_bytes(), &(!len).to_le_bytes()].concat();
    [
        header,
        sizes,
        block,
        plain.to_vec(),
        ((b << 16) | a).to_be_bytes().to_vec(),
    ]
    .concat()
}

#[test]
fn other_files_are_refused() {
    let mut cfi = Cfi::eh_frame("zR");
    cfi.fde(CODE, 0x10, &[]);
    let mut elf = TestElf::new(&[0x90; 0x40], cfi);
    let sound = elf.bytes();
    let with = |at: usize, value: u8| {
        let mut file = sound.clone();
        file[at] = value;
        compile(&file, ALL).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(0, b'#'), elf::ElfError::NotElf.into());
    assert_eq!(
        compile(&sound[..19], ALL).unwrap_err(),
        elf::ElfError::NotElf.into()
    );
    assert_eq!(
        with(4, 1),
        elf::ElfError::Architecture {
            machine: 62,
            class: 1,
            encoding: 1
        }
        .into()
    );
    assert_eq!(
        with(5, 2),
        elf::ElfError::Architecture {
            machine: 62,
            class: 2,
            encoding: 2
        }
        .into()
    );
    assert_eq!(
        with(18, 183),
        elf::ElfError::Architecture {
            machine: 183,
            class: 2,
            encoding: 1
        }
        .into()
    );
    assert_eq!(with(16, 1), Error::NoCode, "not linked");
    assert_eq!(with(36, 0xff), elf::ElfError::ProgramHeaders.into());
    elf.code.clear();
    assert_eq!(compile(&elf.bytes(), ALL).unwrap_err(), Error::NoCode);
    let empty = TestElf {
        frames: vec![0; 4],
        ..TestElf::new(&[0x90; 0x40], Cfi::eh_frame("zR"))
    };
    assert_eq!(compile(&empty.bytes(), ALL).unwrap_err(), Error::NoUnwindInfo);
}

#[test]
fn mappings_have_their_bias() {
    let mut cfi = Cfi::eh_frame("zR");
    cfi.fde(CODE, 0x10, &[]);
    let table = compile(&TestElf::new(&[0x90; 0x2040], cfi).bytes(), ALL).unwrap();
    assert_eq!(table.bias(0x7f00_0000_1000, 0x1000), Some(0x7f00_0000_1000));
    assert_eq!(
        table.bias(0x7f00_0000_2000, 0x2000),
        Some(0x7f00_0000_1000),
        "a mapping that was split"
    );
    assert_eq!(table.bias(0x7f00_0000_0000, 0), None, "headers are not code");
}

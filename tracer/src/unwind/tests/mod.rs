//! Tests of the module as a whole, and the hand-made ELF files that they use.

mod arena;
mod compile;
mod differential;
mod files;
mod live;
mod mutation;
mod oracle;
mod walk;

/// The place of the code of hand-made files, in the file and in memory.
pub(super) const CODE: u64 = 0x1000;
/// The place of their unwind information.
pub(super) const FRAMES: u64 = 0x200;

/// `DW_CFA_advance_loc`, less than 64 bytes.
pub(super) const fn advance(bytes: u8) -> u8 {
    0x40 | bytes
}
/// `DW_CFA_def_cfa_offset`, less than 128 bytes.
pub(super) const fn cfa_offset(bytes: u8) -> [u8; 2] {
    [0x0e, bytes]
}
/// `DW_CFA_offset rbp, CFA − 16`.
pub(super) const SAVE_RBP: [u8; 2] = [0x86, 2];
/// `DW_CFA_def_cfa_register rbp`.
pub(super) const CFA_IS_RBP: [u8; 2] = [0x0d, 6];
/// `DW_CFA_undefined rip`.
pub(super) const UNDEFINED_RETURN: [u8; 2] = [0x07, 16];
/// `DW_CFA_def_cfa rsp, 8; DW_CFA_offset rip, CFA − 8`.
pub(super) const INITIAL: [u8; 5] = [0x0c, 7, 8, 0x90, 1];

/// Writes call frame information.
pub(super) struct Cfi {
    pub(super) bytes: Vec<u8>,
    debug_frame: bool,
    cie: u32,
}

impl Cfi {
    /// `.eh_frame`, with a CIE of this augmentation (`zR`, `zRS`).
    pub(super) fn eh_frame(augmentation: &str) -> Self {
        let mut cfi = Self {
            bytes: Vec::new(),
            debug_frame: false,
            cie: 0,
        };
        cfi.cie(augmentation, &INITIAL);
        cfi
    }

    pub(super) fn debug_frame() -> Self {
        let mut cfi = Self {
            bytes: Vec::new(),
            debug_frame: true,
            cie: 0,
        };
        cfi.cie("", &INITIAL);
        cfi
    }

    /// Adds a CIE, which the FDEs after it use.
    pub(super) fn cie(&mut self, augmentation: &str, instructions: &[u8]) {
        self.cie = self.at();
        let mut body = if self.debug_frame {
            vec![0xff; 4]
        } else {
            vec![0; 4]
        };
        body.push(1);
        body.extend(augmentation.bytes());
        // End of the string; code alignment 1, data alignment −8, return address column 16.
        body.extend([0, 1, 0x78, 16]);
        if augmentation.starts_with('z') {
            // One byte: pointers are relative to themselves, 4 bytes, signed.
            body.extend([1, 0x1b]);
        }
        body.extend(instructions);
        self.entry(body);
    }

    /// Adds an FDE for `len` bytes at `address`.
    pub(super) fn fde(&mut self, address: u64, len: u32, instructions: &[u8]) {
        let at = self.at();
        let mut body = Vec::new();
        if self.debug_frame {
            body.extend(self.cie.to_le_bytes());
            body.extend(address.to_le_bytes());
            body.extend(u64::from(len).to_le_bytes());
        } else {
            body.extend((at + 4 - self.cie).to_le_bytes());
            let field = FRAMES + u64::from(at) + 8;
            body.extend(
                i32::try_from(address.cast_signed() - field.cast_signed())
                    .unwrap()
                    .to_le_bytes(),
            );
            body.extend(len.to_le_bytes());
            body.push(0);
        }
        body.extend(instructions);
        self.entry(body);
    }

    fn at(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap()
    }

    fn entry(&mut self, mut body: Vec<u8>) {
        body.resize(body.len().next_multiple_of(4), 0);
        self.bytes
            .extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        self.bytes.extend(body);
    }
}

/// A hand-made ELF file: code at [`CODE`], unwind information at [`FRAMES`].
pub(super) struct TestElf {
    pub(super) code: Vec<u8>,
    pub(super) frames: Vec<u8>,
    /// Of the unwind information's section; `None` leaves all section headers away.
    pub(super) section: Option<&'static str>,
    /// Flags of that section.
    pub(super) flags: u64,
    /// Returns true if a program header names `.eh_frame_hdr`, and the offsets of the FDEs in its
    /// table.
    pub(super) header: Option<Vec<i32>>,
    /// `e_machine`.
    pub(super) machine: u16,
}

impl TestElf {
    pub(super) fn new(code: &[u8], frames: Cfi) -> Self {
        let section = Some(if frames.debug_frame {
            ".debug_frame"
        } else {
            ".eh_frame"
        });
        Self {
            code: code.to_vec(),
            frames: frames.bytes,
            section,
            flags: 2,
            header: None,
            machine: 62,
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let programs = 3u16;
        let names = format!("\0.names\0{}\0", self.section.unwrap_or_default());
        let names_at = CODE + self.code.len() as u64;
        let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
        let mut file = Vec::new();
        file.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        file.extend([3u16, self.machine].map(u16::to_le_bytes).concat());
        file.extend(1u32.to_le_bytes());
        let sections = if self.section.is_some() {
            (sections_at, 3u16, 1u16)
        } else {
            (0, 0, 0)
        };
        file.extend([0u64, 64, sections.0].map(u64::to_le_bytes).concat());
        file.extend(0u32.to_le_bytes());
        file.extend(
            [64u16, 56, programs, 64, sections.1, sections.2]
                .map(u16::to_le_bytes)
                .concat(),
        );

        let header = self
            .header
            .as_ref()
            .map(|offsets| search_header(offsets))
            .unwrap_or_default();
        let header_at = FRAMES - 0x80;
        let code_len = self.code.len() as u64;
        program(&mut file, 1, 4, 0, FRAMES + self.frames.len() as u64);
        program(&mut file, 1, 5, CODE, code_len);
        let kind = if self.header.is_some() { 0x6474_e550 } else { 0 };
        program(&mut file, kind, 4, header_at, header.len() as u64);

        file.resize(usize::try_from(header_at).unwrap(), 0);
        file.extend(header);
        file.resize(usize::try_from(FRAMES).unwrap(), 0);
        file.extend(&self.frames);
        assert!(file.len() as u64 <= CODE, "too much unwind information");
        file.resize(usize::try_from(CODE).unwrap(), 0);
        file.extend(&self.code);
        if self.section.is_some() {
            file.extend(names.as_bytes());
            file.resize(usize::try_from(sections_at).unwrap(), 0);
            section(&mut file, [0; 4], [0; 4]);
            section(&mut file, [1, 3, 0, 0], [0, names_at, names.len() as u64, 1]);
            section(
                &mut file,
                [8, 1, self.flags, 0],
                [FRAMES, FRAMES, self.frames.len() as u64, 8],
            );
        }
        file
    }
}

fn program(file: &mut Vec<u8>, kind: u32, flags: u32, at: u64, len: u64) {
    file.extend([kind, flags].map(u32::to_le_bytes).concat());
    file.extend([at, at, at, len, len, 0x1000].map(u64::to_le_bytes).concat());
}

fn section(file: &mut Vec<u8>, [name, kind, flags, _]: [u64; 4], [address, offset, size, align]: [u64; 4]) {
    file.extend(
        [name, kind]
            .map(|value| u32::try_from(value).unwrap().to_le_bytes())
            .concat(),
    );
    file.extend([flags, address, offset, size].map(u64::to_le_bytes).concat());
    file.extend([0u32, 0].map(u32::to_le_bytes).concat());
    file.extend([align, 0].map(u64::to_le_bytes).concat());
}

/// `.eh_frame_hdr`: all pointers 4 bytes, signed, relative to the header itself.
fn search_header(fde_offsets: &[i32]) -> Vec<u8> {
    // Version 1; the pointer to `.eh_frame` relative to itself, the count absolute, the table
    // relative to the header.
    let mut header = vec![1, 0x1b, 0x03, 0x3b];
    header.extend((0x80i32 - 4).to_le_bytes());
    header.extend(u32::try_from(fde_offsets.len()).unwrap().to_le_bytes());
    for offset in fde_offsets {
        header.extend(0i32.to_le_bytes());
        header.extend((0x80 + offset).to_le_bytes());
    }
    header
}

//! gimli's own answers on addresses.

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, RegisterRule, UnwindContext,
    UnwindSection,
};
use object::{Object, ObjectSection};

use crate::unwind::layout::{Rule, cfa, rbp};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// gimli's view of a file.
pub(super) struct Oracle<'a> {
    frames: EhFrame<Slice<'a>>,
    header: gimli::ParsedEhFrameHdr<Slice<'a>>,
    bases: BaseAddresses,
    context: UnwindContext<usize>,
}

/// gimli's answer on an address, as far as a table has to give the same.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    End,
    /// CFA = register + offset, and rbp's rule.
    Plain {
        register: u16,
        offset: i64,
        rbp: Saved,
    },
    /// An expression, a signal frame, or a return address elsewhere.
    Other,
}

/// The place of the caller's `rbp`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Saved {
    Not,
    AtCfa(i64),
    AtRbp(i64),
    Elsewhere,
}

impl<'a> Oracle<'a> {
    pub(super) fn new(file: &object::File<'a>) -> Option<Self> {
        let (eh_frame, header) = (
            file.section_by_name(".eh_frame")?,
            file.section_by_name(".eh_frame_hdr")?,
        );
        let bases = BaseAddresses::default()
            .set_eh_frame(eh_frame.address())
            .set_eh_frame_hdr(header.address());
        let parsed = EhFrameHdr::new(header.data().unwrap(), LittleEndian)
            .parse(&bases, 8)
            .unwrap();
        let frames = EhFrame::new(eh_frame.data().unwrap(), LittleEndian);
        Some(Self {
            frames,
            header: parsed,
            bases,
            context: UnwindContext::new(),
        })
    }

    /// Every function: (first address, length, whether it is marked as a signal trampoline).
    pub(super) fn functions(&self) -> Vec<(u64, u64, bool)> {
        let table = self.header.table().unwrap();
        let fdes = table.iter(&self.bases).map(|pair| {
            let offset = table.pointer_to_offset(pair.unwrap().1).unwrap();
            let fde = self
                .frames
                .fde_from_offset(&self.bases, offset, EhFrame::cie_from_offset)
                .unwrap();
            (fde.initial_address(), fde.len(), fde.is_signal_trampoline())
        });
        fdes.collect()
    }

    /// Returns the first addresses of the rows of the function at an address.
    pub(super) fn row_starts(&mut self, address: u64) -> Vec<u64> {
        let table = self.header.table().unwrap();
        let cie = EhFrame::cie_from_offset;
        let fde = table
            .fde_for_address(&self.frames, &self.bases, address, cie)
            .unwrap();
        let mut rows = fde.rows(&self.frames, &self.bases, &mut self.context).unwrap();
        std::iter::from_fn(|| rows.next_row().unwrap().map(gimli::UnwindTableRow::start_address)).collect()
    }

    pub(super) fn at(&mut self, address: u64) -> Answer {
        let table = self.header.table().unwrap();
        let cie = EhFrame::cie_from_offset;
        let Ok(row) =
            table.unwind_info_for_address(&self.frames, &self.bases, &mut self.context, address, cie)
        else {
            return Answer::Nothing;
        };
        match (row.register(gimli::X86_64::RA), row.cfa()) {
            (Some(RegisterRule::Undefined), _) => Answer::End,
            (Some(RegisterRule::Offset(-8)), CfaRule::RegisterAndOffset { register, offset }) => {
                Answer::Plain {
                    register: register.0,
                    offset: *offset,
                    rbp: match row.register(gimli::X86_64::RBP) {
                        None | Some(RegisterRule::SameValue) => Saved::Not,
                        Some(RegisterRule::Offset(offset)) => Saved::AtCfa(offset),
                        Some(RegisterRule::Expression(at)) => {
                            match at.get(&self.frames).unwrap().0.slice() {
                                // DW_OP_breg6 and a number of 7 bits.
                                [0x76, offset @ ..=0x7f] => {
                                    Saved::AtRbp(i64::from((offset << 1).cast_signed() >> 1))
                                }
                                _ => Saved::Elsewhere,
                            }
                        }
                        Some(_) => Saved::Elsewhere,
                    },
                }
            }
            _ => Answer::Other,
        }
    }
}

/// Returns true if a table's rule says what gimli says.
pub(super) fn agrees(answer: &Answer, rule: Rule) -> bool {
    match answer {
        Answer::Nothing => true,
        Answer::End => rule == Rule::END,
        Answer::Plain {
            register,
            offset,
            rbp: saved,
        } => {
            let kind = match register {
                7 => cfa::SP,
                6 => cfa::BP,
                _ => return rule == Rule::UNSUPPORTED,
            };
            let rbp = match saved {
                Saved::Not => (rbp::SAME, 0),
                Saved::AtCfa(at) => (rbp::AT_CFA, *at),
                Saved::AtRbp(at) if kind == cfa::BP => (rbp::AT_CFA, at - offset),
                Saved::AtRbp(at) => (rbp::AT_RBP, *at),
                Saved::Elsewhere => (rbp::LOST, 0),
            };
            let found = (
                rule.cfa_kind,
                i64::from(rule.cfa_offset),
                rule.rbp_kind,
                i64::from(rule.rbp_offset),
            );
            found == (kind, *offset, rbp.0, rbp.1)
        }
        Answer::Other => !matches!(rule.cfa_kind, cfa::SP | cfa::BP | cfa::END | cfa::NO_INFO),
    }
}

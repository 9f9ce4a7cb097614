//! The walk of a stack, step by step as the kernel side takes it, over a copy of the stack.
//!
//! It finishes what the kernel could not, and is what the kernel side is tested against.

use crate::unwind::layout::{
    FRAME_POINTER_REACH_BYTES, Rule, UCONTEXT_RBP, UCONTEXT_RIP, UCONTEXT_RSP, cfa, rbp,
};
use crate::unwind::{Rows, Table};

/// The kind of an address in code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PcKind {
    /// A return address: the frame is looked up one byte before it, inside the call.
    ReturnAddress,
    /// An instruction that has not run yet: where a probe or a signal interrupted.
    Exact,
}

/// The state of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registers {
    /// The address in code.
    pub pc: u64,
    /// The kind of that address.
    pub pc_kind: PcKind,
    /// The stack pointer.
    pub sp: u64,
    /// `rbp`, where it is known.
    pub bp: Option<u64>,
}

/// The bytes of a stack, from `base` upwards.
#[derive(Debug, Clone, Copy)]
pub struct StackCopy<'a> {
    /// The address of the first byte.
    pub base: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl StackCopy<'_> {
    /// The 8 bytes at an address, at any alignment; `None` where not all of them were copied.
    #[must_use]
    pub fn read(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.base)?).ok()?;
        self.bytes
            .get(offset..)?
            .first_chunk()
            .map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// The unwind information of an address in code.
#[derive(Debug, Clone, Copy)]
pub enum FoundTable<'t> {
    /// The address is in a mapping of a file that has a table; `relative` is the address less
    /// [`Table::bias`].
    In {
        /// The file's table.
        table: &'t Table,
        /// The address that the table knows.
        relative: u64,
    },
    /// The address is in a mapping without a table: code made at run time, or a file without unwind
    /// information.
    NoTable,
    /// The address is in no known mapping.
    Unmapped,
}

/// The end of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalkEnd {
    /// The outermost frame: its rule says so.
    Complete,
    /// A return address of 0: in code without an end mark, that is the outermost frame too.
    ZeroReturn,
    /// More frames than are wanted.
    Truncated,
    /// An address is in no known mapping.
    Unmapped,
    /// An address is in a mapping without a table, and the frame pointer leads nowhere.
    NoTable,
    /// An address is in a gap of a table, and the frame pointer leads nowhere.
    NoRow,
    /// A function's unwind information is of a kind that rules cannot express.
    Unsupported,
    /// A rule needs `rbp`, which an inner frame's rule could not find.
    RbpLost,
    /// The stack could not be read: the copy ends before.
    ReadFault,
    /// The next frame would be this one, or lie inside it.
    NoProgress,
}

/// The result of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// Its end.
    pub end: WalkEnd,
    /// The frame that it ended in: from here it could go on.
    pub last: Registers,
    /// Steps that were taken by the frame pointer for want of a table.
    pub frame_pointer_steps: u32,
    /// True if a frame that a signal or a probe interrupted was looked up in a table of call sites
    /// alone: the frames after it may be wrong.
    pub is_inexact: bool,
}

/// The extent and the means of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The walk ends with so many frames.
    pub max_frames: usize,
    /// True if code without a table is walked by frame pointers.
    pub frame_pointers: bool,
}

/// Walks from `registers` outwards, and appends an address to `frames` for every caller found,
/// until there are as many as the reach allows. The frame of `registers` itself is the caller's to
/// append. Of a signal's frame, it is the interrupted instruction.
pub fn walk<'t>(
    registers: Registers,
    stack: &StackCopy<'_>,
    find: impl Fn(u64, PcKind) -> FoundTable<'t>,
    frames: &mut Vec<u64>,
    reach: Reach,
) -> Walk {
    let mut walk = Walk {
        end: WalkEnd::Truncated,
        last: registers,
        frame_pointer_steps: 0,
        is_inexact: false,
    };
    while frames.len() < reach.max_frames {
        match walk.step(stack, &find, reach.frame_pointers) {
            Ok(caller) => {
                frames.push(caller.pc);
                walk.last = caller;
            }
            Err(end) => {
                walk.end = end;
                break;
            }
        }
    }
    walk
}

impl Walk {
    fn step<'t>(
        &mut self,
        stack: &StackCopy<'_>,
        find: impl Fn(u64, PcKind) -> FoundTable<'t>,
        frame_pointers: bool,
    ) -> Result<Registers, WalkEnd> {
        let frame = self.last;
        let pc = frame
            .pc
            .wrapping_sub(u64::from(frame.pc_kind == PcKind::ReturnAddress));
        let (rule, nowhere) = match find(pc, frame.pc_kind) {
            FoundTable::Unmapped => return Err(WalkEnd::Unmapped),
            FoundTable::NoTable => (Rule::NO_INFO, WalkEnd::NoTable),
            FoundTable::In { table, relative } => {
                self.is_inexact |= frame.pc_kind == PcKind::Exact && table.kind() == Rows::CallSites;
                table
                    .rule_at(relative)
                    .map_or((Rule::NO_INFO, WalkEnd::NoTable), |rule| (rule, WalkEnd::NoRow))
            }
        };
        let rule = if rule.cfa_kind == cfa::NO_INFO {
            if frame.bp == Some(0) && nowhere == WalkEnd::NoRow {
                // The ABI marks the outermost frame so (System V AMD64, 3.4.1).
                return Err(WalkEnd::Complete);
            }
            let rule = frame_pointer_rule(&frame).filter(|_| frame_pointers);
            let rule = rule.ok_or(nowhere)?;
            // The frame pointer may not be the interrupted function's own yet.
            self.is_inexact |= frame.pc_kind == PcKind::Exact;
            self.frame_pointer_steps += 1;
            rule
        } else {
            rule
        };
        caller(&frame, pc, rule, stack)
    }
}

/// The rule of `push %rbp; mov %rsp, %rbp`, where `rbp` looks like a frame pointer.
fn frame_pointer_rule(frame: &Registers) -> Option<Rule> {
    let bp = frame.bp.filter(|bp| bp % 8 == 0)?;
    (bp.wrapping_sub(frame.sp) <= FRAME_POINTER_REACH_BYTES).then_some(Rule {
        cfa_offset: 16,
        rbp_kind: rbp::AT_CFA,
        rbp_offset: -16,
        ..Rule::of_kind(cfa::BP)
    })
}

/// The caller of a frame, by its rule. `pc` is the address that the rule was found with.
fn caller(frame: &Registers, pc: u64, rule: Rule, stack: &StackCopy<'_>) -> Result<Registers, WalkEnd> {
    let read = |address: u64| stack.read(address).ok_or(WalkEnd::ReadFault);
    let bp = || frame.bp.ok_or(WalkEnd::RbpLost);
    let sp = frame.sp;
    let plus = |base: u64, offset: i32| base.wrapping_add_signed(i64::from(offset));
    let frame_address = match rule.cfa_kind {
        cfa::SP => plus(sp, rule.cfa_offset),
        cfa::BP => plus(bp()?, rule.cfa_offset),
        cfa::PLT => {
            let is_pushed = i64::from(rule.cfa_add) <= i64::from(pc.to_le_bytes()[0] & 15);
            plus(sp, rule.cfa_offset).wrapping_add(u64::from(is_pushed) * 8)
        }
        cfa::DEREF_SP => plus(read(plus(sp, rule.cfa_offset))?, rule.cfa_add),
        cfa::DEREF_BP => plus(read(plus(bp()?, rule.cfa_offset))?, rule.cfa_add),
        cfa::SIGNAL => {
            let saved = |offset: u64| read(sp.wrapping_add(offset));
            let interrupted = Registers {
                bp: Some(saved(UCONTEXT_RBP)?),
                sp: saved(UCONTEXT_RSP)?,
                pc: saved(UCONTEXT_RIP)?,
                pc_kind: PcKind::Exact,
            };
            return if interrupted.pc == 0 {
                Err(WalkEnd::ZeroReturn)
            } else {
                Ok(interrupted)
            };
        }
        cfa::END => return Err(WalkEnd::Complete),
        _ => return Err(WalkEnd::Unsupported),
    };
    // What the code has kept may lead to another stack.
    let may_be_elsewhere = rule.cfa_kind != cfa::SP && rule.cfa_kind != cfa::PLT;
    if frame_address == sp || (frame_address < sp && !may_be_elsewhere) {
        return Err(WalkEnd::NoProgress);
    }
    let pc = read(frame_address.wrapping_sub(8))?;
    let bp = match rule.rbp_kind {
        rbp::SAME => frame.bp,
        rbp::AT_CFA => Some(read(plus(frame_address, rule.rbp_offset))?),
        rbp::AT_RBP => Some(read(plus(bp()?, rule.rbp_offset))?),
        _ => None,
    };
    if pc == 0 {
        return Err(WalkEnd::ZeroReturn);
    }
    Ok(Registers {
        pc,
        pc_kind: PcKind::ReturnAddress,
        sp: frame_address,
        bp,
    })
}

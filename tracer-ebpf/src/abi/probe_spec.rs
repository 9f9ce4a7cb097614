//! The description of a probe: where its values are, and what its function is.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{CodeRange, MAX_CODE_RANGES};

/// Where a value is at a probed instruction: in a register, in a slot of the stack, zero, or
/// nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Operand(u32);

impl Operand {
    /// There is no such value.
    pub const NONE: Self = Self(0);
    /// The value is 0.
    pub const ZERO: Self = Self(1 << 9);

    /// Set in the operand of a register, whose number is in the lowest four bits.
    pub const REGISTER: u32 = 1 << 8;
    /// Set in the operand of a slot, whose distance is in the lowest sixteen bits.
    pub const SLOT: u32 = 1 << 16;
    /// The bits of a slot's distance.
    pub const SLOT_BYTES: u32 = Self::SLOT - 1;

    /// The register of this number in the encoding of instructions: `rax` 0, `rcx` 1, `rdx` 2,
    /// `rbx` 3, `rsp` 4, `rbp` 5, `rsi` 6, `rdi` 7, and those from `r8` on by their numbers.
    #[must_use]
    pub const fn register(number: u8) -> Self {
        Self(Self::REGISTER | (number as u32 & 15))
    }

    /// The eight bytes that begin so many bytes below the CFA. `None` for a distance of 0 or of
    /// more than 16 bits.
    #[must_use]
    pub const fn slot(bytes_below: u32) -> Option<Self> {
        if bytes_below == 0 || bytes_below > Self::SLOT_BYTES {
            return None;
        }
        Some(Self(Self::SLOT | bytes_below))
    }

    /// Whether there is no such value.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The bits: one of [`REGISTER`](Self::REGISTER), [`SLOT`](Self::SLOT) and
    /// [`ZERO`](Self::ZERO), with its number.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// The places of a call's values at a probed instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Operands {
    /// Bytes from the stack pointer up to the CFA, the stack pointer before the call: the return
    /// address is in the eight bytes below the CFA. 8 at a function's first instruction.
    pub cfa_bytes: u32,
    /// Bytes asked for; with `factor`, the last factor of them.
    pub size: Operand,
    /// The other factor of the bytes asked for, where the product is yet to be made.
    pub factor: Operand,
    /// The high half of the product in `size`, or whatever else is 0 unless it overflows.
    pub high: Operand,
    /// The block to be resized or given back.
    pub block: Operand,
    /// The address that the block's address is written to (`posix_memalign`).
    pub out: Operand,
    /// The alignment asked for: above what `malloc` gives, the call does not go on as a tail call
    /// to it.
    pub alignment: Operand,
    /// The address of the block that was made, or 0.
    pub result: Operand,
    /// The caller's frame pointer.
    pub frame_pointer: Operand,
}

/// The description of a probe. The upper half of the probe's cookie is its index, but for the
/// highest bit, which is a [`ProbeScope`](crate::ProbeScope)'s; the lower half is the index of its
/// hits' counter in [`HitCounts::by_site`](crate::HitCounts::by_site), which all probes of a
/// function share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ProbeSpec {
    /// Where its values are.
    pub operands: Operands,
    /// A [`Function`](crate::Function)'s number.
    pub function: u32,
    /// The constants below, combined.
    pub flags: u32,
    /// How many of `callers` are used.
    pub callers_len: u32,
    /// Its index, which the kernel side hands on to functions that look it up again.
    pub index: u32,
    /// Unused.
    pub reserved: u32,
    /// Bytes from the instruction that `callers` are told from, to this one: 0 where it is this
    /// one.
    pub caller_distance: i64,
    /// Code of the same object that calls this function for its own work: that of allocator
    /// functions, and of what they alone use. A hit whose return address is there is a nested call.
    /// The first range covers all the others.
    pub callers: [CodeRange; MAX_CODE_RANGES],
}

impl ProbeSpec {
    /// The function may go on to another traced one by a tail call: the call is kept as pending.
    pub const MAY_TAIL_CALL: u32 = 1;
    /// The function may be reached by a tail call: pending calls are looked up.
    pub const MAY_BE_TAIL_CALLED: u32 = 2;
    /// With [`MAY_TAIL_CALL`](Self::MAY_TAIL_CALL): also where there is a block to resize, and
    /// whatever the alignment is.
    pub const ALWAYS_TAIL_CALLS: u32 = 4;
    /// Blocks have glibc's chunk header before them, which tells their usable size.
    pub const GLIBC_CHUNKS: u32 = 8;
    /// The function may go on by a tail call to one that gives a block back, where nothing is asked
    /// for (`realloc(p, 0)`).
    pub const MAY_TAIL_CALL_FREE: u32 = 16;
    /// The function has no probe at its return, since it may throw: where blocks are followed, its
    /// own are counted, and not followed.
    pub const ENTRY_ONLY: u32 = 32;
    /// The function gives the block back where it cannot resize it (`mi_reallocf`).
    pub const FREES_ON_FAILURE: u32 = 64;
    /// The function returns a status: 0 where it has written the block's address to
    /// [`Operands::out`].
    pub const RETURNS_STATUS: u32 = 256;
    /// The function returns the size that its block has then (`xallocx`): less than was asked for
    /// where it failed.
    pub const RETURNS_SIZE: u32 = 512;
}

const _: () = assert!(size_of::<Operands>() == 36);
const _: () = assert!(size_of::<ProbeSpec>() == 64 + 16 * MAX_CODE_RANGES);

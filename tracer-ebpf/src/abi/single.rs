//! Places inside an allocator at which a call is followed, in place of its entry and its return.

/// What a probe inside a function must know to find the call's size and result, its stack and its caller.
///
/// Where something is, is told by a number: one of [`REGISTER`](Self::REGISTER) and a register's number,
/// [`SLOT`](Self::SLOT) and bytes below the CFA, [`ZERO`](Self::ZERO), or 0 where there is no such thing. The CFA is the
/// stack pointer before the call: the return address is in the eight bytes below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SingleSite {
    /// Bytes from the instruction that [`ProbeSite::callers`](crate::ProbeSite::callers) are told from, to this one.
    pub distance: i64,
    /// Bytes from the stack pointer up to the CFA.
    pub depth_bytes: u32,
    /// Where the number of bytes is that is asked for.
    pub size: u32,
    /// Where the other factor is of what is asked for, if that is a product yet to be made.
    pub count: u32,
    /// Where the high half is of the product that is asked for, if it may overflow.
    pub high: u32,
    /// Where the result is.
    pub result: u32,
    /// Where the caller's frame pointer is.
    pub frame_pointer: u32,
}

impl SingleSite {
    /// In a register; the lowest bits are its number in the encoding of instructions.
    pub const REGISTER: u32 = 1 << 8;
    /// It is 0.
    pub const ZERO: u32 = 1 << 9;
    /// On the stack; the lowest 16 bits say how many bytes below the CFA.
    pub const SLOT: u32 = 1 << 16;
    /// The bits of a slot's distance.
    pub const SLOT_BYTES: u32 = Self::SLOT - 1;

    /// In the register of this number.
    #[must_use]
    pub const fn in_register(number: u8) -> u32 {
        Self::REGISTER | (number as u32 & 15)
    }

    /// In the slot so many bytes below the CFA; nothing for one that cannot be told.
    #[must_use]
    pub const fn in_slot(bytes_below: u32) -> Option<u32> {
        if bytes_below == 0 || bytes_below > Self::SLOT_BYTES {
            return None;
        }
        Some(Self::SLOT | bytes_below)
    }
}

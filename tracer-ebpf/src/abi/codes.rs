//! Why a walk ended, what was counted, and every way in which an event can be lost.

macro_rules! coded {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $number:literal, $label:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $($(#[$doc])* $variant = $number,)* }

        impl $name {
            /// Every value, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name that the summary uses.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),* }
            }

            /// The value with this number.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

coded! {
    /// Why the walk of a stack ended. Each stack carries one; its frames up to there are kept.
    StackEnd {
        /// The outermost frame was reached: a zero frame pointer or return address, or a frame that
        /// says so.
        Complete = 1, "complete";
        /// There are more frames than are kept.
        Truncated = 2, "truncated";
        /// The frame pointer does not point up the stack: the frame before was made without one.
        FramePointer = 3, "frame_pointer";
        /// The stack could not be read there.
        ReadFault = 4, "read_fault";
        /// The code there is in no mapping, or in none that could be looked up, and has no frame
        /// pointer.
        NoMapping = 5, "no_mapping";
        /// The file that is mapped there has no unwind table, and the code no frame pointer.
        NoTable = 6, "no_table";
        /// The file's table says nothing of that address, and the code has no frame pointer.
        NoRow = 7, "no_row";
        /// The unwind information there is of a kind that the walker cannot follow.
        Unsupported = 8, "unsupported";
        /// The unwind information needs the frame pointer of a frame whose callee did not keep it.
        RbpLost = 9, "rbp_lost";
        /// The next frame would be this one, or lie inside it.
        NoProgress = 10, "no_progress";
        /// The outermost frame was reached, through a signal handler's frame, and the unwind
        /// information at hand does not tell for sure where the signal interrupted: the frames
        /// behind it may be wrong.
        Signal = 11, "signal";
    }
}

coded! {
    /// What the kernel side counts of events, per CPU. Always:
    /// `Seen + hits of uprobes - Skipped` is the sum of `Recorded`, `Nested`, `Filtered`,
    /// `Foreign`, `Unsampled` and the losses that are events: hits, whatever they stand for. Hits
    /// of uprobes are counted by probe ([`HitCounts`](crate::HitCounts)).
    Counter {
        /// Returns of memory-map system calls.
        Seen = 0, "seen";
        /// Events in the sums, with their stack.
        Recorded = 1, "tallied";
        /// Calls that an allocator function made to do its own work: counted once, for the
        /// outermost.
        Nested = 2, "nested";
        /// Events outside `--min-size` and `--max-size`.
        Filtered = 3, "filtered";
        /// Events of processes that are not targets, where a probe is shared by all processes.
        Foreign = 4, "foreign";
        /// New stacks that were sent to user space.
        StackSent = 5, "stacks_sent";
        /// A stack that found the ring full and will be sent at its next hit: no loss yet.
        StackDeferred = 6, "stacks_deferred";
        /// Walks that took the identity of the thread's last one, since they would have read the
        /// very same.
        StackRemembered = 7, "stacks_remembered";
        /// Look-ups of mappings that found the address space being changed.
        MappingBusy = 8, "mappings_busy";
        /// Files with code that had no room in the table of files.
        FilesFull = 9, "files_full";
        /// Walks that took frame pointers through code whose table was still being made, since no
        /// copy of the stack could be sent.
        TableAwaited = 10, "tables_awaited";
        /// Mappings that could not be kept for later.
        MappingNotKept = 11, "mappings_not_kept";
        /// Walks that user space was left to finish, from a copy of the stack.
        StackCopied = 12, "stacks_copied";
        /// Calls into which no sample point fell: those that were sampled stand for them.
        Unsampled = 13, "unsampled";
        /// Hits of uprobes that are no events: while none were taken in, and those that decide a
        /// call that another began.
        Skipped = 14, "passed_over";
    }
}

coded! {
    /// Every way in which an event can fail to reach the report whole.
    Loss {
        /// The table of sums was full: the event's size and count are kept, its stack and process
        /// are not.
        StackMapFull = 0, "stack_map_full";
        /// No scratch slot was free on the CPU: size and count are kept, the stack is not.
        ScratchBusy = 1, "scratch_busy";
        /// The ring was full at every hit of the stack: size and count are kept, the stack is not.
        RingFull = 2, "ring_full";
        /// The table of processes was full: the event is recorded for an unknown process.
        ProcessMapFull = 3, "process_map_full";
        /// The probe carries no site that this program knows: the event is counted nowhere else.
        UnknownSite = 4, "unknown_site";
        /// A system call was entered and its return could not be waited for: the table was full.
        PendingMapFull = 5, "pending_map_full";
        /// The table of possible tail calls was full: the inner call may have been counted too.
        TailMapFull = 6, "tail_map_full";
        /// A record of a new process did not fit the ring: it has no name in the report.
        ProcessRecordLost = 7, "process_record_lost";
        /// A system call was entered and its return was never seen: the thread was killed inside
        /// it, or is still there.
        UnfinishedCall = 8, "unfinished_call";
        /// The table of calls that have not returned was full: whether the call succeeded is not
        /// known, and it is counted without a stack.
        CallMapFull = 9, "call_map_full";
        /// The table of blocks was full: the block is in no figure of what is live.
        LiveMapFull = 10, "live_map_full";
        /// The table of what processes hold was full: the process's live figures are lost.
        HeapMapFull = 11, "heap_map_full";
        /// A process of a tree began before it had probes: its first calls were not seen, however
        /// many. Counted by user space.
        LateProbes = 12, "late_probes";
        /// A record of process life did not fit its ring while allocations were recorded: what a
        /// process mapped, executed or forked is known late. Counted by user space.
        LifeRecordLost = 13, "life_record_lost";
    }
}

impl StackEnd {
    /// Whether the stack is whole: walked to its outermost frame.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::Complete | Self::Signal)
    }
}

impl Loss {
    /// Where the per-CPU counters of losses begin, in the same array as [`Counter`]'s.
    pub const BASE: u32 = 16;

    /// The index of this loss's counter.
    #[must_use]
    pub const fn index(self) -> u32 {
        Self::BASE + self as u32
    }
}

impl Counter {
    /// How many counters the array of both has.
    pub const SLOTS: u32 = 32;

    /// The index of this counter.
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }
}

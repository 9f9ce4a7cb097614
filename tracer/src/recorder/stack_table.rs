//! The stacks of a recording, by identity.
//!
//! A stack whose walk the kernel side left to user space has a provisional identity, under which
//! its figures are kept. Once the deferred walk is finished, that identity is an alias of the whole
//! stack's.

use std::collections::HashMap;

use tracer_ebpf::{MAX_FRAMES, StackEnd, SumKey, identity};

use crate::bpf::records::RecordedStack;

/// All stacks that were recorded.
#[derive(Debug, Default)]
pub(super) struct StackTable {
    stacks: HashMap<u64, RecordedStack>,
    /// The first time of a stack in a process image: nanoseconds of `CLOCK_MONOTONIC`.
    first_seen_ns: HashMap<(u32, u64), u64>,
    /// Finished deferred walks whose stacks' records have not come yet, by provisional identity.
    unjoined: HashMap<u64, OuterFrames>,
    /// The identity of the whole stack, by the provisional one.
    aliases: HashMap<u64, u64>,
}

/// The outer frames of a stack: the result of a deferred walk.
#[derive(Debug)]
pub(super) struct OuterFrames {
    /// The frames, the innermost first.
    pub(super) frames: Vec<u64>,
    /// The end of the walk.
    pub(super) end: StackEnd,
    /// The number of frames inside of these, which the kernel side found.
    pub(super) inner_len: usize,
    /// The process image.
    pub(super) process: u32,
    /// The time of the copy.
    pub(super) time_ns: u64,
}

impl StackTable {
    /// Adds a stack that the kernel side has sent.
    pub(super) fn add(&mut self, stack: RecordedStack) {
        self.first_seen_ns
            .entry((stack.process, stack.hash))
            .or_insert(stack.time_ns);
        self.stacks.entry(stack.hash).or_insert(stack);
    }

    /// Adds the result of a deferred walk, by the provisional identity.
    pub(super) fn add_outer_frames(&mut self, provisional: u64, outer: OuterFrames) {
        self.unjoined.insert(provisional, outer);
    }

    /// Joins the frames of finished deferred walks to those that the kernel side found.
    pub(super) fn join(&mut self) {
        let finished = std::mem::take(&mut self.unjoined);
        for (provisional, outer) in finished {
            let Some(mut stack) = self.stacks.remove(&provisional) else {
                // Its record has not come yet.
                self.unjoined.insert(provisional, outer);
                continue;
            };
            // A stack can lie in pieces, of which the copy has one: the kernel side may have found
            // more by itself.
            if outer.end.is_whole() || !stack.end.is_whole() {
                stack.frames.truncate(outer.inner_len);
                stack.frames.extend(outer.frames);
                stack.end = outer.end;
            }
            if stack.frames.len() > MAX_FRAMES {
                stack.frames.truncate(MAX_FRAMES);
                stack.end = StackEnd::Truncated;
            }
            let hash = stack
                .frames
                .iter()
                .fold(0, |hash, frame| identity::push(hash, *frame));
            stack.hash = identity::finish(hash, stack.end as u32);
            self.aliases.insert(provisional, stack.hash);
            self.first_seen_ns.remove(&(outer.process, provisional));
            self.first_seen_ns
                .entry((outer.process, stack.hash))
                .or_insert(outer.time_ns);
            self.stacks.entry(stack.hash).or_insert(stack);
        }
    }

    /// Finished deferred walks whose stacks' records have not come.
    pub(super) fn unjoined(&self) -> u64 {
        self.unjoined.len() as u64
    }

    /// The stack of an identity.
    pub(super) fn get(&self, identity: u64) -> Option<&RecordedStack> {
        self.stacks.get(&identity)
    }

    /// The first time of a stack in a process image: nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn first_seen_ns(&self, process: u32, identity: u64) -> Option<u64> {
        self.first_seen_ns.get(&(process, identity)).copied()
    }

    /// The number of distinct stacks.
    pub(super) fn len(&self) -> usize {
        self.stacks.len()
    }

    /// Replaces a provisional identity in a key by the whole stack's.
    pub(super) fn canonical(&self, key: SumKey) -> SumKey {
        SumKey {
            stack: self.aliases.get(&key.stack).copied().unwrap_or(key.stack),
            ..key
        }
    }
}

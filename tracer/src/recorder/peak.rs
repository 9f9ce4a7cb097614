//! What each stack held when the most was held.

use std::collections::HashMap;

use tracer_ebpf::SumKey;

use super::copied::Copied;

/// The snapshot in which the most was live.
#[derive(Debug, Default)]
pub(super) struct Peak {
    /// Bytes that were live in it.
    bytes: u64,
    /// By stack, where any were.
    by_stack: HashMap<SumKey, u64>,
}

impl Peak {
    /// Takes a snapshot if more is live in it than in the one that is kept.
    pub(super) fn offer(&mut self, live: impl Iterator<Item = (SumKey, u64)>) {
        let by_stack: HashMap<SumKey, u64> = live.filter(|(_, bytes)| *bytes > 0).collect();
        let bytes = by_stack.values().sum();
        if bytes > self.bytes {
            self.bytes = bytes;
            self.by_stack = by_stack;
        }
    }

    /// What each stack held in the snapshot, by the identities that stacks have by now.
    pub(super) fn by_stack(&self, copied: &Copied) -> HashMap<SumKey, u64> {
        let mut named = HashMap::with_capacity(self.by_stack.len());
        for (key, bytes) in &self.by_stack {
            *named.entry(copied.named(*key)).or_default() += *bytes;
        }
        named
    }

    /// Bytes that were live in the snapshot.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

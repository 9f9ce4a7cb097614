//! The free parts of an array.

use std::collections::BTreeMap;
use std::ops::Range;

/// The free parts of an array of `capacity` elements: neighbours are always joined.
#[derive(Debug)]
pub(crate) struct Extents {
    /// Start → length.
    free: BTreeMap<u32, u32>,
    free_total: u32,
    capacity: u32,
}

impl Extents {
    pub(crate) fn new(capacity: u32) -> Self {
        let free = if capacity == 0 {
            BTreeMap::new()
        } else {
            BTreeMap::from([(0, capacity)])
        };
        Self {
            free,
            free_total: capacity,
            capacity,
        }
    }

    pub(crate) fn free_total(&self) -> u32 {
        self.free_total
    }

    pub(crate) fn used(&self) -> u32 {
        self.capacity - self.free_total
    }

    /// The longest free part.
    pub(crate) fn longest(&self) -> u32 {
        self.free.values().copied().max().unwrap_or_default()
    }

    /// The free parts, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u32>> {
        self.free.iter().map(|(start, len)| *start..*start + *len)
    }

    /// The start of the first free part of at least `len` elements.
    pub(crate) fn find(&self, len: u32) -> Option<u32> {
        self.free
            .iter()
            .find(|(_, free)| **free >= len)
            .map(|(start, _)| *start)
    }

    /// Takes a range, all of which is free.
    pub(crate) fn take(&mut self, range: &Range<u32>) {
        let Some((start, len)) = self.free.range(..=range.start).next_back() else {
            return;
        };
        let (start, end) = (*start, *start + *len);
        if range.is_empty() || range.end > end {
            debug_assert!(range.is_empty(), "{range:?} is not free");
            return;
        }
        self.free.remove(&start);
        if start < range.start {
            self.free.insert(start, range.start - start);
        }
        if range.end < end {
            self.free.insert(range.end, end - range.end);
        }
        self.free_total -= range.end - range.start;
    }

    /// Gives a range back, no part of which is free.
    pub(crate) fn give(&mut self, range: &Range<u32>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        if let Some((before, len)) = self.free.range(..range.start).next_back()
            && before + len == start
        {
            start = *before;
        }
        if let Some(len) = self.free.remove(&end) {
            end += len;
        }
        self.free.insert(start, end - start);
        self.free_total += range.end - range.start;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_can_be_given_back_in_any_order() {
        let mut extents = Extents::new(100);
        for range in [0..10, 10..30, 30..35, 90..100] {
            extents.take(&range);
        }
        assert_eq!(
            (extents.free_total(), extents.used(), extents.longest()),
            (55, 45, 55)
        );
        extents.give(&(10..30));
        assert_eq!(extents.iter().collect::<Vec<_>>(), [10..30, 35..90]);
        assert_eq!(
            (extents.find(20), extents.find(21), extents.find(56)),
            (Some(10), Some(35), None)
        );
        extents.give(&(30..35));
        assert!(extents.iter().eq(std::iter::once(10..90)));
        extents.give(&(90..100));
        extents.give(&(0..10));
        assert!(extents.iter().eq(std::iter::once(0..100)));
        assert_eq!(extents.used(), 0);
    }

    #[test]
    fn an_empty_array_has_no_room() {
        let extents = Extents::new(0);
        assert_eq!((extents.find(1), extents.longest()), (None, 0));
    }
}

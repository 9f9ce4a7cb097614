//! The kernel's array of rules: each once, counted by the tables that use it.

use std::collections::HashMap;

use crate::unwind::layout::{ROW_RULE_MASK, Rule};

#[derive(Debug)]
pub(crate) struct RulePool {
    slots: Vec<RuleSlot>,
    numbers: HashMap<Rule, u32>,
    free: Vec<u32>,
    capacity: u32,
}

#[derive(Debug, Clone, Copy)]
struct RuleSlot {
    rule: Rule,
    users: u32,
}

impl RulePool {
    /// Room for at most `capacity` rules. Number 0 is [`Rule::NO_INFO`] for good.
    pub(crate) fn new(capacity: u32) -> Self {
        let capacity = capacity.clamp(1, ROW_RULE_MASK + 1);
        let slots = vec![RuleSlot {
            rule: Rule::NO_INFO,
            users: 1,
        }];
        Self {
            slots,
            numbers: HashMap::from([(Rule::NO_INFO, 0)]),
            free: Vec::new(),
            capacity,
        }
    }

    pub(crate) fn used(&self) -> u32 {
        u32::try_from(self.slots.len() - self.free.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn free_total(&self) -> u32 {
        self.capacity - self.used()
    }

    /// Returns the number of these rules, which are all different, that are not in the pool.
    pub(crate) fn missing(&self, rules: &[Rule]) -> u32 {
        let missing = rules
            .iter()
            .filter(|rule| !self.numbers.contains_key(rule))
            .count();
        u32::try_from(missing).unwrap_or(u32::MAX)
    }

    /// Counts one more user of a rule. Returns its number, and whether the array has to be written;
    /// `None` if the pool is full.
    pub(crate) fn acquire(&mut self, rule: Rule) -> Option<(u32, bool)> {
        if let Some(number) = self.numbers.get(&rule).copied() {
            let slot = self.slots.get_mut(number as usize)?;
            slot.users = slot.users.saturating_add(1);
            return Some((number, false));
        }
        let slot = RuleSlot { rule, users: 1 };
        let number = if let Some(number) = self.free.pop() {
            *self.slots.get_mut(number as usize)? = slot;
            number
        } else {
            let number = u32::try_from(self.slots.len())
                .ok()
                .filter(|number| *number < self.capacity)?;
            self.slots.push(slot);
            number
        };
        self.numbers.insert(rule, number);
        Some((number, true))
    }

    /// Counts one user less; a number without users is given out again.
    pub(crate) fn release(&mut self, number: u32) {
        // What a gap means must never change, whoever miscounts.
        let Some(slot) = self.slots.get_mut(number as usize).filter(|_| number > 0) else {
            return;
        };
        slot.users = slot.users.saturating_sub(1);
        if slot.users == 0 {
            self.numbers.remove(&slot.rule);
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::layout::cfa;

    #[test]
    fn numbers_are_shared_and_reused() {
        let rule = |offset| Rule {
            cfa_offset: offset,
            ..Rule::of_kind(cfa::SP)
        };
        let mut pool = RulePool::new(3);
        assert_eq!(pool.acquire(rule(8)), Some((1, true)));
        assert_eq!(pool.acquire(rule(8)), Some((1, false)));
        assert_eq!(pool.missing(&[rule(8), rule(16), Rule::NO_INFO]), 1);
        assert_eq!(pool.acquire(rule(16)), Some((2, true)));
        assert_eq!((pool.acquire(rule(24)), pool.free_total()), (None, 0));
        pool.release(1);
        assert_eq!(pool.free_total(), 0, "one user is left");
        pool.release(1);
        assert_eq!(pool.acquire(rule(24)), Some((1, true)));
        assert_eq!(pool.acquire(rule(8)), None);
        pool.release(0);
        assert_eq!(pool.used(), 3);
    }
}

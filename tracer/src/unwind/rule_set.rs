//! Rules, each once.

use std::collections::HashMap;

use crate::unwind::layout::Rule;

/// The most different rules that one file's table can have; further ones become
/// [`Rule::UNSUPPORTED`]. Real files have some hundred.
pub(crate) const MAX_RULES: u32 = 1 << 16;

const RECENT: usize = 64;

/// Rules by number, and numbers by rule. Numbers 0 and 1 are always [`Rule::NO_INFO`] and
/// [`Rule::UNSUPPORTED`].
#[derive(Debug)]
pub(crate) struct RuleSet {
    rules: Vec<Rule>,
    numbers: HashMap<Rule, u32>,
    /// The map's hash resists crafted files and is slow for it; nearly every look-up ends here.
    recent: [(Rule, u32); RECENT],
}

impl Default for RuleSet {
    fn default() -> Self {
        let mut set = Self {
            rules: Vec::new(),
            numbers: HashMap::new(),
            recent: [(Rule::NO_INFO, Self::NO_INFO); RECENT],
        };
        set.add(Rule::NO_INFO);
        set.add(Rule::UNSUPPORTED);
        set
    }
}

impl RuleSet {
    pub(crate) const NO_INFO: u32 = 0;
    pub(crate) const UNSUPPORTED: u32 = 1;

    /// The number of a rule, a new one if it is new.
    pub(crate) fn number(&mut self, rule: Rule) -> u32 {
        let slot = Self::slot(rule);
        if let Some((_, number)) = self.recent.get(slot).filter(|(recent, _)| *recent == rule) {
            return *number;
        }
        let number = match self.numbers.get(&rule) {
            Some(number) => *number,
            None if self.rules.len() as u64 >= u64::from(MAX_RULES) => Self::UNSUPPORTED,
            None => self.add(rule),
        };
        if let Some(recent) = self.recent.get_mut(slot) {
            *recent = (rule, number);
        }
        number
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    fn add(&mut self, rule: Rule) -> u32 {
        let number = u32::try_from(self.rules.len()).unwrap_or(Self::UNSUPPORTED);
        self.rules.push(rule);
        self.numbers.insert(rule, number);
        number
    }

    fn slot(rule: Rule) -> usize {
        // Frame offsets are multiples of 8 that differ in their low bits.
        let mixed = rule.cfa_offset.cast_unsigned() >> 3;
        let mixed = mixed ^ (u32::from(rule.cfa_kind) << 3) ^ (rule.rbp_offset.cast_unsigned() >> 3);
        mixed as usize % RECENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unwind::layout::cfa;

    #[test]
    fn equal_rules_have_one_number() {
        let mut set = RuleSet::default();
        let rule = |offset| Rule {
            cfa_offset: offset,
            ..Rule::of_kind(cfa::SP)
        };
        // 512 apart: the same slot among the recent ones.
        let numbers: Vec<u32> = [8, 520, 8, 520, 16]
            .map(rule)
            .map(|rule| set.number(rule))
            .to_vec();
        assert_eq!(numbers, [2, 3, 2, 3, 4]);
        assert_eq!(set.number(Rule::NO_INFO), RuleSet::NO_INFO);
        assert_eq!(set.number(Rule::UNSUPPORTED), RuleSet::UNSUPPORTED);
        assert_eq!(set.rules()[3], rule(520));
    }

    #[test]
    fn a_set_is_bounded() {
        let mut set = RuleSet::default();
        let numbers = (0..100_000).map(|offset| {
            set.number(Rule {
                cfa_offset: offset,
                ..Rule::of_kind(cfa::SP)
            })
        });
        assert_eq!(numbers.last(), Some(RuleSet::UNSUPPORTED));
        assert_eq!(set.rules().len(), MAX_RULES as usize);
    }
}

//! The losses of a recording, counted by reason.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::{Deserialize, Deserializer};
use tracer_ebpf::Loss;

/// The number of events lost, by reason; reasons of which there were none are absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Losses(BTreeMap<Loss, u64>);

impl Losses {
    /// Makes losses of counts; those of the same loss are added up, those that are missing are
    /// zero.
    pub(crate) fn new(counts: impl IntoIterator<Item = (Loss, u64)>) -> Self {
        let mut losses = Self::default();
        for (loss, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            let sum = losses.0.entry(loss).or_default();
            *sum = sum.saturating_add(count);
        }
        losses
    }

    /// Returns the number of events lost for one reason.
    #[must_use]
    pub(crate) fn get(&self, loss: Loss) -> u64 {
        self.0.get(&loss).copied().unwrap_or_default()
    }

    /// Returns the number of events lost for any reason; with `--strict` anything above zero fails.
    #[must_use]
    pub(crate) fn total(&self) -> u128 {
        self.0.values().map(|it| u128::from(*it)).sum()
    }
}

impl Serialize for Losses {
    /// `total`, then every loss by its label, zero or not: a reader need not know which ones there
    /// are.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Loss::ALL.len() + 1))?;
        map.serialize_entry("total", &self.total())?;
        for loss in Loss::ALL {
            map.serialize_entry(loss.label(), &self.get(*loss))?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Losses {
    /// Reads what was serialized; `total` follows from the rest.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut counts = Vec::new();
        for (label, count) in BTreeMap::<String, u128>::deserialize(deserializer)? {
            let loss = Loss::ALL.iter().find(|loss| loss.label() == label);
            match (loss, u64::try_from(count)) {
                (Some(loss), Ok(count)) => counts.push((*loss, count)),
                (None, _) if label == "total" => {}
                _ => return Err(D::Error::custom("a loss is not known")),
            }
        }
        Ok(Self::new(counts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up() {
        let losses = Losses::new([
            (Loss::RingFull, 2),
            (Loss::RingFull, 3),
            (Loss::UnknownSite, u64::MAX),
        ]);
        assert_eq!(losses.get(Loss::RingFull), 5);
        assert_eq!(losses.total(), u128::from(u64::MAX) + 5);
        let json = serde_json::to_string(&Losses::new([(Loss::RingFull, 5)])).unwrap();
        assert!(json.starts_with(r#"{"total":5,"stack_map_full":0,"scratch_busy":0,"ring_full":5,"#));
    }
}

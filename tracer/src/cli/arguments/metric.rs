//! Metrics on the command line: by the names that they have in files too.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::profile::Metric;

impl ValueEnum for Metric {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::AllocBytes => "Bytes asked of allocators",
            Self::AllocCount => "Calls to allocators",
            Self::LiveBytes => "Bytes that are still allocated at the end (--live)",
            Self::LiveCount => "Blocks that are still allocated at the end (--live)",
            Self::FreedBytes => "Bytes that were given back (--live)",
            Self::TemporaryCount => {
                "Blocks that were given back by their thread's next call of the allocator (--live)"
            }
            Self::PeakBytes => "Bytes that were allocated when the most were (--live)",
            Self::RegionBytes => "Bytes by which the address space grew",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

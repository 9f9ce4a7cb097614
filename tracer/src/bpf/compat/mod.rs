//! Kernel calls in place of aya's: loading without the kernel's type information, links of many
//! uprobes, look-ups in batches, and the calls of `bpf(2)` that those take.

pub(super) mod batch;
pub(super) mod loader;
pub(super) mod multi;
pub(super) mod perf;
pub(super) mod sys;

use aya::maps::{Map, MapData};

/// The data of a map of any type that memtap has; aya gives them out by type alone.
pub(super) fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::CgroupArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data)
        | Map::StackTraceMap(data) => Some(data),
        _ => None,
    }
}

//! The eBPF object that this program carries, as bytes.

use std::borrow::Cow;

use aya::include_bytes_aligned;
use aya_obj::generated::bpf_map_type;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

/// The object that `build.rs` made.
static EMBEDDED: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/memtap-ebpf.o"));

/// The object to load: the embedded one or, in a development build alone, the file that
/// `MEMTAP_EBPF_OBJECT` names (`cargo xtask ebpf`). A release build can run with capabilities that
/// its caller does not have, and heeds no variable.
pub(super) fn object_bytes() -> &'static [u8] {
    static NAMED: std::sync::OnceLock<Option<Vec<u8>>> = std::sync::OnceLock::new();
    if !cfg!(debug_assertions) {
        return EMBEDDED;
    }
    let named = NAMED.get_or_init(|| std::fs::read(std::env::var_os("MEMTAP_EBPF_OBJECT")?).ok());
    named.as_deref().unwrap_or(EMBEDDED)
}

/// The object as it is to be loaded. Where blocks are not followed (`live`), nothing takes out the
/// pending calls that did not go on by a tail call: their table is one then whose least recently
/// used entries make room.
pub(super) fn object_for(live: bool) -> Cow<'static, [u8]> {
    if live {
        return Cow::Borrowed(object_bytes());
    }
    let mut object = object_bytes().to_vec();
    let Some(kind) = kind_of_map("PENDING_CALLS").and_then(|at| object.get_mut(at..at + 4)) else {
        log::error!("the eBPF object has no map PENDING_CALLS");
        return Cow::Borrowed(object_bytes());
    };
    kind.copy_from_slice(&(bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32).to_ne_bytes());
    Cow::Owned(object)
}

/// The offset in the object of a map's type, which its definition begins with (`bpf_map_def` of
/// libbpf).
fn kind_of_map(name: &str) -> Option<usize> {
    let object = object::File::parse(object_bytes()).ok()?;
    let symbol = object.symbol_by_name(name)?;
    let section = object.section_by_index(symbol.section_index()?).ok()?;
    let (offset, _) = section.file_range()?;
    usize::try_from(offset + symbol.address() - section.address()).ok()
}

#[cfg(test)]
mod tests;

//! What this user may do.

/// Capabilities that tracing takes, with their numbers in `include/uapi/linux/capability.h`.
const NEEDED: [(&str, u32); 4] = [
    ("CAP_SYS_ADMIN", 21),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
    ("CAP_SYS_PTRACE", 19),
];

/// The needed capabilities that this process lacks.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hexadecimal| u64::from_str_radix(hexadecimal.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED
        .iter()
        .filter(|(_, number)| held & (1 << number) == 0)
        .map(|(name, _)| *name)
        .collect()
}

/// The capabilities that are missing.
#[derive(Debug, thiserror::Error)]
#[error("tracing other processes takes {}, which this user has not: run memtap with sudo", .0.join(", "))]
pub struct Missing(Vec<&'static str>);

/// Fails, in words, where a needed capability is missing.
pub fn require() -> Result<(), Missing> {
    let missing = missing();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Missing(missing))
    }
}

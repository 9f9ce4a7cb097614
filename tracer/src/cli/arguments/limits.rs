//! The arguments that bound memory in the kernel.

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::cli::sizes;
use crate::settings::Limits;

/// The most stacks: tables of half a gigabyte.
const MAX_STACKS: u32 = 1 << 22;

/// The most blocks: a table of eight gigabytes, where there are as many.
const MAX_BLOCKS: u32 = 1 << 26;

/// The most processes that Linux has (`PID_MAX_LIMIT` of its `include/linux/threads.h`).
const MAX_PROCESSES: u32 = 1 << 22;

/// Bounds of the kernel side's maps.
#[derive(Debug, Args)]
pub(super) struct MemoryArguments {
    /// Distinct stacks that the kernel side has room for (about 120 bytes each)
    #[arg(long, default_value_t = 65_536, value_name = "N", help_heading = "Memory")]
    max_stacks: u32,
    /// Blocks that --live follows at once; memory is taken as they come, some 130 bytes each
    #[arg(long, default_value_t = Limits::default().blocks, value_name = "N", help_heading = "Memory")]
    max_blocks: u32,
    /// Processes traced at once (about 80 bytes each)
    #[arg(long, default_value_t = 16_384, value_name = "N", help_heading = "Memory")]
    max_processes: u32,
    /// Room for new stacks on their way to memtap; a power of two
    #[arg(long, default_value = "4M", value_parser = sizes::size, value_name = "BYTES", help_heading = "Memory")]
    ring_size: u64,
    /// Room for unwind tables in the kernel
    #[arg(
        long,
        default_value = "8M",
        value_parser = sizes::size,
        value_name = "BYTES",
        help_heading = "Memory"
    )]
    unwind_memory: u64,
}

impl MemoryArguments {
    /// Checks what was said.
    pub(super) fn limits(&self) -> Result<Limits> {
        for (option, number, most) in [
            ("--max-stacks", self.max_stacks, MAX_STACKS),
            ("--max-blocks", self.max_blocks, MAX_BLOCKS),
            ("--max-processes", self.max_processes, MAX_PROCESSES),
        ] {
            if !(1..=most).contains(&number) {
                bail!("{option} {number}: it must be from 1 to {most}");
            }
        }
        if !(1 << 16..=4 << 30).contains(&self.unwind_memory) {
            bail!("--unwind-memory must be from 64k to 4G");
        }
        let ring_bytes = u32::try_from(self.ring_size)
            .ok()
            .filter(|bytes| bytes.is_power_of_two() && *bytes >= 4096)
            .context("--ring-size must be a power of two from 4k to 2G")?;
        Ok(Limits {
            stacks: self.max_stacks,
            blocks: self.max_blocks,
            processes: self.max_processes,
            ring_bytes,
            copy_ring_bytes: Limits::COPY_RING_BYTES,
            unwind_bytes: self.unwind_memory,
        })
    }
}

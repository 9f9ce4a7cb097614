//! The foundation of the suite: fixtures that are compiled on demand, memtap run under a time limit
//! with its outputs read back, and second opinions (the fixtures' own counts, a preloaded shim,
//! strace) to compare with.
//!
//! A test runs memtap through [`Memtap`] and gets a [`MemtapRecording`]; every recording is
//! audited: its totals must add up whatever the test itself looks at. What was run, and what it
//! said, is kept by [`journal`] and printed with a failure.

mod account;
mod browser;
mod cgroup;
mod context;
mod count;
mod figures;
mod fixture;
mod folded;
mod hold;
pub mod journal;
mod leftovers;
mod live;
mod memtap;
mod peak_memory;
mod recipe;
mod recording;
mod reported;
mod run;
mod shim;
mod speedscope;
mod strace;
mod sudo_user;
mod summary;

pub use account::{Account, without_pids};
pub use browser::Browser;
pub use cgroup::TestCgroup;
pub use context::{Context, Need, go_tool, library_path};
pub use count::{Count, Counts, difference};
pub use figures::HeapFigures;
pub use fixture::Fixture;
pub use folded::{FoldedStackLine, FoldedStacks};
pub use hold::Holder;
pub use leftovers::{Leftovers, differing_text, helper, in_tracefs, uprobe_events};
pub use live::{ShimImage, shim_images};
pub use memtap::{ARMS, Memtap, MemtapSession};
pub use peak_memory::{PeakMemory, children, memory_kib};
pub use recipe::Recipe;
pub use recording::MemtapRecording;
pub use reported::{Chain, Reported, ReportedImage};
pub use run::{Finished, LIMIT, RunningProgram, eventually, run};
pub use shim::{Shim, shim_counts};
pub use speedscope::Speedscope;
pub use strace::Strace;
pub use sudo_user::SudoUser;
pub use summary::{ProcessSummary, RecordingSummary, Region};

//! Helpers that xtask, bench, truth and the suite share: the workspace, Debian packages,
//! privileges, and child processes that end with their owner.

pub mod child;
pub mod packages;
pub mod privilege;
pub mod process;
pub mod product;
pub mod workspace;

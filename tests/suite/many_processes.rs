//! Hundreds of processes that attaching and detaching must not disturb.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use memtap_tests::{Context, Fixture, LIMIT, RunningProgram, eventually};
use tempfile::TempDir;

/// Commands to the children, the first word of the file: small blocks, big ones too, end.
const BIG_TOO: u64 = 1;
const END: u64 = 2;

/// Bytes of a child's first big block; each child's are one larger than the one's before it.
pub(crate) const BIG_BYTES: u64 = 1000;

/// Words of the file per child.
const WORDS: usize = 4;

/// Processes that take turns of 20 ms and allocate in each.
pub(crate) struct ManyProcesses {
    running: RunningProgram,
    file: PathBuf,
    count: usize,
    /// Removed with it.
    _directory: TempDir,
}

/// The report of a child on itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    /// Its process.
    pub(crate) pid: u32,
    turns: u64,
    /// Its longest time between two turns.
    pub(crate) longest: Duration,
    made: u64,
}

impl ManyProcesses {
    /// Starts it, and waits until all take turns.
    pub(crate) fn start(context: &Context, count: usize) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("many_processes");
        let mut command = Fixture::c(context, "many_processes")?.command();
        command.arg(&file).arg(count.to_string());
        let mut many = Self {
            running: RunningProgram::start(command)?,
            file,
            count,
            _directory: directory,
        };
        many.advances()?;
        Ok(many)
    }

    /// All children, by their numbers.
    pub(crate) fn members(&self) -> Vec<Member> {
        let bytes = std::fs::read(&self.file).unwrap_or_default();
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .skip(1)
            .filter_map(|word| word.try_into().ok().map(u64::from_le_bytes))
            .collect();
        let children = words.chunks_exact(WORDS);
        children
            .map(|child| Member {
                pid: u32::try_from(child[0]).unwrap_or_default(),
                turns: child[1],
                longest: Duration::from_nanos(child[2]),
                made: child[3],
            })
            .collect()
    }

    /// The children's process ids, as `-p` takes them.
    pub(crate) fn pids(&self) -> String {
        let pids: Vec<String> = self.members().iter().map(|one| one.pid.to_string()).collect();
        pids.join(",")
    }

    /// The longest time that any child had between two turns.
    pub(crate) fn longest(&self) -> Duration {
        let all = self.members();
        all.iter().map(|one| one.longest).max().unwrap_or_default()
    }

    /// Fails unless every child goes on taking turns.
    pub(crate) fn advances(&mut self) -> Result<()> {
        let before = self.members();
        let advanced = eventually(LIMIT, || {
            ensure!(self.running.is_alive()?, "the processes have ended");
            let now = self.members();
            let turns = |at: usize| before.get(at).map_or(0, |one| one.turns);
            Ok(now.len() == self.count && now.iter().enumerate().all(|(at, one)| one.turns > turns(at) + 1))
        })?;
        ensure!(advanced, "one of the processes stands still");
        Ok(())
    }

    /// Has each child make its big blocks; child N makes N + 10.
    pub(crate) fn make_big(&self) -> Result<()> {
        self.want(BIG_TOO)?;
        let made = eventually(LIMIT, || {
            Ok(self
                .members()
                .iter()
                .enumerate()
                .all(|(number, one)| one.made == number as u64 + 10))
        })?;
        ensure!(made, "blocks were not made: {:?}", self.members());
        Ok(())
    }

    /// Ends it: every child must end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.advances()?;
        self.want(END)?;
        let finished = self.running.finish(LIMIT)?;
        ensure!(
            finished.code() == 0,
            "the processes ended with {}",
            finished.code()
        );
        Ok(())
    }

    fn want(&self, what: u64) -> Result<()> {
        let file = File::options().write(true).open(&self.file)?;
        Ok(file.write_all_at(&what.to_le_bytes(), 0)?)
    }
}

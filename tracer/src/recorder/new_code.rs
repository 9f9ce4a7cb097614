//! Code that targets have just loaded: its tables are begun, and processes that were stopped for them go on.

use std::sync::Arc;

use super::guard::Guard;
use super::recorder::Recorder;
use super::tables::Tables;
use crate::bpf::records::NewFile;
use crate::process::files::MappedFile;
use crate::process::maps;

impl Recorder {
    /// The processes that are stopped for tables.
    pub(super) fn stopped(&mut self) -> Vec<u32> {
        if self.guard.is_none() {
            return Vec::new();
        }
        Guard::stopped(&mut self.object).unwrap_or_else(|error| {
            log::warn!("{error}: what memtap has stopped goes on when it ends");
            Vec::new()
        })
    }

    /// Resumes processes that were stopped for tables which are there now.
    pub(super) fn let_go_on(&mut self, stopped: &[u32]) {
        if self.awaits_tables() {
            return;
        }
        let Some(guard) = &mut self.guard else { return };
        if let Err(error) = guard.resume(&mut self.object, stopped) {
            log::warn!("{error}: what memtap has stopped goes on when it ends");
        }
        self.stops += stopped.len() as u64;
    }

    /// Begins the table of a file that a target has mapped, before any stack goes through it.
    pub(super) fn expect_code(&mut self, file: &Arc<MappedFile>, pid: u32) {
        if let Some(tables) = &mut self.tables
            && self.processes.has_pid(pid)
            && let Err(error) = tables.make(&mut self.object, file)
        {
            log::warn!("{error}: some stacks may end early");
        }
    }

    /// Makes the table of a file that the kernel side met.
    pub(super) fn learn(&mut self, new: &NewFile) {
        let Some(tables) = &mut self.tables else { return };
        let mappings = maps::executable_mappings(new.tgid).unwrap_or_default();
        let mapping = mappings
            .iter()
            .find(|mapping| mapping.start <= new.start && new.start < mapping.end);
        let file = mapping.and_then(|mapping| self.lives.files().of_mapping(new.tgid, mapping));
        if let Some(file) = &file {
            log::debug!(
                "{}: met as {:?}, mapped as {:?}",
                file.path.display(),
                new.key,
                file.key
            );
        }
        if let Err(error) = tables.make_later(&mut self.object, file, new.key) {
            log::warn!("{error}: some stacks may end early");
        }
    }

    /// Whether tables are being made.
    pub(super) fn awaits_tables(&self) -> bool {
        self.tables.as_ref().is_some_and(Tables::is_waiting)
    }
}

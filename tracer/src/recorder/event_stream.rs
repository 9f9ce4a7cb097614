//! The events that the kernel sends: the ring of the eBPF side, and the records of process life.

use crate::bpf::records::Records;
use crate::bpf::{Object, Record};
use crate::process::sideband::{LifeEvent, Sideband};
use crate::recorder::start_error::StartError;

/// Both sources of events.
pub(super) struct EventStream {
    ring: Records,
    sideband: Sideband,
}

impl EventStream {
    /// Takes the ring of a loaded object. The records of process life are opened before anything is looked at, so that
    /// nothing is missed in between.
    pub(super) fn new(object: &mut Object, sideband: Sideband) -> Result<Self, StartError> {
        Ok(Self {
            ring: object.records()?,
            sideband,
        })
    }

    /// Waits until the ring has something that cannot wait: new code, or that it fills up.
    pub(super) async fn urgent(&mut self) -> std::io::Result<()> {
        self.ring.urgent().await
    }

    /// Takes the ring's next record, if there is one.
    pub(super) fn next_record(&mut self) -> Option<Record> {
        self.ring.take()
    }

    /// Takes the events of process life that no earlier one can follow any more; `all` of them at the end.
    pub(super) fn life_events(&mut self, all: bool) -> Vec<LifeEvent> {
        self.sideband.take(all)
    }

    /// The time before which all events of process life were taken: nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn settled_ns(&self) -> u64 {
        self.sideband.settled_ns()
    }

    /// Records of process life that the kernel could not write.
    pub(super) fn life_records_lost(&self) -> u64 {
        self.sideband.lost()
    }
}

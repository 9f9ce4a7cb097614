//! Detaching links of processes that have ended, beside the event loop.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use crate::bpf::Attached;

/// A thread that takes links off. Each waits for grace periods of the kernel, tens of milliseconds,
/// in which a build starts several processes: those that come meanwhile go together.
#[derive(Debug, Default)]
pub(super) struct Detacher(Option<(Sender<Attached>, JoinHandle<()>)>);

impl Detacher {
    /// Hands links over.
    pub(super) fn detach(&mut self, links: Attached) {
        if links.is_empty() {
            return;
        }
        let (sender, _) = self.0.get_or_insert_with(|| {
            let (sender, receiver) = channel::<Attached>();
            let thread = std::thread::spawn(move || {
                while let Ok(mut links) = receiver.recv() {
                    for more in receiver.try_iter() {
                        links.append(more);
                    }
                    links.detach();
                }
            });
            (sender, thread)
        });
        // A thread that has gone gives the links back, and dropping them takes them off.
        drop(sender.send(links));
    }

    /// Waits until all are off.
    pub(super) fn finish(&mut self) {
        if let Some((sender, thread)) = self.0.take() {
            drop(sender);
            if thread.join().is_err() {
                log::warn!(
                    "a thread that detached probes has failed: the kernel detaches them when memtap ends"
                );
            }
        }
    }
}

impl Drop for Detacher {
    fn drop(&mut self) {
        self.finish();
    }
}

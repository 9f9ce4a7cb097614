//! Small profiles, made by hand, for tests.

mod full;

use std::sync::LazyLock;
use std::time::Duration;

use tracer_ebpf::{Function, Loss, StackEnd};

use super::ExportOptions;
use super::source::{Origin, ReportSource, ReportView};
use crate::profile::session::{EventCounts, MapMemory, Probe, ProbeKind, SessionSettings, Traced};
use crate::profile::{
    Frame, FrameName, HeapValues, Losses, Metric, ObjectFile, Profile, ProfiledProcess, Session, SourceLine,
    Stack, Values,
};
use crate::settings::Probed;

pub(super) use full::{full, full_values, live_view};

/// A profile in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct SampleProfile {
    /// The profile so far.
    pub(super) profile: Profile,
}

impl SampleProfile {
    /// Adds a process, and returns its index.
    pub(super) fn process(&mut self, pid: u32, comm: &str) -> usize {
        self.profile.processes.push(ProfiledProcess {
            pid,
            inner_pid: None,
            comm: comm.into(),
            exe: Some(format!("/usr/bin/{comm}").into()),
            exited: false,
            held: None,
            hits: 0,
        });
        self.profile.processes.len() - 1
    }

    /// Adds a frame, and returns its index.
    pub(super) fn frame(&mut self, name: FrameName, source: Option<SourceLine>, inlined: bool) -> usize {
        self.profile.frames.push(Frame {
            name,
            source,
            inlined,
            object: None,
        });
        self.profile.frames.len() - 1
    }

    /// Adds a frame of which the name is known.
    pub(super) fn symbol(&mut self, name: &str) -> usize {
        self.frame(FrameName::Symbol(name.into()), None, false)
    }

    /// Adds a frame of which the line is known.
    pub(super) fn line(&mut self, name: &str, file: &str, line: u32) -> usize {
        let file = file.into();
        self.frame(
            FrameName::Symbol(name.into()),
            Some(SourceLine { file, line }),
            false,
        )
    }

    /// Adds a stack, and returns its figures.
    pub(super) fn stack(
        &mut self,
        process: usize,
        function: Function,
        frames: &[usize],
        end: Option<StackEnd>,
    ) -> &mut Values {
        self.profile.stacks.push(Stack {
            process,
            function,
            frames: frames.to_vec(),
            end,
            values: Values::default(),
        });
        let index = self.profile.stacks.len() - 1;
        &mut self.profile.stacks[index].values
    }

    /// Adds a whole stack of an allocator function, of whose blocks half were freed, and a
    /// quarter of the bytes.
    pub(super) fn heap(
        &mut self,
        process: usize,
        function: Function,
        frames: &[usize],
        calls: u64,
        bytes: u64,
    ) {
        *self.stack(process, function, frames, Some(StackEnd::Complete)) = Values {
            calls,
            bytes,
            heap: HeapValues {
                blocks: calls,
                freed: calls / 2,
                freed_bytes: bytes / 4,
                temporary: calls / 8,
                usable_bytes: bytes.saturating_add(8),
                peak_bytes: bytes / 2,
                ..HeapValues::default()
            },
            ..Values::default()
        };
    }
}

/// Weigh by bytes, group by name.
pub(super) const fn options() -> ExportOptions {
    ExportOptions {
        metric: Metric::AllocBytes,
        per_pid: false,
    }
}

/// Two files, one of them without names.
fn objects() -> Vec<ObjectFile> {
    vec![
        ObjectFile {
            path: "/usr/bin/server".into(),
            build_id: Some("0a1b2c3d".to_owned()),
            debug: Some("/usr/lib/debug/.build-id/0a/1b2c3d.debug".into()),
            has_names: true,
            frames: 5,
            ..ObjectFile::default()
        },
        ObjectFile {
            path: "/opt/lib/libstripped.so".into(),
            has_changed: true,
            frames: 1,
            unnamed: 1,
            ..ObjectFile::default()
        },
    ]
}

/// A profile with one of everything: several processes, all kinds of frames, all ends, both
/// families.
pub(super) fn mixed() -> Profile {
    let mut sample = SampleProfile::default();
    let server = sample.process(4711, "server");
    let first = sample.process(100, "worker");
    let second = sample.process(101, "worker");
    sample.profile.processes[first].exited = true;
    sample.profile.processes[second].exe = None;

    let start = sample.symbol("_start");
    let main = sample.line("main", "/src/server/main.c", 12);
    let parse = sample.line("<[u8; 4] as Parse>::parse", "/src/parse/lib.rs", 140);
    let grow = sample.frame(
        FrameName::Symbol("grow".into()),
        Some(SourceLine {
            file: "/src/vec.rs".into(),
            line: 97,
        }),
        true,
    );
    let broken = sample.symbol("broken\nname");
    let stripped = sample.frame(
        FrameName::Offset {
            module: "libstripped.so.1".into(),
            address: 0x1f2c,
        },
        None,
        false,
    );
    let unmapped = sample.frame(FrameName::Unmapped(0x7f12_3456_7000), None, false);

    sample.heap(
        server,
        Function::Malloc,
        &[start, main, parse, grow],
        3000,
        6_144_000,
    );
    sample.heap(server, Function::Malloc, &[start, main, parse, grow], 72, 147_456);
    sample.heap(server, Function::Calloc, &[start, main], 2, 4096);
    sample.heap(server, Function::Realloc, &[start, main, broken], 10, 1_000_000);
    sample.heap(server, Function::Malloc, &[start, main, stripped], 1, 100);
    for (end, bytes) in [
        (StackEnd::Truncated, 1000),
        (StackEnd::FramePointer, 2000),
        (StackEnd::ReadFault, 4000),
    ] {
        *sample.stack(server, Function::Malloc, &[unmapped, parse], Some(end)) = Values {
            calls: 5,
            bytes,
            ..Values::default()
        };
    }
    *sample.stack(server, Function::Malloc, &[], None) = Values {
        calls: 7,
        bytes: 700,
        ..Values::default()
    };
    sample.heap(first, Function::Malloc, &[start, main], 40, 40_000);
    sample.heap(second, Function::Malloc, &[start, main], 60, 80_000);
    sample.heap(second, Function::Malloc, &[start, main, grow], 4, 0);

    let mut region = |function, values| {
        *sample.stack(server, function, &[start, main], Some(StackEnd::Complete)) = values;
    };
    let values = Values::default();
    region(
        Function::Mmap,
        Values {
            calls: 4,
            bytes: 16_384,
            failed: 1,
            ..values
        },
    );
    region(
        Function::Munmap,
        Values {
            calls: 1,
            bytes: 4096,
            ..values
        },
    );
    region(
        Function::Mremap,
        Values {
            calls: 2,
            bytes: 16_384,
            bytes_out: 8192,
            ..values
        },
    );
    region(
        Function::Brk,
        Values {
            calls: 3,
            bytes: 135_168,
            bytes_out: 4096,
            ..values
        },
    );
    sample.profile.objects = objects();
    sample.profile
}

/// A session that traced everything, and lost a little.
pub(super) fn session() -> Session {
    Session {
        began_unix_ns: 1_790_000_000_000_000_000,
        command: vec!["server".into(), "--port 80".into()],
        duration: Duration::from_millis(10_020),
        kernel: "6.18.0".into(),
        settings: SessionSettings {
            traced: Traced {
                heap: true,
                region: true,
                live: false,
                sampled: false,
            },
            sample_bytes: 1,
            unwind: "dwarf".into(),
            scope: Some(Probed::Tree),
            scope_at_end: Some(Probed::Machine),
            follow: Some(true),
            min_size: Some(16),
            max_size: None,
        },
        probes: vec![Probe {
            object: "/usr/lib/x86_64-linux-gnu/libc.so.6".into(),
            symbol: "malloc".into(),
            offset: 0x98930,
            kind: ProbeKind::Entry,
            single_stepped: false,
        }],
        events: EventCounts {
            seen: 3250,
            recorded: 3210,
            nested: 25,
            filtered: 5,
            foreign: 3,
            unsampled: 0,
        },
        losses: Losses::new([(Loss::ScratchBusy, 7)]),
        memory: vec![
            MapMemory {
                name: "SUMS".into(),
                bytes: 1 << 22,
            },
            MapMemory {
                name: "RECORDS".into(),
                bytes: 1 << 20,
            },
        ],
        tables: None,
        cost: None,
    }
}

/// A profile as exporters take it.
pub(super) fn source<'a>(profile: &'a Profile, session: &'a Session) -> ReportSource<'a> {
    static VIEW: LazyLock<ReportView> = LazyLock::new(|| ReportView::new(Metric::AllocBytes));
    ReportSource {
        profile,
        origin: Origin::Recording(session),
        view: &VIEW,
    }
}

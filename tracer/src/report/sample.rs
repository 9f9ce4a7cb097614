//! Small profiles, made by hand, for tests.

use std::sync::LazyLock;
use std::time::Duration;

use tracer_ebpf::{BUCKETS, Function, Loss, StackEnd};

use super::ExportOptions;
use super::source::{LiveView, Origin, ReportSource, ReportView};
use super::table::live::LiveSort;
use super::table::{SortColumn, TableView};
use crate::profile::cost::{BudgetBlock, Cost, PricesBlock};
use crate::profile::session::{
    EventCounts, MapMemory, Probe, ProbeKind, SessionSettings, TableUsage, Traced,
};
use crate::profile::{
    Aged, Frame, FrameName, GroupVariance, HeapTotals, HeapValues, HeapVariances, Losses, Marks, Metric,
    ObjectFile, Profile, ProfiledProcess, Session, SourceLine, Stack, Values, Variances,
};

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

/// Figures that all differ, and grow with `seed`; those of 128 bits do not fit 64.
pub(super) fn full_values(seed: u64) -> Values {
    let wide = |number: u128| (u128::from(seed) << 64) + number;
    let counts = |from: u32| std::array::from_fn::<u32, BUCKETS, _>(|it| from + u32::try_from(it).unwrap());
    Values {
        calls: seed + 40,
        bytes: seed + 41,
        bytes_out: seed + 2,
        failed: seed + 3,
        heap: HeapValues {
            blocks: seed + 30,
            freed: seed + 5,
            freed_bytes: seed + 6,
            temporary: seed + 7,
            usable_bytes: seed + 8,
            untracked: 9,
            untracked_bytes: 10,
            peak_bytes: seed + 11,
            sizes: counts(100),
            lifetimes: counts(1000),
            aged: Aged {
                live: seed + 12,
                live_bytes: seed + 13,
                old: seed + 14,
                old_bytes: seed + 15,
                kept: seed + 16,
                kept_bytes: seed + 17,
                oldest_ns: seed + 18,
                half_live: seed + 19,
                marks_bytes: [seed + 20, seed + 21, seed + 22],
                live_variance: wide(23),
                live_bytes_variance: wide(24),
                old_bytes_variance: wide(25),
            },
        },
        variances: Variances {
            calls: wide(31),
            bytes: wide(32),
            blocks: wide(33),
            freed: wide(34),
            freed_bytes: wide(35),
            temporary: wide(36),
            untracked: wide(37),
            untracked_bytes: wide(38),
        },
    }
}

/// A profile with everything that a profile can have, beside what [`mixed`] has.
pub(super) fn full() -> (Profile, Session) {
    let mut profile = mixed();
    let held = |seed| HeapTotals {
        live_bytes: seed + 1,
        live: seed + 2,
        peak_bytes: seed + 3,
        peak: seed + 4,
        peak_by_stack_bytes: Some(seed + 5),
        free_calls: seed + 6,
        unmatched: seed + 7,
        missed: seed + 8,
        variances: HeapVariances {
            live: u128::MAX,
            live_bytes: 1 << 100,
            peak: 3,
            peak_bytes: 4,
        },
    };
    for (seed, stack) in (1..).zip(&mut profile.stacks) {
        stack.values = full_values(seed * 1000);
    }
    profile.stacks[0].values.bytes = u64::MAX;
    for (seed, process) in (1..).zip(&mut profile.processes) {
        process.inner_pid = Some(7);
        process.held = Some(held(seed * 100));
        process.hits = 99 + seed;
    }
    // Two images of one process, of which nothing but the order tells.
    let again = ProfiledProcess {
        hits: 1,
        ..profile.processes[0].clone()
    };
    profile.processes.push(again);
    let stack = Stack {
        process: profile.processes.len() - 1,
        ..profile.stacks[1].clone()
    };
    profile.stacks.push(stack);
    // Places of files, inlined code, and names that are easily taken for others.
    for (index, frame) in profile.frames.iter_mut().enumerate() {
        frame.object = (index != 6).then_some(usize::from(index == 5));
    }
    let odd = [
        FrameName::Compiled,
        FrameName::Symbol("".into()),
        FrameName::Symbol("[truncated]".into()),
        FrameName::Symbol("[jit]".into()),
    ];
    let first = profile.frames.len();
    profile.frames.extend(odd.map(|name| Frame {
        name,
        source: None,
        inlined: false,
        object: None,
    }));
    profile.frames.push(Frame {
        name: FrameName::Symbol("outermost".into()),
        source: Some(SourceLine {
            file: "".into(),
            line: 5,
        }),
        inlined: true,
        object: Some(1),
    });
    let stack = Stack {
        frames: (first..first + 5).chain([3, 3, 0]).collect(),
        end: Some(StackEnd::Signal),
        ..profile.stacks[0].clone()
    };
    profile.stacks.push(stack);
    profile.objects[1].debug = Some("/usr/lib/debug/a".into());
    profile.objects[1].was_fetched = true;
    profile.held = Some(held(7));
    profile.together = vec![
        GroupVariance {
            process: None,
            function: None,
            calls_variance: 1 << 80,
            bytes_variance: 2,
        },
        GroupVariance {
            process: Some(1),
            function: Some(Function::Calloc),
            calls_variance: 3,
            bytes_variance: 4,
        },
    ];
    profile.has_ages = true;
    profile.sample_bytes = Some(512 << 10);
    profile.marks = Some(Marks {
        at: [2501, 5002, 7503].map(Duration::from_micros),
        end: Duration::from_nanos(10_020_000_001),
    });

    let mut session = session();
    session.settings.traced.live = true;
    session.settings.traced.sampled = true;
    session.settings.sample_bytes = 512 << 10;
    session.tables = Some(TableUsage {
        files: 12,
        awaited: 3,
        ..TableUsage::default()
    });
    session.cost = Some(Cost {
        hits: 100,
        foreign_hits: 3,
        bpf_ns: 5,
        estimated_target_ns: 6,
        estimated_overhead_percent: 0.1 + 0.2,
        prices: PricesBlock {
            emulated_ns: 700,
            ..PricesBlock::default()
        },
        budget: Some(BudgetBlock {
            max_overhead_percent: 2.0,
            kept: true,
            sample_bytes_smallest: 1,
            sample_bytes_largest: 3,
            sample_bytes_last: 2,
            probed_time_share: 1.0 / 3.0,
            windows: 4,
            slowing_factor: Some(1.1),
            slowing_error: None,
            calls_stderr: Some(8),
            bytes_stderr: None,
        }),
    });
    (profile, session)
}

/// The view of a report on live blocks, with all that a view can have.
pub(super) fn live_view() -> ReportView {
    ReportView {
        metric: Metric::LiveBytes,
        per_pid: true,
        table: TableView {
            top: 7,
            sort: Some(SortColumn::LiveBytes),
            live_sort: LiveSort::Oldest,
            min_percent: Some(0.1),
            short_names: false,
            hide: Some("^lib".to_owned()),
            ..TableView::default()
        },
        live: Some(LiveView {
            older_than: Some(Duration::from_millis(1500)),
        }),
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

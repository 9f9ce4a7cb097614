//! Profiles of other programs: Go's heap profiles, those that jemalloc's and tcmalloc's are
//! converted to, and those of memtap that another program has changed.

use std::collections::HashMap;
use std::time::Duration;

use tracer_ebpf::Function;

use super::error::{PprofError, shown};
use super::messages::{ProtoProfile, ProtoSample};
use super::read_tables::{ReadFrames, ReadTables};
use super::sample_types::metric_of;
use super::saved::{SavedOrigin, SavedProfile};
use super::{FUNCTION, PID, PROCESS};
use crate::profile::text::function_named;
use crate::profile::{FrameName, HeapValues, Metric, ObjectFile, Profile, ProfiledProcess, Stack, Values};
use crate::report::source::{ForeignFacts, ReportView};

/// Makes a profile of what the tables tell.
pub(super) fn profile(message: &ProtoProfile, tables: &ReadTables<'_>) -> Result<SavedProfile, PprofError> {
    let types = ForeignTypes::of(message, tables)?;
    let frames = ReadFrames::of(message, tables, None)?;
    let objects = objects(message, tables)?;
    let main = objects.first().map(file_name).unwrap_or_default();
    let mut processes = ForeignProcesses::default();
    let mut stacks = Vec::with_capacity(message.sample.len());
    for sample in &message.sample {
        let process = processes.index(sample, tables, &main)?;
        let end = tables.stack_end(sample)?;
        let mut callers = frames.stack(sample, tables, end)?;
        let function = match tables.label(sample, FUNCTION)? {
            Some(label) => function_named(&label.text).unwrap_or(Function::Unknown),
            None => innermost_function(&frames, &mut callers),
        };
        stacks.push(Stack {
            process,
            function,
            frames: callers,
            end,
            values: types.values(sample, function)?,
        });
    }
    let facts = facts(message, tables, &types)?;
    let view = ReportView::new(types.default);
    Ok(SavedProfile {
        profile: Profile {
            processes: processes.processes,
            frames: frames.frames,
            stacks,
            objects,
            sample_bytes: (facts.period_bytes > 1).then_some(facts.period_bytes),
            ..Profile::default()
        },
        origin: SavedOrigin::Foreign(facts),
        view,
        is_altered: false,
    })
}

/// The types of values that are of memory.
struct ForeignTypes {
    /// The index of each metric's value.
    index: HashMap<Metric, usize>,
    /// The metrics in the order of the file.
    metrics: Vec<Metric>,
    /// The metric that viewers show first.
    default: Metric,
}

impl ForeignTypes {
    fn of(message: &ProtoProfile, tables: &ReadTables<'_>) -> Result<Self, PprofError> {
        let mut types = Self {
            index: HashMap::new(),
            metrics: Vec::new(),
            default: Metric::LiveBytes,
        };
        let default = tables.text(message.default_sample_type)?;
        let mut named = None;
        let mut all = Vec::new();
        for (index, value) in message.sample_type.iter().enumerate() {
            let (name, unit) = (tables.text(value.r#type)?, tables.text(value.unit)?);
            if let Some(metric) = metric_of(&name, &unit)
                && types.index.insert(metric, index).is_none()
            {
                types.metrics.push(metric);
                if name == default {
                    named = Some(metric);
                }
            }
            all.push(format!("{name}/{unit}"));
        }
        // Of a profile that names none, pprof shows the last.
        types.default = match named.or(types.metrics.last().copied()) {
            Some(metric) => metric,
            None if all.is_empty() => return Err(PprofError::NoMemory("no sample types at all".to_owned())),
            None => return Err(PprofError::NoMemory(shown(&all.join(", ")))),
        };
        Ok(types)
    }

    /// The value of a metric; nothing where there is none.
    fn value(&self, sample: &ProtoSample, metric: Metric) -> Result<Option<u64>, PprofError> {
        let value = self.index.get(&metric).and_then(|it| sample.value.get(*it));
        value
            .map(|it| u64::try_from(*it).map_err(|_error| PprofError::Difference))
            .transpose()
    }

    /// The figures of a sample.
    fn values(&self, sample: &ProtoSample, function: Function) -> Result<Values, PprofError> {
        let value = |metric| self.value(sample, metric);
        if !function.is_heap() {
            return Ok(Values {
                bytes: value(Metric::RegionBytes)?.unwrap_or(0),
                ..Values::default()
            });
        }
        let calls = value(Metric::AllocCount)?;
        let blocks = BlockBalance::of(calls, value(Metric::LiveCount)?, None);
        let bytes = BlockBalance::of(
            value(Metric::AllocBytes)?,
            value(Metric::LiveBytes)?,
            value(Metric::FreedBytes)?,
        );
        Ok(Values {
            calls: calls.unwrap_or(0),
            bytes: bytes.allocated,
            heap: HeapValues {
                blocks: blocks.allocated,
                freed: blocks.freed,
                untracked: blocks.untracked,
                freed_bytes: bytes.freed,
                untracked_bytes: bytes.untracked,
                temporary: value(Metric::TemporaryCount)?.unwrap_or(0),
                peak_bytes: value(Metric::PeakBytes)?.unwrap_or(0),
                ..HeapValues::default()
            },
            ..Values::default()
        })
    }
}

/// Allocated blocks or bytes, by what became of them.
struct BlockBalance {
    allocated: u64,
    freed: u64,
    untracked: u64,
}

impl BlockBalance {
    /// Completes what is known. Estimates can have more in use than was allocated: as much is taken
    /// to be allocated.
    fn of(allocated: Option<u64>, live: Option<u64>, freed: Option<u64>) -> Self {
        let allocated = allocated.unwrap_or(0).max(live.unwrap_or(0));
        let gone = live.map_or(0, |live| allocated - live);
        let freed = freed.map_or(gone, |freed| freed.min(allocated));
        Self {
            allocated,
            freed,
            untracked: gone.saturating_sub(freed),
        }
    }
}

/// Takes the innermost frame for the function that was called, if it has the name of one.
fn innermost_function(frames: &ReadFrames, callers: &mut Vec<usize>) -> Function {
    let name = callers
        .last()
        .and_then(|it| frames.frames.get(*it))
        .map(|it| &it.name);
    let function = match name {
        Some(FrameName::Symbol(name)) => function_named(name),
        _ => None,
    };
    match function.filter(|it| it.is_heap() && *it != Function::Free) {
        Some(function) => {
            callers.pop();
            function
        }
        None => Function::Unknown,
    }
}

/// The processes that labels name, or the program.
#[derive(Default)]
struct ForeignProcesses {
    processes: Vec<ProfiledProcess>,
    index: HashMap<(u32, String), usize>,
}

impl ForeignProcesses {
    fn index(
        &mut self,
        sample: &ProtoSample,
        tables: &ReadTables<'_>,
        main: &str,
    ) -> Result<usize, PprofError> {
        let pid = tables.label(sample, PID)?;
        let pid = pid.and_then(|it| u32::try_from(it.number).ok()).unwrap_or(0);
        let comm = tables.label(sample, PROCESS)?.map(|it| it.text);
        let comm = comm
            .filter(|it| !it.is_empty())
            .unwrap_or_else(|| main.to_owned());
        let key = (pid, comm);
        if let Some(index) = self.index.get(&key) {
            return Ok(*index);
        }
        self.processes.push(ProfiledProcess {
            pid,
            inner_pid: None,
            comm: key.1.clone(),
            exe: None,
            exited: false,
            held: None,
            hits: 0,
        });
        self.index.insert(key, self.processes.len() - 1);
        Ok(self.processes.len() - 1)
    }
}

fn objects(message: &ProtoProfile, tables: &ReadTables<'_>) -> Result<Vec<ObjectFile>, PprofError> {
    let mut objects = Vec::with_capacity(message.mapping.len());
    for mapping in &message.mapping {
        let build_id = tables.text(mapping.build_id)?;
        objects.push(ObjectFile {
            path: tables.text(mapping.filename)?.into(),
            build_id: (!build_id.is_empty()).then_some(build_id),
            has_names: mapping.has_functions,
            ..ObjectFile::default()
        });
    }
    Ok(objects)
}

fn file_name(object: &ObjectFile) -> String {
    let name = object.path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn facts(
    message: &ProtoProfile,
    tables: &ReadTables<'_>,
    types: &ForeignTypes,
) -> Result<ForeignFacts, PprofError> {
    let period_unit = match &message.period_type {
        Some(period) => tables.text(period.unit)?,
        None => String::new(),
    };
    let mut comments = Vec::new();
    for comment in &message.comment {
        let comment = tables.text(*comment)?;
        if !comment.starts_with('#') {
            comments.push(comment);
        }
    }
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    let duration_ns = unsigned(message.duration_nanos);
    Ok(ForeignFacts {
        metrics: types.metrics.clone(),
        duration: (duration_ns > 0).then(|| Duration::from_nanos(duration_ns)),
        began_unix_ns: unsigned(message.time_nanos),
        period_bytes: if period_unit == "bytes" {
            unsigned(message.period).max(1)
        } else {
            1
        },
        comments,
    })
}

//! Frame description entries → rows, read with gimli.

use std::collections::HashMap;

use gimli::{
    BaseAddresses, CommonInformationEntry, DebugFrame, EhFrame, EndianSlice, FrameDescriptionEntry,
    LittleEndian, UnwindContext, UnwindOffset, UnwindSection,
};

use crate::unwind::context_start::is_context_start;
use crate::unwind::frames::{CfiSection, Frames};
use crate::unwind::layout::{Rule, rbp};
use crate::unwind::rule_set::RuleSet;
use crate::unwind::rules::{Storage, classify, is_in_ucontext};
use crate::unwind::signal::{MAX_TRAMPOLINE_BYTES, trampoline_len};
use crate::unwind::{Code, CompileStatistics, Unsupported};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// No CIE that a compiler writes is longer. Its instructions are run again for each of its FDEs, so
/// that a long one would make the time quadratic in the file's size.
const MAX_CIE_BYTES: usize = 1024;

/// The start of a rule: from this address (relative to the code's base) on that rule of a
/// [`RuleSet`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleStart {
    pub(crate) pc: u32,
    pub(crate) rule: u32,
}

/// An FDE: addresses relative to the code's base, and its range of the part's rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FunctionRows {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) first_row: u32,
    pub(crate) rows: u32,
}

/// The rows read from a share of a file's FDEs, in the order of the section.
#[derive(Debug, Default)]
pub(crate) struct CfiPart {
    pub(crate) functions: Vec<FunctionRows>,
    pub(crate) rows: Vec<RuleStart>,
    pub(crate) rules: RuleSet,
    pub(crate) statistics: CompileStatistics,
}

impl CfiPart {
    /// Reads the FDEs at `entries`, offsets in the section.
    pub(crate) fn read(frames: &Frames<'_>, code: &Code<'_>, entries: &[usize]) -> Self {
        match frames.source {
            CfiSection::EhFrame => {
                CfiReader::new(frames, code, EhFrame::new(&frames.bytes, LittleEndian)).read(entries)
            }
            CfiSection::DebugFrame => {
                let mut section = DebugFrame::new(&frames.bytes, LittleEndian);
                section.set_address_size(8);
                CfiReader::new(frames, code, section).read(entries)
            }
        }
    }
}

struct CfiReader<'a, S> {
    frames: &'a Frames<'a>,
    code: &'a Code<'a>,
    section: S,
    cies: Cies<'a>,
    context: UnwindContext<usize, Storage>,
    part: CfiPart,
}

impl<'a, S: UnwindSection<Slice<'a>>> CfiReader<'a, S>
where
    S::Offset: UnwindOffset<usize>,
{
    fn new(frames: &'a Frames<'a>, code: &'a Code<'a>, section: S) -> Self {
        let context = UnwindContext::new_in();
        Self {
            frames,
            code,
            section,
            cies: Cies::default(),
            context,
            part: CfiPart::default(),
        }
    }

    fn read(mut self, entries: &[usize]) -> CfiPart {
        // Five rows a function is what compilers come to.
        self.part.functions.reserve(entries.len());
        self.part.rows.reserve(entries.len() * 5);
        for entry in entries {
            let (frames, cies) = (self.frames, &mut self.cies);
            let fde =
                self.section
                    .fde_from_offset(&frames.bases, S::Offset::from(*entry), |section, bases, at| {
                        cies.get(frames, section, bases, at)
                    });
            match fde {
                Ok(fde) => self.function(&fde),
                Err(_) => self.part.statistics.malformed += 1,
            }
        }
        self.part
    }

    fn function(&mut self, fde: &FrameDescriptionEntry<Slice<'a>>) {
        let address = fde.initial_address();
        let Some((start, limit)) = self.code.locate(address).filter(|_| fde.len() > 0) else {
            self.part.statistics.outside += 1;
            return;
        };
        let len = u32::try_from(fde.len()).unwrap_or(u32::MAX);
        let end = start.saturating_add(len).min(limit);
        let first_row = self.part.rows.len();
        let origin = RowOrigin::of(self.code, fde, start, end);
        if let Some(rule) = origin.by_code {
            let rule = self.part.rules.number(rule);
            self.part.rows.push(RuleStart {
                pc: origin.start,
                rule,
            });
            self.part.statistics.rows_raw += 1;
        } else {
            self.rows(fde, start, end);
            if let Some(row) = self.part.rows.get_mut(first_row) {
                row.pc = origin.start;
            }
        }
        let rows = self.part.rows.len() - first_row;
        // A part has fewer rows than its section has bytes, and a section over 4 GiB is past every
        // limit.
        let (Ok(first_row), Ok(rows)) = (u32::try_from(first_row), u32::try_from(rows)) else {
            return;
        };
        self.part.functions.push(FunctionRows {
            start: origin.start,
            end,
            first_row,
            rows,
        });
        self.part.statistics.functions += 1;
        self.part.statistics.code_bytes += u64::from(end - start);
    }

    fn rows(&mut self, fde: &FrameDescriptionEntry<Slice<'a>>, start: u32, end: u32) {
        let CfiPart {
            rows,
            rules,
            statistics,
            ..
        } = &mut self.part;
        let first_row = rows.len();
        let mut push = |pc: u32, rule: u32| {
            let is_same = rows
                .get(first_row..)
                .and_then(<[_]>::last)
                .is_some_and(|last| last.rule == rule);
            if !is_same {
                rows.push(RuleStart { pc, rule });
            }
        };
        // Addresses of rows lie in the function, so differences from its start fit.
        let relative = |address: u64| {
            let offset = address.checked_sub(fde.initial_address())?;
            Some(
                start
                    .saturating_add(u32::try_from(offset).unwrap_or(u32::MAX))
                    .min(end),
            )
        };
        let return_column = fde.cie().return_address_register();
        let is_signal = fde.is_signal_trampoline();
        let mut covered = start;
        let mut table = fde
            .rows(&self.section, &self.frames.bases, &mut self.context)
            .ok();
        while covered < end {
            let row = match table.as_mut().map(gimli::UnwindTable::next_row) {
                Some(Ok(Some(row))) => row,
                Some(Ok(None)) => break,
                Some(Err(_)) | None => {
                    statistics.malformed += 1;
                    statistics.count_unsupported(Unsupported::Malformed, u64::from(end - covered));
                    push(covered, RuleSet::UNSUPPORTED);
                    break;
                }
            };
            statistics.rows_raw += 1;
            let (Some(from), Some(to)) = (relative(row.start_address()), relative(row.end_address())) else {
                continue;
            };
            if from < covered || to <= from {
                continue;
            }
            covered = to;
            let rule = if is_signal && is_in_ucontext(row, return_column, &self.section) {
                Ok(Rule::SIGNAL)
            } else {
                classify(row, return_column, &self.section)
            };
            let bytes = u64::from(to - from);
            match rule {
                Ok(rule) => {
                    statistics.rbp_lost_bytes += if rule.rbp_kind == rbp::LOST { bytes } else { 0 };
                    push(from, rules.number(rule));
                }
                Err(reason) => {
                    statistics.count_unsupported(reason, bytes);
                    push(from, RuleSet::UNSUPPORTED);
                }
            }
        }
    }
}

/// The origin of a function's rows, and the rule that its code alone tells.
struct RowOrigin {
    start: u32,
    by_code: Option<Rule>,
}

impl RowOrigin {
    /// Functions that are returned to at their first byte have rows from the byte before: that is
    /// where return addresses are looked up.
    fn of(code: &Code<'_>, fde: &FrameDescriptionEntry<Slice<'_>>, start: u32, end: u32) -> Self {
        if is_context_start(code.bytes(start, end)) {
            return Self {
                start: start.saturating_sub(1),
                by_code: Some(Rule::END),
            };
        }
        let marked = fde.is_signal_trampoline();
        if !marked && end - start > MAX_TRAMPOLINE_BYTES {
            return Self { start, by_code: None };
        }
        let at = |pc: u32| trampoline_len(code.bytes(pc, end)).is_some();
        let by_code = at(start);
        // glibc's entry begins that byte early already.
        let is_early = at(start.saturating_add(1));
        let start = if (marked || by_code) && !is_early {
            start.saturating_sub(1)
        } else {
            start
        };
        Self {
            start,
            by_code: (by_code || is_early).then_some(Rule::SIGNAL),
        }
    }
}

/// The CIEs parsed so far. Neighbouring FDEs mostly share one.
#[derive(Default)]
struct Cies<'a> {
    last: Option<(usize, CommonInformationEntry<Slice<'a>>)>,
    all: HashMap<usize, CommonInformationEntry<Slice<'a>>>,
}

impl<'a> Cies<'a> {
    fn get<S: UnwindSection<Slice<'a>>>(
        &mut self,
        frames: &Frames<'_>,
        section: &S,
        bases: &BaseAddresses,
        offset: S::Offset,
    ) -> gimli::Result<CommonInformationEntry<Slice<'a>>> {
        let at: usize = UnwindOffset::into(offset);
        if let Some((_, cie)) = self.last.as_ref().filter(|(last, _)| *last == at) {
            return Ok(cie.clone());
        }
        let cie = if let Some(cie) = self.all.get(&at) {
            cie.clone()
        } else {
            if frames.entry_len(at).is_none_or(|len| len > MAX_CIE_BYTES) {
                return Err(gimli::Error::NotCieId(at as u64));
            }
            let cie = section.cie_from_offset(bases, offset)?;
            self.all.insert(at, cie.clone());
            cie
        };
        self.last = Some((at, cie.clone()));
        Ok(cie)
    }
}

//! The rows of a table as a command line asks for them.

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::report::table::live::LiveSort;
use crate::report::table::{GroupBy, SortColumn, StackDetail, TableView, TreeDirection};

/// A column that rows are to be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RequestedSort {
    Bytes,
    Calls,
    /// Bytes of a call
    Avg,
    /// Sum with all that was called (--by function, line, module)
    Cum,
    LiveBytes,
    LiveCount,
    FreedBytes,
    TemporaryCount,
    /// Likeness to leaks (memtap live)
    Score,
    /// Growth since half-way (memtap live)
    Growth,
    /// Age of the oldest block (memtap live)
    Oldest,
}

/// The parts of a [`TableView`] that were asked for; what was not is the default's, or that of a
/// saved profile.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TableRequest {
    /// The number of rows.
    pub(super) top: Option<usize>,
    /// The property of stacks that makes a row.
    pub(super) by: Option<GroupBy>,
    /// A tree in place of rows.
    pub(super) tree: Option<TreeDirection>,
    /// The part of stacks that is shown.
    pub(super) stacks: Option<StackDetail>,
    /// The order of rows.
    pub(super) sort: Option<RequestedSort>,
    /// The share in percent below which rows are left out.
    pub(super) min_percent: Option<f64>,
    /// Names of functions are short.
    pub(super) short_names: Option<bool>,
    /// A regular expression for code that is passed over.
    pub(super) hide: Option<String>,
    /// A regular expression for the program's own code.
    pub(super) own: Option<String>,
}

impl TableRequest {
    /// Checks the arguments, and puts them in place of what a table has otherwise. `has_live`:
    /// blocks are tracked. `is_live_report`: the table is that of live blocks.
    pub(super) fn view(
        &self,
        otherwise: TableView,
        has_live: bool,
        is_live_report: bool,
    ) -> Result<TableView> {
        let by = self.by.unwrap_or(otherwise.by);
        if by == GroupBy::Size && !has_live {
            bail!("--by size needs --live: only then are the sizes of blocks counted");
        }
        let is_grouped = self.by.is_some_and(|by| by != GroupBy::Stack) || self.tree.is_some();
        if is_live_report && is_grouped {
            bail!(
                "--by and --tree are for `memtap record`: `memtap live` ranks stacks; use `memtap record --live --metric \
                 live-bytes`"
            );
        }
        let (sort, live_sort) = self.sorts(&otherwise, by, has_live, is_live_report)?;
        Ok(TableView {
            top: self.top.unwrap_or(otherwise.top),
            by,
            tree: match self.tree {
                None if self.by.is_some() => None,
                None => otherwise.tree,
                Some(tree) => Some(tree),
            },
            stacks: self.stacks.unwrap_or(otherwise.stacks),
            sort,
            live_sort,
            min_percent: self.min_percent.or(otherwise.min_percent),
            short_names: self.short_names.unwrap_or(otherwise.short_names),
            hide: self.hide.clone().or(otherwise.hide),
            own: self.own.clone().or(otherwise.own),
        })
    }

    /// Returns the order of either table.
    fn sorts(
        &self,
        otherwise: &TableView,
        by: GroupBy,
        has_live: bool,
        is_live_report: bool,
    ) -> Result<(Option<SortColumn>, LiveSort)> {
        let live_sort = match self.sort {
            None => Some(otherwise.live_sort),
            Some(RequestedSort::Score) => Some(LiveSort::Score),
            Some(RequestedSort::LiveBytes) => Some(LiveSort::LiveBytes),
            Some(RequestedSort::LiveCount) => Some(LiveSort::LiveCount),
            Some(RequestedSort::Growth) => Some(LiveSort::Growth),
            Some(RequestedSort::Oldest) => Some(LiveSort::Oldest),
            Some(_) => None,
        };
        if is_live_report {
            return match live_sort {
                Some(sort) => Ok((None, sort)),
                None => bail!(
                    "--sort: the table of live blocks has the columns score, live-bytes, live-count, growth and oldest"
                ),
            };
        }
        let Some(sort) = self.sort else {
            return Ok((otherwise.sort, otherwise.live_sort));
        };
        let needs_live = matches!(
            sort,
            RequestedSort::LiveBytes
                | RequestedSort::LiveCount
                | RequestedSort::FreedBytes
                | RequestedSort::TemporaryCount
        );
        if needs_live && !has_live {
            bail!("--sort by a figure of live or freed blocks needs --live");
        }
        let column = match sort {
            RequestedSort::Bytes => SortColumn::Bytes,
            RequestedSort::Calls => SortColumn::Calls,
            RequestedSort::Avg => SortColumn::Average,
            RequestedSort::Cum if matches!(by, GroupBy::Function | GroupBy::Line | GroupBy::Module) => {
                SortColumn::Cumulative
            }
            RequestedSort::Cum => bail!("--sort cum needs --by function, line or module"),
            RequestedSort::LiveBytes => SortColumn::LiveBytes,
            RequestedSort::LiveCount => SortColumn::LiveCount,
            RequestedSort::FreedBytes => SortColumn::FreedBytes,
            RequestedSort::TemporaryCount => SortColumn::TemporaryCount,
            RequestedSort::Score | RequestedSort::Growth | RequestedSort::Oldest => {
                bail!("--sort by score, growth or age is for `memtap live`")
            }
        };
        Ok((Some(column), otherwise.live_sort))
    }
}

//! The arguments of tables: their rows, their order, and what is shown of stacks.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use regex::Regex;

use crate::cli::settings::TableSettings;
use crate::report::own_code::CodeRules;
use crate::report::table::live::LiveSort;
use crate::report::table::{GroupBy, SortColumn, StackDetail, TableOptions, TreeDirection};

/// Arguments of tables.
#[derive(Debug, Args)]
#[command(next_help_heading = "Table")]
pub(super) struct TableArguments {
    /// Rows in the table
    #[arg(long, default_value_t = TableOptions::TOP, value_name = "N")]
    top: usize,
    /// Property of stacks that makes a row; function, line and module have the sum with all that
    /// they called beside their own
    #[arg(long, value_enum, default_value = "stack", value_name = "WHAT")]
    by: ByArgument,
    /// A tree with shares in place of rows: from the program's functions to their callers, or from
    /// the processes to what they call
    #[arg(long, value_enum, value_name = "DIRECTION", conflicts_with = "by")]
    tree: Option<Tree>,
    /// Parts of each stack: the function of the program that it comes from, also its callers in
    /// brief, or every frame
    #[arg(long, value_enum, default_value = "brief", value_name = "DETAIL")]
    stacks: DetailArgument,
    /// Order of the rows, the largest first [default: the metric; live: score]
    #[arg(long, value_enum, value_name = "COLUMN")]
    sort: Option<Sort>,
    /// Leave out rows of less than this share of the total, and branches of trees [default: 0 for
    /// rows, 1 for branches]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    min_percent: Option<f64>,
    /// Names of functions without return types, parameters and arguments of templates (the default)
    #[arg(long, overrides_with = "long_names")]
    short_names: bool,
    /// Whole names of functions, as files have them
    #[arg(long, overrides_with = "short_names")]
    long_names: bool,
    /// Pass over frames whose function, source file or library matches, like those of standard
    /// libraries
    #[arg(long, value_name = "REGEX")]
    hide: Option<Regex>,
    /// Take frames for the program's own code whose function, source file or library matches
    #[arg(long, value_name = "REGEX")]
    own: Option<Regex>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ByArgument {
    /// Whole stacks
    Stack,
    /// Innermost places in the program's own code
    Site,
    Function,
    /// Lines of source
    Line,
    /// Programs and libraries
    Module,
    Process,
    /// Sizes of blocks; needs --live
    Size,
    /// Functions of allocators: malloc, calloc, …
    Allocator,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tree {
    Callers,
    Callees,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DetailArgument {
    Site,
    Brief,
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
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

impl TableArguments {
    /// Checks the arguments. `has_live`: blocks are tracked. `is_live_report`: the table is that of
    /// live blocks.
    pub(super) fn settings(&self, has_live: bool, is_live_report: bool) -> Result<TableSettings> {
        if self.by == ByArgument::Size && !has_live {
            bail!("--by size needs --live: only then are the sizes of blocks counted");
        }
        if is_live_report && (self.by != ByArgument::Stack || self.tree.is_some()) {
            bail!(
                "--by and --tree are for `memtap record`: `memtap live` ranks stacks; use `memtap record --live --metric \
                 live-bytes`"
            );
        }
        let (sort, live_sort) = self.sorts(has_live, is_live_report)?;
        Ok(TableSettings {
            top: self.top,
            by: match self.by {
                ByArgument::Stack => GroupBy::Stack,
                ByArgument::Site => GroupBy::Site,
                ByArgument::Function => GroupBy::Function,
                ByArgument::Line => GroupBy::Line,
                ByArgument::Module => GroupBy::Module,
                ByArgument::Process => GroupBy::Process,
                ByArgument::Size => GroupBy::Size,
                ByArgument::Allocator => GroupBy::Allocator,
            },
            tree: self.tree.map(|tree| match tree {
                Tree::Callers => TreeDirection::Callers,
                Tree::Callees => TreeDirection::Callees,
            }),
            stacks: match self.stacks {
                DetailArgument::Site => StackDetail::Site,
                DetailArgument::Brief => StackDetail::Brief,
                DetailArgument::Full => StackDetail::Full,
            },
            sort,
            live_sort,
            min_percent: self.min_percent.unwrap_or(0.0),
            short_names: self.short_names || !self.long_names,
            rules: CodeRules {
                hide: self.hide.clone(),
                own: self.own.clone(),
            },
        })
    }

    /// Returns the order of either table.
    fn sorts(&self, has_live: bool, is_live_report: bool) -> Result<(Option<SortColumn>, LiveSort)> {
        let live_sort = match self.sort {
            None | Some(Sort::Score) => Some(LiveSort::Score),
            Some(Sort::LiveBytes) => Some(LiveSort::LiveBytes),
            Some(Sort::LiveCount) => Some(LiveSort::LiveCount),
            Some(Sort::Growth) => Some(LiveSort::Growth),
            Some(Sort::Oldest) => Some(LiveSort::Oldest),
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
            return Ok((None, LiveSort::Score));
        };
        let needs_live = matches!(
            sort,
            Sort::LiveBytes | Sort::LiveCount | Sort::FreedBytes | Sort::TemporaryCount
        );
        if needs_live && !has_live {
            bail!("--sort by a figure of live or freed blocks needs --live");
        }
        let column = match sort {
            Sort::Bytes => SortColumn::Bytes,
            Sort::Calls => SortColumn::Calls,
            Sort::Avg => SortColumn::Average,
            Sort::Cum
                if matches!(
                    self.by,
                    ByArgument::Function | ByArgument::Line | ByArgument::Module
                ) =>
            {
                SortColumn::Cumulative
            }
            Sort::Cum => bail!("--sort cum needs --by function, line or module"),
            Sort::LiveBytes => SortColumn::LiveBytes,
            Sort::LiveCount => SortColumn::LiveCount,
            Sort::FreedBytes => SortColumn::FreedBytes,
            Sort::TemporaryCount => SortColumn::TemporaryCount,
            Sort::Score | Sort::Growth | Sort::Oldest => {
                bail!("--sort by score, growth or age is for `memtap live`")
            }
        };
        Ok((Some(column), LiveSort::Score))
    }
}

/// A share in percent, from 0 to 100.
fn percent(text: &str) -> Result<f64> {
    let number = text.trim_end_matches('%').trim();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => bail!("a share from 0 to 100 is wanted, such as 0.5"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::arguments::{CommandArguments, CommandLine};

    fn settings(words: &[&str]) -> Result<TableSettings> {
        let words = std::iter::once(&"memtap").chain(words);
        let settings = match CommandLine::try_parse_from(words)?.command {
            CommandArguments::Record(record) => record.settings(),
            CommandArguments::Live(live) => live.settings(),
            _ => bail!("neither record nor live"),
        };
        Ok(settings?.report.table)
    }

    #[test]
    fn tables_are_of_stacks_in_brief() {
        let table = settings(&["record", "-a"]).unwrap();
        assert_eq!((table.by, table.stacks), (GroupBy::Stack, StackDetail::Brief));
        assert_eq!(
            (table.top, table.sort, table.tree),
            (TableOptions::TOP, None, None)
        );
        let asked = ["record", "-a", "--by", "function", "--sort", "cum", "--top", "5"];
        let table = settings(&asked).unwrap();
        assert_eq!(table.by, GroupBy::Function);
        assert_eq!((table.sort, table.top), (Some(SortColumn::Cumulative), 5));
        let table = settings(&["record", "-a", "--tree", "callers", "--min-percent", "2.5%"]).unwrap();
        assert_eq!(table.tree, Some(TreeDirection::Callers));
        assert!((table.min_percent - 2.5).abs() < 1e-9);
        let table = settings(&["live", "-a", "--sort", "oldest"]).unwrap();
        assert_eq!(table.live_sort, LiveSort::Oldest);
    }

    #[test]
    fn what_no_table_has_is_refused() {
        for words in [
            &["record", "-a", "--by", "colour"][..],
            &["record", "-a", "--by", "size"],
            &["record", "-a", "--sort", "cum"],
            &["record", "-a", "--sort", "live-bytes"],
            &["record", "-a", "--sort", "score"],
            &["record", "-a", "--by", "site", "--tree", "callers"],
            &["record", "-a", "--min-percent", "101"],
            &["record", "-a", "--min-percent", "nan"],
            &["record", "-a", "--own", "("],
            &["live", "-a", "--sort", "calls"],
            &["live", "-a", "--by", "function"],
        ] {
            assert!(settings(words).is_err(), "{words:?}");
        }
    }
}

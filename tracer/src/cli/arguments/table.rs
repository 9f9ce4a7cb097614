//! The arguments of tables: their rows, their order, and what is shown of stacks.

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use regex::Regex;

use crate::cli::table_request::{RequestedSort, TableRequest};
use crate::report::table::{GroupBy, StackDetail, TreeDirection};

/// Arguments of tables.
#[derive(Debug, Args)]
#[command(next_help_heading = "Table")]
pub(super) struct TableArguments {
    /// Rows in the table [default: 20]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Property of stacks that makes a row; function, line and module have the sum with all that
    /// they called beside their own [default: stack]
    #[arg(long, value_enum, value_name = "WHAT")]
    by: Option<ByArgument>,
    /// A tree with shares in place of rows: from the program's functions to their callers, or from
    /// the processes to what they call
    #[arg(long, value_enum, value_name = "DIRECTION", conflicts_with = "by")]
    tree: Option<Tree>,
    /// Parts of each stack: the function of the program that it comes from, also its callers in
    /// brief (the default), or every frame
    #[arg(long, value_enum, value_name = "DETAIL")]
    stacks: Option<DetailArgument>,
    /// Order of the rows, the largest first [default: the metric; live: score]
    #[arg(long, value_enum, value_name = "COLUMN")]
    sort: Option<RequestedSort>,
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

impl TableArguments {
    /// Returns what was said.
    pub(super) fn request(&self) -> TableRequest {
        let pattern = |regex: &Option<Regex>| regex.as_ref().map(|regex| regex.as_str().to_owned());
        TableRequest {
            top: self.top,
            by: self.by.map(GroupBy::from),
            tree: self.tree.map(|tree| match tree {
                Tree::Callers => TreeDirection::Callers,
                Tree::Callees => TreeDirection::Callees,
            }),
            stacks: self.stacks.map(|detail| match detail {
                DetailArgument::Site => StackDetail::Site,
                DetailArgument::Brief => StackDetail::Brief,
                DetailArgument::Full => StackDetail::Full,
            }),
            sort: self.sort,
            min_percent: self.min_percent,
            short_names: match (self.short_names, self.long_names) {
                (true, _) => Some(true),
                (false, true) => Some(false),
                (false, false) => None,
            },
            hide: pattern(&self.hide),
            own: pattern(&self.own),
        }
    }
}

impl From<ByArgument> for GroupBy {
    fn from(by: ByArgument) -> Self {
        match by {
            ByArgument::Stack => Self::Stack,
            ByArgument::Site => Self::Site,
            ByArgument::Function => Self::Function,
            ByArgument::Line => Self::Line,
            ByArgument::Module => Self::Module,
            ByArgument::Process => Self::Process,
            ByArgument::Size => Self::Size,
            ByArgument::Allocator => Self::Allocator,
        }
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
    use crate::report::table::live::LiveSort;
    use crate::report::table::{SortColumn, TableView};

    fn settings(words: &[&str]) -> Result<TableView> {
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
            (TableView::default().top, None, None)
        );
        let asked = ["record", "-a", "--by", "function", "--sort", "cum", "--top", "5"];
        let table = settings(&asked).unwrap();
        assert_eq!(table.by, GroupBy::Function);
        assert_eq!((table.sort, table.top), (Some(SortColumn::Cumulative), 5));
        let table = settings(&["record", "-a", "--tree", "callers", "--min-percent", "2.5%"]).unwrap();
        assert_eq!(table.tree, Some(TreeDirection::Callers));
        assert_eq!(table.min_percent, Some(2.5));
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

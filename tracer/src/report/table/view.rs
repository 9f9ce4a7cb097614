//! The part of a table's layout that does not depend on the terminal: it is kept with a saved
//! profile, so that its table is the one that the recording printed.

use serde::{Deserialize, Serialize};

use super::live::LiveSort;
use super::{GroupBy, SortColumn, StackDetail, TableOptions, TreeDirection};
use crate::report::own_code::CodeRules;

/// Rows of a table, and their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableView {
    /// The number of rows.
    pub top: usize,
    /// The property of stacks that makes a row.
    pub by: GroupBy,
    /// A tree in place of rows.
    pub tree: Option<TreeDirection>,
    /// The part of stacks that is shown.
    pub stacks: StackDetail,
    /// The order of rows, where it is not the metric's.
    pub sort: Option<SortColumn>,
    /// The order of rows of the report on live blocks.
    pub live_sort: LiveSort,
    /// The share in percent below which rows and branches are left out; nothing for all rows, and
    /// the branches of some size.
    pub min_percent: Option<f64>,
    /// Names of functions are short.
    pub short_names: bool,
    /// A regular expression for code that is passed over.
    pub hide: Option<String>,
    /// A regular expression for the program's own code.
    pub own: Option<String>,
}

impl Default for TableView {
    fn default() -> Self {
        Self {
            top: TableOptions::TOP,
            by: GroupBy::Stack,
            tree: None,
            stacks: StackDetail::Brief,
            sort: None,
            live_sort: LiveSort::Score,
            min_percent: None,
            short_names: true,
            hide: None,
            own: None,
        }
    }
}

impl TableView {
    /// Returns the rules by which the program's own code is told.
    ///
    /// Fails where an expression is none, as one in a file that was changed may be.
    pub(crate) fn rules(&self) -> Result<CodeRules, regex::Error> {
        let compiled = |text: &Option<String>| text.as_deref().map(regex::Regex::new).transpose();
        Ok(CodeRules {
            hide: compiled(&self.hide)?,
            own: compiled(&self.own)?,
        })
    }
}

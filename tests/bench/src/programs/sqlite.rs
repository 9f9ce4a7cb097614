//! sqlite3, filling a table in memory and asking it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{ProgramWorkload, program};

/// Statements one by one, as an application sends them.
fn script(rows: usize, queries: usize) -> String {
    let table = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, place INTEGER, note TEXT);\n\
                 CREATE INDEX item_place ON item (place);\nBEGIN;";
    let inserts = (0..rows).map(|row| {
        let place = row * 7919 % 1000;
        format!("INSERT INTO item VALUES ({row}, 'name {row}', {place}, 'a note on {row} and {place}');")
    });
    let selects = (0..queries).map(|query| {
        let place = query * 31 % 1000;
        format!("SELECT count(*), max(name), group_concat(note, ',') FROM item WHERE place = {place};")
    });
    let statements = std::iter::once(table.to_owned())
        .chain(inserts)
        .chain(["COMMIT;".to_owned()])
        .chain(selects)
        .chain(["SELECT name, note FROM item ORDER BY note DESC LIMIT 100;\n".to_owned()]);
    statements.collect::<Vec<_>>().join("\n")
}

/// sqlite3 with a script.
pub(crate) fn prepare(directory: &Path) -> Result<ProgramWorkload> {
    let sqlite = program("sqlite3")?;
    let file = directory.join("statements.sql");
    fs::write(&file, script(40_000, 10_000))
        .with_context(|| format!("failed to write {}", file.display()))?;
    Ok(ProgramWorkload {
        command: vec![
            sqlite,
            "-batch".to_owned(),
            "-init".to_owned(),
            "/dev/null".to_owned(),
            ":memory:".to_owned(),
            format!(".read {}", file.display()),
        ],
        environment: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::script;

    #[test]
    fn a_script_of_statements() {
        let text = script(4, 3);
        assert_eq!(text.matches("INSERT INTO item").count(), 4);
        assert_eq!(text.matches("SELECT count(*)").count(), 3);
    }
}

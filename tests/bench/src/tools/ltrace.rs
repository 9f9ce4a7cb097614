//! ltrace, which stops the program at each call, and prints a line for it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Launcher, SeenCalls};
use test_support::workspace;

/// ltrace, looking at malloc and free alone.
pub(crate) struct Ltrace;

impl Launcher for Ltrace {
    fn missing(&self) -> Option<String> {
        (!workspace::in_path("ltrace")).then(|| "ltrace is not installed".to_owned())
    }

    fn command(&self, binary: &Path, directory: &Path) -> Result<Command> {
        let messages = directory.join("stderr");
        let messages =
            File::create(&messages).with_context(|| format!("failed to create {}", messages.display()))?;
        let mut command = workspace::untouched(Path::new("ltrace"));
        command.args(["-f", "-e", "malloc+free", "-o"]);
        command.arg(directory.join("calls")).arg(binary).stderr(messages);
        Ok(command)
    }

    fn seen(&self, directory: &Path) -> Result<SeenCalls> {
        let calls = fs::read(directory.join("calls")).context("failed to read ltrace's calls")?;
        Ok(SeenCalls::Calls(mallocs(&String::from_utf8_lossy(&calls))))
    }
}

/// Lines like `[pid 7] malloc_loop->malloc(64 <unfinished ...>`; that such a call returned is
/// another line.
fn mallocs(calls: &str) -> u64 {
    let calls = calls.lines().filter(|line| line.contains("->malloc("));
    calls.map(|_| 1).sum()
}

#[cfg(test)]
mod tests {
    use super::mallocs;

    #[test]
    fn calls_and_not_their_ends() {
        let text = "[pid 7] malloc_loop->malloc(64 <unfinished ...>\n\
                    [pid 7] <... malloc resumed> )                   = 0x5577\n\
                    [pid 7] malloc_loop->free(0x5577)                = <void>\n\
                    malloc_loop->malloc(64)                          = 0x5577\n";
        assert_eq!(mallocs(text), 2);
        assert_eq!(mallocs(""), 0);
    }
}

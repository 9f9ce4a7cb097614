//! Python, making JSON of objects and objects of JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{ProgramWorkload, program};

/// Objects come from Python's own pools, which take from libc what is larger than 512 bytes.
const SCRIPT: &str = "\
import json

def record(number):
    return {
        'id': number,
        'name': 'name %d' % number,
        'tags': ['tag %d' % (number % each) for each in range(1, 9)],
        'text': 'some words of a longer text ' * (number % 40),
        'place': {'x': number * 0.5, 'y': number * 0.25, 'inside': number % 2 == 0},
    }

total = 0
for turn in range(12):
    records = [record(number) for number in range(turn, turn + 3000)]
    lines = [json.dumps(each) for each in records]
    parsed = [json.loads(line) for line in lines]
    total += sum(len(each['tags']) for each in parsed)
print(total)
";

/// The distribution's python3 with a script.
pub(crate) fn prepare(directory: &Path) -> Result<ProgramWorkload> {
    let python = program("python3")?;
    let file = directory.join("objects.py");
    fs::write(&file, SCRIPT).with_context(|| format!("failed to write {}", file.display()))?;
    Ok(ProgramWorkload {
        command: vec![python, "-S".to_owned(), file.display().to_string()],
        environment: vec![("PYTHONHASHSEED", "0".to_owned())],
    })
}

//! memtap's side: every distinct stack of the workload's process, as it left the tracer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::UnwindOption;
use super::job::{TracedJob, limited};
use super::stacks::{self, Stacks};

/// Bytes of a process's name that the kernel keeps.
const COMM_LEN: usize = 15;

/// Runs the job under memtap, at full speed.
pub(crate) fn record(
    memtap: &Path,
    job: &TracedJob,
    unwind: Option<UnwindOption>,
    out: &Path,
    name: &str,
) -> Result<Stacks> {
    let raw = out.join(format!("{name}.memtap"));
    // A run that wrote nothing must not be judged by an older run's file.
    if raw.exists() {
        fs::remove_file(&raw).with_context(|| format!("failed to remove {}", raw.display()))?;
    }
    let mut command = limited(memtap, true);
    command
        .args(["record", "--quiet", "--no-follow", "--raw"])
        .arg(&raw);
    let unwind = unwind.map(|unwind| match unwind {
        UnwindOption::Auto => "auto",
        UnwindOption::Dwarf => "dwarf",
        UnwindOption::Fp => "fp",
    });
    command.args(unwind.iter().flat_map(|unwind| ["--unwind", unwind]));
    command.arg("--").args(job.chain());
    job.run(command, &raw, "run the workload under memtap")?;
    let text = fs::read_to_string(&raw).with_context(|| format!("failed to read {}", raw.display()))?;
    let comm = job.program.file_name().unwrap_or_default().to_string_lossy();
    parse(&text, comm.get(..COMM_LEN).unwrap_or(&comm))
        .with_context(|| format!("failed to read {}", raw.display()))
}

/// Reads the stacks of the last process image of that name: `# process PID COMM` begins each.
fn parse(text: &str, comm: &str) -> Result<Stacks> {
    let mut images: Vec<(String, Stacks)> = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            if let Some((_pid, comm)) = comment
                .trim()
                .strip_prefix("process ")
                .and_then(|image| image.split_once(' '))
            {
                images.push((comm.to_owned(), Stacks::default()));
            }
            continue;
        }
        let (stack, seen) = stacks::parse(line)?;
        match images.last_mut() {
            Some((_, stacks)) => stacks.add(stack, seen),
            None => bail!("failed to tell whose stack this is: {line:?}"),
        }
    }
    let hits: BTreeMap<String, u64> = images
        .iter()
        .map(|(comm, stacks)| (comm.clone(), stacks.hits()))
        .collect();
    match images.into_iter().rev().find(|(name, _)| name == comm) {
        Some((_, stacks)) => Ok(stacks),
        None => bail!("failed to find a process named {comm} among {hits:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_last_image_of_the_name() {
        let text = "# process 7 setarch\n1 malloc complete 10\n# process 7 prog\n2 malloc complete 20\n\
                    # process 7 prog\n3 malloc complete 30\n4 calloc frame_pointer 30 40\n# other\n";
        let stacks = parse(text, "prog").expect("stacks");
        assert_eq!((stacks.len(), stacks.hits()), (2, 7));
        let error = parse(text, "else").expect_err("no such process");
        assert!(error.to_string().contains("setarch"), "{error}");
        assert!(parse("1 malloc complete 10\n", "prog").is_err(), "whose?");
    }
}

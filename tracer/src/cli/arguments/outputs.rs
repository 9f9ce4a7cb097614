//! The arguments that name files to write.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::cli::settings::RequestedOutput;
use crate::profile::Metric;
use crate::report::Format;

/// The profiles of `-o DIR/`.
const PROFILES_OF_DIRECTORY: [&str; 3] = ["profile.pb.gz", "flame.svg", "report.html"];

/// The summary of `-o DIR/`.
const SUMMARY_OF_DIRECTORY: &str = "summary.json";

/// The files of a command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RequestedFiles {
    /// The profiles.
    pub(super) outputs: Vec<RequestedOutput>,
    /// The summaries.
    pub(super) summaries: Vec<PathBuf>,
    /// The directories that some of them are in, which are made where they are missing.
    pub(super) directories: Vec<PathBuf>,
}

impl RequestedFiles {
    /// Reads the arguments of `-o` and `--summary`.
    pub(super) fn parse(outputs: &[OsString], summary: Option<&Path>) -> Result<Self> {
        let mut files = Self {
            summaries: summary.map(Path::to_path_buf).into_iter().collect(),
            ..Self::default()
        };
        for argument in outputs {
            files.add(argument)?;
        }
        let is_stdout = |output: &&RequestedOutput| output.path.as_os_str() == "-";
        if files.outputs.iter().filter(is_stdout).count() > 1 {
            bail!("only one output can go to standard output (-)");
        }
        Ok(files)
    }

    /// Adds `[METRIC=]FILE` or `[METRIC=]DIR/`.
    fn add(&mut self, argument: &OsStr) -> Result<()> {
        let bytes = argument.as_bytes();
        let named = Metric::ALL.into_iter().find_map(|metric| {
            let file = bytes.strip_prefix(metric.name().as_bytes())?.strip_prefix(b"=")?;
            Some((metric, OsStr::from_bytes(file)))
        });
        let metric = named.map(|(metric, _)| metric);
        let path = PathBuf::from(named.map_or(argument, |(_, file)| file));
        if path.as_os_str().as_bytes().ends_with(b"/") {
            for name in PROFILES_OF_DIRECTORY {
                let path = path.join(name);
                self.outputs.push(RequestedOutput {
                    metric,
                    format: Format::of(&path)?,
                    path,
                });
            }
            self.summaries.push(path.join(SUMMARY_OF_DIRECTORY));
            self.directories.push(path);
            return Ok(());
        }
        self.outputs.push(RequestedOutput {
            metric,
            format: Format::of(&path)?,
            path,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(outputs: &[&str]) -> Result<RequestedFiles> {
        let outputs: Vec<OsString> = outputs.iter().map(OsString::from).collect();
        RequestedFiles::parse(&outputs, None)
    }

    #[test]
    fn outputs_can_name_their_metric() {
        let files = parsed(&["alloc-count=a.svg", "x=y.folded"]).unwrap();
        let [counts, named] = &files.outputs[..] else {
            panic!("two outputs")
        };
        assert_eq!(
            (counts.metric, counts.format),
            (Some(Metric::AllocCount), Format::Svg)
        );
        assert_eq!((named.metric, named.path.to_str()), (None, Some("x=y.folded")));
        let mut files = RequestedFiles::default();
        files.add(OsStr::from_bytes(b"alloc-count=\xff.svg")).unwrap();
        assert_eq!(files.outputs[0].metric, Some(Metric::AllocCount));
        assert_eq!(files.outputs[0].path.as_os_str().as_bytes(), b"\xff.svg");
        assert!(parsed(&["a.nonsense"]).is_err());
        assert!(parsed(&["-", "-"]).is_err());
    }

    #[test]
    fn directory_is_four_files() {
        let files = parsed(&["live-bytes=out/"]).unwrap();
        let names: Vec<_> = files.outputs.iter().filter_map(|it| it.path.to_str()).collect();
        assert_eq!(names, ["out/profile.pb.gz", "out/flame.svg", "out/report.html"]);
        assert!(
            files
                .outputs
                .iter()
                .all(|it| it.metric == Some(Metric::LiveBytes))
        );
        assert_eq!(files.summaries, [PathBuf::from("out/summary.json")]);
        assert_eq!(files.directories, [PathBuf::from("out/")]);
    }
}

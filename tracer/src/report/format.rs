//! File formats, by file name.

use std::path::{Path, PathBuf};

/// A format that a profile can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Format {
    /// Folded stacks: `.folded`, `.txt`, and `-` for standard output.
    Folded,
    /// A flame graph: `.svg`.
    Svg,
    /// A pprof file, which has everything: `.pb.gz`.
    Pprof,
    /// A file for speedscope: `.speedscope.json`.
    Speedscope,
    /// A page with a flame graph and tables: `.html`.
    Html,
}

/// Extensions that are written now.
const SUPPORTED: [(&str, Format); 6] = [
    (".folded", Format::Folded),
    (".txt", Format::Folded),
    (".svg", Format::Svg),
    (".pb.gz", Format::Pprof),
    (".speedscope.json", Format::Speedscope),
    (".html", Format::Html),
];

/// Extensions that the command line has names for, but no exporter yet.
const PLANNED: [&str; 1] = [".json"];

/// The reasons for which a file name does not tell its format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    /// The format is to come.
    #[error(
        "{extension} files are not supported yet (asked for by {}); supported are {}",
        file.display(),
        supported()
    )]
    NotYet {
        /// The file that was asked for.
        file: PathBuf,
        /// Its extension, with the dot.
        extension: &'static str,
    },
    /// The extension stands for no format.
    #[error("unknown extension .{extension} of {}; supported are {}", file.display(), supported())]
    Unknown {
        /// The file that was asked for.
        file: PathBuf,
        /// Its extension, without the dot.
        extension: String,
    },
    /// The file's name has no extension.
    #[error("{} has no extension to tell the format by; supported are {}", file.display(), supported())]
    Missing {
        /// The file that was asked for.
        file: PathBuf,
    },
}

/// The list of extensions for messages.
fn supported() -> String {
    SUPPORTED.map(|(extension, _)| extension).join(", ")
}

impl Format {
    /// The format that a file name asks for. `-` is folded stacks. Case does not matter.
    pub(crate) fn of(file: &Path) -> Result<Self, FormatError> {
        if file == Path::new("-") {
            return Ok(Self::Folded);
        }
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default();
        for (extension, format) in SUPPORTED {
            if name.ends_with(extension) {
                return Ok(format);
            }
        }
        let file = file.to_path_buf();
        if let Some(extension) = PLANNED.into_iter().find(|it| name.ends_with(it)) {
            return Err(FormatError::NotYet { file, extension });
        }
        Err(match file.extension() {
            Some(extension) => FormatError::Unknown {
                extension: extension.to_string_lossy().into_owned(),
                file,
            },
            None => FormatError::Missing { file },
        })
    }

    /// Returns true if a difference of two profiles can be written in the format.
    #[must_use]
    pub(crate) const fn has_differences(self) -> bool {
        match self {
            Self::Folded | Self::Svg | Self::Pprof => true,
            Self::Speedscope | Self::Html => false,
        }
    }

    /// Returns the format's name for people, as in "wrote alloc.svg (flame graph, 412 stacks)".
    #[must_use]
    pub(crate) const fn description(self) -> &'static str {
        match self {
            Self::Folded => "folded stacks",
            Self::Svg => "flame graph",
            Self::Pprof => "pprof profile",
            Self::Speedscope => "speedscope",
            Self::Html => "page",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(file: &str) -> String {
        Format::of(Path::new(file)).unwrap_err().to_string()
    }

    #[test]
    fn names_choose_formats() {
        for file in ["a.folded", "dir.svg/a.txt", "-", "A.TXT", "a.b.folded"] {
            assert_eq!(Format::of(Path::new(file)), Ok(Format::Folded), "{file}");
        }
        assert_eq!(Format::of(Path::new("/x/alloc.svg")), Ok(Format::Svg));
        assert_eq!(Format::of(Path::new("a.svg.PB.gz")), Ok(Format::Pprof));
        assert_eq!(Format::of(Path::new("a.Speedscope.json")), Ok(Format::Speedscope));
        assert_eq!(Format::of(Path::new("a.html")), Ok(Format::Html));
    }

    #[test]
    fn planned_formats_say_so() {
        assert!(
            error("a.json").starts_with(".json files are not supported yet"),
            "{}",
            error("a.json")
        );
    }

    #[test]
    fn other_names_list_what_is_known() {
        assert_eq!(
            error("out/a.pprof"),
            "unknown extension .pprof of out/a.pprof; supported are .folded, .txt, .svg, .pb.gz, .speedscope.json, .html"
        );
        assert_eq!(
            error("out/profile"),
            "out/profile has no extension to tell the format by; supported are .folded, .txt, .svg, .pb.gz, .speedscope.json, .html"
        );
        assert!(error("").contains("no extension"));
        assert!(error("..").contains("no extension"));
    }
}

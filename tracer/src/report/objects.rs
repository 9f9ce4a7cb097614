//! The programs and libraries of a profile: for machines, and as one hint for a person where names
//! are missing.

use std::path::Path;

use serde::Serialize;

use super::units;
use crate::message::escape::one_line;
use crate::profile::{ObjectFile, Profile};

/// Files that a hint names at most.
const MAX_NAMED: usize = 3;

/// A program or library that frames are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ObjectBlock {
    /// Its path, as the process that mapped it first saw it.
    pub path: String,
    /// Its build id in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// The file with its debug information, where that was another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<String>,
    /// True if it was overwritten after it was mapped; left out where it was not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub overwritten: bool,
    /// Distinct places in it that are in stacks.
    pub frames: u64,
    /// The number of places that have no name.
    pub unnamed: u64,
}

/// Every file, in an order that does not depend on the profile's.
pub(super) fn blocks(profile: &Profile) -> Vec<ObjectBlock> {
    let mut objects: Vec<&ObjectFile> = profile.objects.iter().collect();
    objects.sort();
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let blocks = objects.into_iter().map(|object| ObjectBlock {
        path: text(&object.path),
        build_id: object.build_id.clone(),
        debug: object.debug.as_deref().map(text),
        overwritten: object.has_changed,
        frames: object.frames,
        unnamed: object.unnamed,
    });
    blocks.collect()
}

/// Returns a hint where frames have no names since debug information is missing: on files that have
/// nothing but the symbols of dynamic linking, and more frames without a name than with one.
/// `may_fetch` is true if servers were asked.
#[must_use]
pub(crate) fn hint(profile: &Profile, may_fetch: bool) -> Option<String> {
    let mut nameless: Vec<&ObjectFile> = profile
        .objects
        .iter()
        .filter(|object| !object.has_names && !object.has_changed && 2 * object.unnamed > object.frames)
        .collect();
    nameless.sort_by_key(|object| (std::cmp::Reverse(object.unnamed), &object.path));
    let total: u64 = nameless.iter().map(|object| object.unnamed).sum();
    let names: Vec<String> = nameless
        .iter()
        .take(MAX_NAMED)
        .map(|object| {
            let name = object.path.file_name().unwrap_or(object.path.as_os_str());
            one_line(&name.to_string_lossy()).into_owned()
        })
        .collect();
    if names.is_empty() {
        return None;
    }
    let more = match nameless.len() - names.len() {
        0 => String::new(),
        more => format!(" and {}", units::counted(more as u128, "more file")),
    };
    let has_ids = nameless.iter().any(|object| object.build_id.is_some());
    let fetch = if has_ids && !may_fetch {
        ", or let --debuginfod fetch it"
    } else {
        ""
    };
    Some(format!(
        "{} of {}{more} {} no name: install debug information (packages NAME-dbgsym or NAME-debuginfo), or say where it \
         is with --debug-dir{fetch}",
        units::counted(total.into(), "frame"),
        names.join(", "),
        if total == 1 { "has" } else { "have" },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(path: &str, frames: u64, unnamed: u64) -> ObjectFile {
        ObjectFile {
            path: path.into(),
            build_id: Some("abcd".to_owned()),
            frames,
            unnamed,
            ..ObjectFile::default()
        }
    }

    fn profile(objects: Vec<ObjectFile>) -> Profile {
        Profile {
            objects,
            ..Profile::default()
        }
    }

    #[test]
    fn files_without_names_are_named_and_the_rest_counted() {
        let profile = profile(vec![
            object("/a/one", 3, 2),
            object("/a/two", 10, 10),
            object("/a/three\n", 1, 1),
            object("/a/four", 1, 1),
            object("/a/libc.so.6", 4, 2),
        ]);
        let text = hint(&profile, false).expect("names are missing");
        assert!(
            text.starts_with("14 frames of two, one, four and 1 more file have no name: "),
            "{text}"
        );
        assert!(text.contains("--debuginfod"));
        assert!(
            !hint(&profile, true)
                .expect("still missing")
                .contains("--debuginfod")
        );
    }

    #[test]
    fn there_is_no_hint_where_it_would_not_help() {
        let named = ObjectFile {
            has_names: true,
            ..object("/a", 2, 2)
        };
        let overwritten = ObjectFile {
            has_changed: true,
            ..object("/b", 2, 2)
        };
        assert_eq!(
            hint(&profile(vec![named, overwritten, object("/c", 2, 1)]), false),
            None
        );
        assert_eq!(hint(&profile(Vec::new()), false), None);
    }

    #[test]
    fn blocks_are_in_order() {
        let blocks = blocks(&profile(vec![object("/b", 2, 1), object("/a", 1, 0)]));
        let paths: Vec<&str> = blocks.iter().map(|block| block.path.as_str()).collect();
        assert_eq!(paths, ["/a", "/b"]);
        let json = serde_json::to_value(&blocks[0]).expect("plain data");
        assert_eq!(
            json,
            serde_json::json!({"path": "/a", "build_id": "abcd", "frames": 1, "unnamed": 0})
        );
    }
}

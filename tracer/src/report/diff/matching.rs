//! Frames of two profiles that are the same function.

use std::collections::{HashMap, HashSet};

use super::DiffFrame;
use crate::profile::{Frame, FrameName, Profile};
use crate::report::label;

/// The name of code outside files, whose addresses are others in every run.
const UNMAPPED: &str = "[unmapped]";

/// Finds frames that are the same.
#[derive(Debug)]
pub(super) struct FrameMatcher {
    /// The names that functions of several files have.
    ambiguous: HashSet<String>,
    /// The build ids that both profiles have files of.
    builds: HashSet<String>,
    /// The frames so far.
    pub(super) frames: Vec<DiffFrame>,
    index: HashMap<(String, String), usize>,
}

impl FrameMatcher {
    /// Looks at both profiles.
    pub(super) fn of(before: &Profile, after: &Profile) -> Self {
        let builds = |profile: &Profile| -> HashSet<String> {
            let builds = profile.objects.iter().filter_map(|it| it.build_id.clone());
            builds.collect()
        };
        let (one, other) = (builds(before), builds(after));
        Self {
            // Of one profile: the file that a function is in may be called otherwise in the other.
            ambiguous: ambiguous(before).union(&ambiguous(after)).cloned().collect(),
            builds: one.intersection(&other).cloned().collect(),
            frames: Vec::new(),
            index: HashMap::new(),
        }
    }

    /// The index of a frame of one of the profiles.
    pub(super) fn index(&mut self, frame: &Frame, profile: &Profile) -> usize {
        let name = match &frame.name {
            FrameName::Symbol(_) | FrameName::Compiled => label::frame(frame),
            FrameName::Unmapped(_) => UNMAPPED.to_owned(),
            FrameName::Offset { module, .. } => {
                let object = frame.object.and_then(|it| profile.objects.get(it));
                let build = object.and_then(|it| it.build_id.as_ref());
                if build.is_some_and(|it| self.builds.contains(it)) {
                    label::frame(frame)
                } else {
                    format!("[{}]", crate::message::escape::one_line(module))
                }
            }
        };
        let source = frame.source.as_ref().map_or("", |it| &*it.file);
        let file = if self.ambiguous.contains(&name) {
            base_name(source)
        } else {
            ""
        };
        let next = self.frames.len();
        let index = *self.index.entry((name.clone(), file.to_owned())).or_insert(next);
        if index == next {
            self.frames.push(DiffFrame {
                name,
                file: source.to_owned(),
            });
        } else if self.frames[index].file.is_empty() {
            source.clone_into(&mut self.frames[index].file);
        }
        index
    }
}

/// The names that functions of several files have in one profile.
fn ambiguous(profile: &Profile) -> HashSet<String> {
    let mut files: HashMap<String, &str> = HashMap::new();
    let mut names = HashSet::new();
    for frame in &profile.frames {
        if let Some(source) = &frame.source {
            let file = base_name(&source.file);
            let name = label::frame(frame);
            if *files.entry(name.clone()).or_insert(file) != file {
                names.insert(name);
            }
        }
    }
    names
}

/// The file without its directories: builds are made in different ones.
fn base_name(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or_default()
}

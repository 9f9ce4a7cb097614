//! The program's own code, told from the libraries' code between it and the allocator.
//!
//! A frame is passed over if it is in the C library or in an allocator ([`objects`]), in a standard
//! library ([`languages`]), or is a known wrapper of an allocator ([`wrappers`]). The *site* of a
//! stack is the innermost frame that is left: the place in the program that asked for the memory.
//! A stack without such a frame has as site its innermost frame outside the C library and the
//! allocators.

mod languages;
mod objects;
mod wrappers;

use regex::Regex;

use crate::profile::{Frame, FrameName, Profile};

/// The owner of a frame's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum CodeClass {
    /// The program's own code.
    Own,
    /// A standard library, a wrapper of an allocator, or what `--hide` names.
    Library,
    /// The C library, the dynamic linker or an allocator.
    Libc,
}

/// The rules by which the code of a profile is told apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct CodeRules {
    /// Code that is passed over whatever the tables say (`--hide`).
    pub hide: Option<Regex>,
    /// The program's own code whatever the tables and `hide` say (`--own`).
    pub own: Option<Regex>,
}

impl CodeRules {
    /// The rules without expressions of a user.
    #[cfg(test)]
    pub(crate) const DEFAULT: Self = Self {
        hide: None,
        own: None,
    };

    /// Returns the class of each entry of [`Profile::frames`].
    pub(crate) fn classes(&self, profile: &Profile) -> Vec<CodeClass> {
        let objects: Vec<Option<CodeClass>> = profile
            .objects
            .iter()
            .map(|object| objects::class_of(&object.path))
            .collect();
        let class_of = |frame: &Frame| {
            let object = frame.object.filter(|index| *index < profile.objects.len());
            if let Some(class) = self.asked(profile, frame) {
                return class;
            }
            let by_object = object.and_then(|index| objects[index]);
            by_object.unwrap_or_else(|| by_name(frame))
        };
        profile.frames.iter().map(class_of).collect()
    }

    /// Returns the class that an expression of the user gives to a frame.
    fn asked(&self, profile: &Profile, frame: &Frame) -> Option<CodeClass> {
        let matches = |pattern: &Regex| {
            let name = match &frame.name {
                FrameName::Symbol(name) => pattern.is_match(name),
                FrameName::Offset { module, .. } => pattern.is_match(module),
                FrameName::Compiled | FrameName::Unmapped(_) => false,
            };
            let object = frame.object.and_then(|index| profile.objects.get(index));
            name || frame.source.as_ref().is_some_and(|it| pattern.is_match(&it.file))
                || object.is_some_and(|it| pattern.is_match(&it.path.to_string_lossy()))
        };
        if self.own.as_ref().is_some_and(matches) {
            return Some(CodeClass::Own);
        }
        self.hide
            .as_ref()
            .is_some_and(matches)
            .then_some(CodeClass::Library)
    }
}

/// Returns the class that the name and the source file of a frame tell.
fn by_name(frame: &Frame) -> CodeClass {
    let source = frame.source.as_ref().map(|source| &*source.file);
    match &frame.name {
        FrameName::Symbol(name) => {
            if objects::is_libc_function(name) {
                CodeClass::Libc
            } else if languages::is_library(name, source) || wrappers::is_wrapper(name) {
                CodeClass::Library
            } else {
                CodeClass::Own
            }
        }
        // A place in a file that has no names: it is as much the program's as the file is.
        FrameName::Offset { module, .. } => {
            objects::class_of(module.as_ref().as_ref()).unwrap_or(CodeClass::Own)
        }
        // Code of a compiler that runs with the program was made from the program's source.
        FrameName::Compiled => CodeClass::Own,
        FrameName::Unmapped(_) => CodeClass::Library,
    }
}

/// Returns the position of the site among a stack's frames, which go from the outermost to the
/// innermost; nothing where all of them are the C library's.
pub(crate) fn site(frames: &[usize], classes: &[CodeClass]) -> Option<usize> {
    let innermost = |most: CodeClass| {
        frames
            .iter()
            .rposition(|frame| classes.get(*frame).is_some_and(|class| *class <= most))
    };
    innermost(CodeClass::Own).or_else(|| innermost(CodeClass::Library))
}

#[cfg(test)]
mod tests {
    use super::super::sample::SampleProfile;
    use super::CodeClass::{Libc, Library, Own};
    use super::*;
    use crate::profile::{ObjectFile, SourceLine};

    fn class(name: &str, source: Option<&str>) -> CodeClass {
        by_name(&Frame {
            name: FrameName::Symbol(name.into()),
            source: source.map(|file| SourceLine {
                file: file.into(),
                line: 1,
            }),
            inlined: false,
            object: None,
        })
    }

    #[test]
    fn innermost_own_frame_is_the_site() {
        let classes = [Libc, Own, Library, Own, Library, Libc];
        assert_eq!(site(&[0, 1, 2, 3, 4, 5], &classes), Some(3));
        assert_eq!(site(&[0, 1, 2], &classes), Some(1));
        // Without code of the program: the innermost outside the C library.
        assert_eq!(site(&[0, 2, 4, 5], &classes), Some(2));
        assert_eq!(site(&[0, 5], &classes), None);
        assert_eq!(site(&[], &classes), None);
    }

    #[test]
    fn files_of_libraries_are_passed_over_whatever_their_functions_are_called() {
        let mut sample = SampleProfile::default();
        let names = ["parse", "fopen64", "std::string::reserve", "run"];
        for (object, name) in names.iter().enumerate() {
            let frame = sample.symbol(name);
            sample.profile.frames[frame].object = Some(object);
        }
        sample.profile.objects = [
            "/usr/bin/tool",
            "/lib/libc.so.6",
            "/lib/libstdc++.so.6",
            "/opt/lib.so",
        ]
        .map(|path| ObjectFile {
            path: path.into(),
            ..ObjectFile::default()
        })
        .into();
        assert_eq!(
            CodeRules::DEFAULT.classes(&sample.profile),
            [Own, Libc, Library, Own]
        );
        let rules = CodeRules {
            hide: Some(Regex::new("^/opt/|^parse$").unwrap()),
            own: Some(Regex::new("libstdc|parse").unwrap()),
        };
        assert_eq!(rules.classes(&sample.profile), [Own, Libc, Own, Library]);
    }

    #[test]
    fn names_tell_where_files_do_not() {
        for (name, expected) in [
            ("main", Own),
            ("_start", Libc),
            ("__libc_start_main_impl", Libc),
            ("alloc::vec::Vec<T,A>::push", Library),
            ("app::add", Own),
            ("operator new(unsigned long)", Library),
            ("xmalloc", Library),
            ("zmalloc.constprop.0", Library),
        ] {
            assert_eq!(class(name, None), expected, "{name}");
        }
    }
}

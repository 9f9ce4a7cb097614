//! The files of a recording, of a saved profile, or of a difference, written with the rights of the
//! user who called `sudo`.

use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::process::geteuid;

use super::settings::{ProfileOutput, ReportSettings};
use crate::message;
use crate::output::{OutputFile, Saved};
use crate::privileges::User;
use crate::profile::AddressStacks;
use crate::report::source::Origin;
use crate::report::summary::Summary;
use crate::report::{self, ExportOptions, ProfileDiff, ReportSource, Written, units};

/// The files that are wanted. Each is written whatever becomes of the others.
pub(super) struct OutputFiles {
    outputs: Vec<OutputFile>,
    summaries: Vec<OutputFile>,
    raw: Option<OutputFile>,
    user: Option<User>,
}

/// A function that writes the content of a file, and returns what it has written, in words.
type Describe<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<String>;

impl OutputFiles {
    /// Prepares every file: a path that cannot be written to is an error.
    pub(super) fn open(settings: &ReportSettings) -> Result<Self> {
        let user = User::behind_sudo();
        let _rights = rights(user.as_ref())?;
        let uid = user.as_ref().map_or_else(|| geteuid().as_raw(), |user| user.uid);
        let open = |path: &Path| {
            OutputFile::open(path, uid).with_context(|| match &user {
                Some(user) => format!(
                    "failed to open {} for writing as {}, who called sudo",
                    path.display(),
                    user.name.to_string_lossy()
                ),
                None => format!("failed to open {} for writing", path.display()),
            })
        };
        for directory in &settings.directories {
            match std::fs::create_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).with_context(|| format!("failed to make {}", directory.display()));
                }
                _ => {}
            }
        }
        Ok(Self {
            outputs: settings
                .outputs
                .iter()
                .map(|output| open(&output.path))
                .collect::<Result<_>>()?,
            summaries: settings
                .summaries
                .iter()
                .map(|path| open(path))
                .collect::<Result<_>>()?,
            raw: settings.raw.as_deref().map(open).transpose()?,
            user: user.clone(),
        })
    }

    /// Writes every file. Returns true if each is where it should be.
    pub(super) fn write(
        self,
        settings: &ReportSettings,
        source: &ReportSource<'_>,
        addresses: &[AddressStacks],
    ) -> bool {
        let _rights = match rights(self.user.as_ref()) {
            Ok(rights) => rights,
            Err(error) => {
                message::fail(format_args!("no file was written: {error:#}"));
                return false;
            }
        };
        let mut are_in_place = save_profiles(self.outputs, settings, &|output, out| {
            let options = ExportOptions {
                metric: output.metric,
                per_pid: settings.per_pid,
            };
            report::write(source, output.format, options, out)
        });
        for file in self.summaries {
            let Origin::Recording(session) = source.origin else {
                break;
            };
            are_in_place &= save(file, settings.quiet, &|out| {
                Summary::of(source.profile, session, settings.metric).write(out)?;
                Ok("summary".to_owned())
            });
        }
        if let Some(file) = self.raw {
            are_in_place &= save(file, settings.quiet, &|out| {
                report::raw::write(addresses, out)?;
                Ok("addresses".to_owned())
            });
        }
        are_in_place
    }

    /// Writes the profiles of a difference. Returns true if each is where it should be.
    pub(super) fn write_difference(self, settings: &ReportSettings, diff: &ProfileDiff) -> bool {
        let _rights = match rights(self.user.as_ref()) {
            Ok(rights) => rights,
            Err(error) => {
                message::fail(format_args!("no file was written: {error:#}"));
                return false;
            }
        };
        save_profiles(self.outputs, settings, &|output, out| {
            report::write_difference(diff, output.format, output.metric, out)
        })
    }
}

/// A function that writes a profile.
type ExportProfile<'a> = &'a dyn Fn(&ProfileOutput, &mut dyn Write) -> io::Result<Written>;

/// Writes the profiles. Returns true if each is where it should be.
fn save_profiles(files: Vec<OutputFile>, settings: &ReportSettings, export: ExportProfile<'_>) -> bool {
    let mut are_in_place = true;
    for (output, file) in settings.outputs.iter().zip(files) {
        are_in_place &= save(file, settings.quiet, &|out| {
            let written = export(output, out)?;
            Ok(format!(
                "{}, {}",
                output.format.description(),
                units::counted(written.stacks as u128, "stack")
            ))
        });
    }
    are_in_place
}

/// The rights that files are made with; nothing where they are memtap's own.
fn rights(user: Option<&User>) -> Result<Option<crate::privileges::FileRights>> {
    user.map(User::file_rights)
        .transpose()
        .context("failed to take the rights of the user who called sudo")
}

/// Writes a file, and says so. Returns true if it is where it should be.
fn save(file: OutputFile, quiet: bool, describe: Describe<'_>) -> bool {
    let path = file.path().to_path_buf();
    let is_stdout = file.is_stdout();
    let mut what = String::new();
    let saved = file.write(&mut |out| {
        what = describe(out)?;
        Ok(())
    });
    match saved {
        Ok(Saved::InPlace) => {
            if !quiet && !is_stdout {
                message::line(&format_args!("wrote {} ({what})", path.display()));
            }
            true
        }
        Ok(Saved::Elsewhere {
            path: instead,
            reason,
        }) => {
            message::fail(format_args!(
                "failed to write {}: {reason}; it was saved as {} instead",
                path.display(),
                instead.display()
            ));
            false
        }
        Err(error) => {
            message::fail(format_args!("failed to write {}: {error}", path.display()));
            false
        }
    }
}

//! The arguments on debug information.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::privileges::User;
use crate::settings::{Debuginfod, Owner, SymbolSettings};

/// The server that leads to those of the distributions, where `--debuginfod` is all that is known.
const FEDERATION: &str = "https://debuginfod.elfutils.org/";

/// The directory in which distributions list the URLs of their servers; a login shell makes
/// `DEBUGINFOD_URLS` of them, which sudo removes.
const SERVER_LISTS: &str = "/etc/debuginfod";

/// elfutils' `DEBUGINFOD_TIMEOUT`: servers unpack what they are asked for.
const TIMEOUT: Duration = Duration::from_secs(90);

/// The longest time of one download.
const MAX_TIME: Duration = Duration::from_mins(10);

/// The largest size of one download. The largest that distributions ship, of browsers, have some 2
/// GiB.
const MAX_BYTES: u64 = 4 << 30;

/// Options for names.
#[derive(Debug, Args)]
pub(super) struct SymbolArguments {
    /// A directory with separate debug information, laid out as /usr/lib/debug; searched first;
    /// repeatable
    #[arg(long, value_name = "DIR", help_heading = "Names")]
    debug_dir: Vec<PathBuf>,
    /// Fetch missing debug information when the recording has ended: from URL, else from the
    /// servers in `DEBUGINFOD_URLS` or /etc/debuginfod, else from debuginfod.elfutils.org; implied
    /// where `DEBUGINFOD_URLS` is set
    #[arg(
        long,
        value_name = "URL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        overrides_with = "no_debuginfod",
        help_heading = "Names"
    )]
    debuginfod: Vec<String>,
    /// Ask no server, though `DEBUGINFOD_URLS` is set
    #[arg(long, help_heading = "Names")]
    no_debuginfod: bool,
}

impl SymbolArguments {
    /// Checks what was said, here and by the environment.
    pub(super) fn settings(&self, quiet: bool) -> Result<SymbolSettings> {
        self.settings_in(quiet, |name| std::env::var(name).ok())
    }

    fn settings_in(&self, quiet: bool, variable: impl Fn(&str) -> Option<String>) -> Result<SymbolSettings> {
        let mut debug_directories = Vec::new();
        for directory in &self.debug_dir {
            let absolute = directory
                .canonicalize()
                .with_context(|| format!("--debug-dir {}", directory.display()))?;
            if !absolute.is_dir() {
                bail!("--debug-dir {}: it is no directory", directory.display());
            }
            debug_directories.push(absolute);
        }
        let servers = if self.no_debuginfod {
            Vec::new()
        } else {
            self.servers(&variable)?
        };
        let user = User::behind_sudo();
        let seconds = |name, usual| {
            let said = variable(name).and_then(|text| text.trim().parse().ok());
            said.filter(|seconds| *seconds > 0)
                .map_or(usual, Duration::from_secs)
        };
        let debuginfod = (!servers.is_empty()).then(|| Debuginfod {
            servers,
            cache: cache(user.as_ref(), &variable),
            owner: user.as_ref().map(|user| Owner {
                uid: user.uid,
                gid: user.gid,
                groups: user.groups.iter().map(|group| group.as_raw()).collect(),
            }),
            timeout: seconds("DEBUGINFOD_TIMEOUT", TIMEOUT),
            max_time: seconds("DEBUGINFOD_MAXTIME", MAX_TIME),
            max_bytes: variable("DEBUGINFOD_MAXSIZE")
                .and_then(|text| text.trim().parse().ok())
                .filter(|bytes| *bytes > 0)
                .unwrap_or(MAX_BYTES),
            quiet,
        });
        Ok(SymbolSettings {
            debug_directories,
            debuginfod,
        })
    }

    fn servers(&self, variable: &impl Fn(&str) -> Option<String>) -> Result<Vec<String>> {
        let mut servers = Vec::new();
        for named in self.debuginfod.iter().filter(|named| !named.is_empty()) {
            if !is_url(named) {
                bail!("--debuginfod={named}: an address begins with http:// or https://");
            }
            servers.push(named.clone());
        }
        if !servers.is_empty() {
            return Ok(servers);
        }
        let words = |text: &str| -> Vec<String> {
            // Elfutils knows more words than addresses (`ima:enforcing`).
            text.split_ascii_whitespace()
                .filter(|word| is_url(word))
                .map(str::to_owned)
                .collect()
        };
        servers = words(&variable("DEBUGINFOD_URLS").unwrap_or_default());
        if servers.is_empty() && !self.debuginfod.is_empty() {
            servers = words(&lists(Path::new(SERVER_LISTS)));
            if servers.is_empty() {
                servers.push(FEDERATION.to_owned());
            }
        }
        Ok(servers)
    }
}

fn is_url(text: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
}

/// The text of all lists of servers.
fn lists(directory: &Path) -> String {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "urls"))
        .collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The cache that debuginfod clients share: of the user who called sudo, where one did.
fn cache(user: Option<&User>, variable: &impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let named = |name| variable(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = named("DEBUGINFOD_CACHE_PATH") {
        return Some(path);
    }
    let caches = match user {
        Some(user) => Path::new(user.home.as_ref()?).join(".cache"),
        None => named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))?,
    };
    Some(caches.join("debuginfod_client"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        symbols: SymbolArguments,
    }

    fn settings(words: &[&str], variables: &[(&str, &str)]) -> Result<SymbolSettings> {
        let words = ["memtap"].iter().chain(words);
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        };
        Only::try_parse_from(words)?.symbols.settings_in(false, variable)
    }

    fn servers(words: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        let settings = settings(words, variables).unwrap();
        settings.debuginfod.map(|it| it.servers).unwrap_or_default()
    }

    #[test]
    fn servers_are_asked_only_where_that_was_asked_for() {
        let urls = [("DEBUGINFOD_URLS", "https://a http://b/ ima:enforcing")];
        assert!(servers(&[], &[]).is_empty());
        assert_eq!(servers(&[], &urls), ["https://a", "http://b/"]);
        assert_eq!(servers(&["--debuginfod"], &urls), ["https://a", "http://b/"]);
        assert_eq!(servers(&["--debuginfod=http://c"], &urls), ["http://c"]);
        assert!(servers(&["--no-debuginfod"], &urls).is_empty());
        assert!(!servers(&["--debuginfod"], &[]).is_empty());
        assert!(settings(&["--debuginfod=c"], &[]).is_err());
    }

    #[test]
    fn environment_sets_the_limits() {
        let variables = [
            ("DEBUGINFOD_URLS", "http://a"),
            ("DEBUGINFOD_TIMEOUT", "3"),
            ("DEBUGINFOD_MAXTIME", "none"),
            ("DEBUGINFOD_MAXSIZE", "1000"),
            ("DEBUGINFOD_CACHE_PATH", "/there"),
        ];
        let settings = settings(&[], &variables).unwrap().debuginfod.unwrap();
        assert_eq!(settings.timeout, Duration::from_secs(3));
        assert_eq!(settings.max_time, MAX_TIME);
        assert_eq!(settings.max_bytes, 1000);
        assert_eq!(settings.cache, Some("/there".into()));
    }

    #[test]
    fn cache_is_the_users() {
        let none = |_: &str| None;
        let home = |name: &str| (name == "HOME").then(|| "/users/one".to_owned());
        assert_eq!(cache(None, &none), None);
        assert_eq!(
            cache(None, &home),
            Some("/users/one/.cache/debuginfod_client".into())
        );
        let user = User {
            uid: 7,
            gid: 7,
            name: std::ffi::CString::default(),
            groups: Vec::new(),
            home: Some("/users/seven".into()),
            shell: None,
        };
        assert_eq!(
            cache(Some(&user), &home),
            Some("/users/seven/.cache/debuginfod_client".into())
        );
    }

    #[test]
    fn directories_must_be_there() {
        assert!(settings(&["--debug-dir", "/nowhere/at/all"], &[]).is_err());
        assert!(settings(&["--debug-dir", "/proc/self/exe"], &[]).is_err());
        let found = settings(&["--debug-dir", "/usr", "--debug-dir", "/"], &[]).unwrap();
        assert_eq!(found.debug_directories, [PathBuf::from("/usr"), "/".into()]);
    }
}

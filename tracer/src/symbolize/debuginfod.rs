//! Debug information from debuginfod servers: `GET SERVER/buildid/BUILDID/debuginfo`
//! (debuginfod(8)).
//!
//! Only what the user asked for is asked of a server, and only once nothing is traced any more. A
//! server that fails is named once, and not asked again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::NamedTempFile;
use thiserror::Error;
use ureq::tls::{RootCerts, TlsConfig};

use super::cache::{Cache, Cached};
use super::debug_file::{DebugFile, check};
use crate::elf::BuildId;
use crate::message;
use crate::settings;

/// The longest time until a connection is made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A client of the servers that the user named.
#[derive(Debug)]
pub(super) struct DebuginfodClient {
    settings: settings::Debuginfod,
    agent: ureq::Agent,
    cache: Option<Cache>,
    servers: Vec<String>,
}

/// The reasons for which a download failed.
#[derive(Debug, Error)]
enum FetchError {
    /// The server has nothing for this build.
    #[error("it has none")]
    None,
    #[error("{0}")]
    Http(#[from] ureq::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("its answer is larger than {0} bytes")]
    TooLarge(u64),
    #[error("its answer is of no use: {0}")]
    Unfit(String),
}

impl DebuginfodClient {
    pub(super) fn new(settings: &settings::Debuginfod) -> Self {
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_WITHIN.min(settings.timeout)))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_global(Some(settings.max_time))
            .user_agent(concat!("memtap/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Self {
            agent: config.into(),
            cache: settings
                .cache
                .clone()
                .map(|directory| Cache::new(directory, settings.owner.clone())),
            servers: settings.servers.clone(),
            settings: settings.clone(),
        }
    }

    /// The debug information of a build, from the cache or from the first server that has it.
    /// `what` is whose it is.
    pub(super) fn fetch(&mut self, id: &BuildId, what: &Path) -> Option<DebugFile> {
        if let Some(cache) = &self.cache {
            match cache.get(id) {
                Cached::File(file) => match check(&file, Some(id), true) {
                    Ok(()) => {
                        let path = cache.path(id);
                        log::debug!("{}: debug information in {}", what.display(), path.display());
                        return Some(DebugFile { file, path });
                    }
                    Err(reason) => {
                        log::debug!("{} is fetched anew: {reason}", cache.path(id).display());
                        cache.remove(id);
                    }
                },
                Cached::Miss => {
                    log::debug!("{}: no server had debug information, lately", what.display());
                    return None;
                }
                Cached::Nothing => {}
            }
        }
        let mut has_failed = false;
        for server in self.servers.clone() {
            if !self.settings.quiet {
                message::say(format_args!(
                    "fetching debug information of {} (build id {id}) from {server}",
                    what.display()
                ));
            }
            match self.download(&server, id) {
                Ok(found) => {
                    log::debug!("{}: debug information from {server}", what.display());
                    return Some(found);
                }
                Err(FetchError::None) => log::debug!("{}: {server} has no debug information", what.display()),
                Err(error) => {
                    has_failed = true;
                    log::warn!("{server}: {error}: it is not asked for debug information any more");
                    self.servers.retain(|other| *other != server);
                }
            }
        }
        if !has_failed
            && !self.servers.is_empty()
            && let Some(cache) = &self.cache
        {
            cache.note_miss(id);
        }
        None
    }

    /// Returns true if there is a server left to ask.
    pub(super) fn has_servers(&self) -> bool {
        !self.servers.is_empty()
    }

    fn download(&self, server: &str, id: &BuildId) -> Result<DebugFile, FetchError> {
        let url = format!("{}/buildid/{id}/debuginfo", server.trim_end_matches('/'));
        let mut response = match self.agent.get(&url).call() {
            Err(ureq::Error::StatusCode(404)) => return Err(FetchError::None),
            answer => answer?,
        };
        let most = self.settings.max_bytes;
        if response.body().content_length().is_some_and(|len| len > most) {
            return Err(FetchError::TooLarge(most));
        }
        let mut room = self.room(id)?;
        let mut body = response.body_mut().as_reader().take(most.saturating_add(1));
        let bytes = io::copy(&mut body, &mut room)?;
        if bytes > most {
            return Err(FetchError::TooLarge(most));
        }
        room.flush()?;
        check(room.file(), Some(id), true).map_err(FetchError::Unfit)?;
        match (room, &self.cache) {
            (Room::Cached(file), Some(cache)) => {
                let path = cache.path(id);
                Ok(DebugFile {
                    file: cache.keep(id, file)?,
                    path,
                })
            }
            (Room::Cached(file), None) => Ok(DebugFile {
                path: file.path().to_path_buf(),
                file: file.into_file(),
            }),
            (Room::Unnamed(file), _) => Ok(DebugFile {
                file,
                path: PathBuf::from(url),
            }),
        }
    }

    /// The destination of a download: the cache, or a file without a name where there is none.
    fn room(&self, id: &BuildId) -> io::Result<Room> {
        if let Some(cache) = &self.cache {
            match cache.begin(id) {
                Ok(file) => return Ok(Room::Cached(file)),
                Err(error) => log::debug!(
                    "{}: {error}: what is fetched is not kept",
                    cache.directory().display()
                ),
            }
        }
        tempfile::tempfile().map(Room::Unnamed)
    }
}

enum Room {
    Cached(NamedTempFile),
    Unnamed(File),
}

impl Room {
    fn file(&self) -> &File {
        match self {
            Self::Cached(file) => file.as_file(),
            Self::Unnamed(file) => file,
        }
    }
}

impl Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

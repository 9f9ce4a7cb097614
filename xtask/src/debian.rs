//! Debian's package of the library's source: downloaded by a private apt, unpacked, never installed.
//!
//! The private apt has its own sources, lists, cache and state below the user's cache folder, so that it
//! needs no root and leaves the machine's apt as it is. From the machine it takes the mirror's address, the
//! keyring, and how to reach the network.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt_sources::{self, Mirror};
use crate::{process, workspace};

/// The suite that has the pinned version. Its source package is independent of architecture and release.
const SUITE: &str = "trixie-backports";

/// Unpacks the `rust-src` package of exactly rustc's `version` into the folder `destination`.
pub(crate) fn unpack_rust_src(version: &str, destination: &Path) -> Result<()> {
    for program in ["apt-get", "apt-cache", "apt-config", "dpkg-deb"] {
        if !workspace::in_path(program) {
            bail!(
                "failed to download Debian's rust-src: {program} is not here, so this is not a Debian system"
            );
        }
    }
    let mirror = machine_mirror()?;
    let apt = PrivateApt::create(&workspace::cache_dir()?.join("apt"), &mirror)?;
    process::output(
        apt.command("apt-get")
            .args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"]),
        &format!("read the list of {SUITE} from {}", mirror.uri),
    )?;
    let offers = process::output(
        apt.command("apt-cache").args(["madison", "rust-src"]),
        &format!("look for rust-src in {SUITE}"),
    )?;
    let package = choose(&offers, version)?;
    let archives = apt.home.join("archives");
    process::output(
        apt.command("apt-get")
            .current_dir(&archives)
            .args(["-qq", "download", &package]),
        &format!("download {package}"),
    )?;
    let archive = only_archive(&archives)?;
    // Unpacked beside its place and then renamed, so that an interrupted run leaves nothing half done.
    let staging = destination.with_extension("partial");
    remove_dir(&staging)?;
    process::output(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&archive)
            .arg(&staging),
        &format!("unpack {}", archive.display()),
    )?;
    remove_dir(destination)?;
    fs::rename(&staging, destination)
        .with_context(|| format!("failed to move {} into place", destination.display()))?;
    remove_dir(&archives)
}

/// The package to download, as `name=version`, out of the output of `apt-cache madison`, newest first.
fn choose(offers: &str, version: &str) -> Result<String> {
    let offered: Vec<&str> = offers
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .collect();
    let matching = |candidate: &&&str| {
        candidate
            .strip_prefix(version)
            .is_some_and(|revision| revision.starts_with(['+', '-', '~']))
    };
    match offered.iter().find(matching) {
        Some(exact) => Ok(format!("rust-src={exact}")),
        None => bail!(
            "failed to find rust-src {version} in {SUITE}, which offers {}",
            if offered.is_empty() {
                "none".to_owned()
            } else {
                offered.join(", ")
            }
        ),
    }
}

fn only_archive(archives: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(archives).with_context(|| format!("failed to read {}", archives.display()))?;
    entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .with_context(|| {
            format!(
                "failed to find the package that apt-get put into {}",
                archives.display()
            )
        })
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The Debian mirror that this machine's own apt uses.
fn machine_mirror() -> Result<Mirror> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        let mut parts: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .collect();
        parts.sort();
        files.extend(parts);
    }
    files
        .iter()
        .find_map(|file| {
            let parse = match file.extension()?.to_str()? {
                "list" => apt_sources::in_one_line_style,
                "sources" => apt_sources::in_deb822_style,
                _ => return None,
            };
            parse(&fs::read_to_string(file).ok()?)
        })
        .context("failed to find a Debian mirror: no file of /etc/apt/sources.list* names a suite of Debian")
}

/// An apt whose every file lies in one folder.
struct PrivateApt {
    home: PathBuf,
}

impl PrivateApt {
    fn create(home: &Path, mirror: &Mirror) -> Result<Self> {
        // Packages of an earlier run that was interrupted would be taken for this one's.
        remove_dir(&home.join("archives"))?;
        for folder in [
            "archives/partial",
            "lists/partial",
            "cache",
            "state",
            "parts",
            "preferences",
        ] {
            let folder = home.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        let signed_by = mirror
            .signed_by
            .as_ref()
            .map(|value| format!("Signed-By: {value}\n"))
            .unwrap_or_default();
        let source = format!(
            "Types: deb\nURIs: {}\nSuites: {SUITE}\nComponents: main\n{signed_by}",
            mirror.uri
        );
        write_private(&home.join("debian.sources"), &source)?;
        write_private(&home.join("apt.conf"), &configuration(home)?)?;
        Ok(Self {
            home: home.to_path_buf(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.home.join("apt.conf"))
            .env("LC_ALL", "C");
        command
    }
}

/// The machine's own network settings (proxies, certificates, time limits) without its hooks, which may
/// need root or clear the system's cache; then this apt's own folders.
fn configuration(home: &Path) -> Result<String> {
    let machine = process::output(
        Command::new("apt-config").arg("dump"),
        "read the machine's apt settings",
    )?;
    let network = machine.lines().filter(|line| {
        line.starts_with("Acquire::")
            && !line.starts_with("Acquire::IndexTargets")
            && !line.contains("Acquire::Languages")
    });
    let home = home.display();
    let own = format!(
        r#"
Dir::Etc::Main "/dev/null";
Dir::Etc::Parts "{home}/parts";
Dir::Etc::SourceList "{home}/debian.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "{home}/preferences";
Dir::State "{home}/state";
Dir::State::Lists "{home}/lists";
Dir::Cache "{home}/cache";
Dir::Cache::Archives "{home}/archives";
Acquire::Languages "none";
APT::Sandbox::User "";
"#
    );
    Ok(network.collect::<Vec<_>>().join("\n") + &own)
}

/// Writes a file that only its owner reads: a proxy's address may hold a password.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())
    };
    write().with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFERS: &str = "  rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://mirror.example trixie-backports/main\n\
                          \x20 rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.example trixie-backports/main\n";

    #[test]
    fn the_exact_version_is_chosen() {
        assert_eq!(
            choose(OFFERS, "1.95.0").ok().as_deref(),
            Some("rust-src=1.95.0+dfsg1-2~bpo13+1")
        );
    }

    #[test]
    fn another_version_is_refused_by_name() {
        for wanted in ["1.95", "1.9", "1.97.0"] {
            let error = choose(OFFERS, wanted).map_err(|error| error.to_string());
            assert!(error.is_err_and(|message| message.contains("1.96.1")), "{wanted}");
        }
        let error = choose("", "1.95.0").map_err(|error| error.to_string());
        assert!(error.is_err_and(|message| message.ends_with("offers none")));
    }
}

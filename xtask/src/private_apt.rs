//! An apt of our own: it downloads Debian packages, which are unpacked and never installed.
//!
//! It has its own sources, lists, cache and state below the user's cache directory, so that it
//! needs no root and leaves the machine's apt as it is. From the machine it takes the mirror's
//! address, the keyring, and how to reach the network.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt_sources::{self, Mirror};
use crate::{process, workspace};

/// An apt whose every file lies in one directory, and which knows one suite of Debian.
pub(crate) struct PrivateApt {
    home: PathBuf,
    suite: &'static str,
}

impl PrivateApt {
    /// Sets one up in the directory `home`, and reads what `suite` offers from the mirror that the
    /// machine uses.
    pub(crate) fn of_suite(home: &Path, suite: &'static str) -> Result<Self> {
        for program in ["apt-get", "apt-cache", "apt-config", "dpkg-deb"] {
            if !workspace::in_path(program) {
                bail!("failed to read {suite}: {program} is not here, so this is not a Debian system");
            }
        }
        let mirror = machine_mirror()?;
        let apt = Self::create(home, &mirror, suite)?;
        process::output(
            apt.command("apt-get")
                .args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"]),
            &format!("read the list of {suite} from {}", mirror.uri),
        )?;
        Ok(apt)
    }

    /// The names of packages that begin with `prefix`, among them names that others only refer to.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = process::output(
            self.command("apt-cache").args(["pkgnames", prefix]),
            &format!("look for {prefix}… in {}", self.suite),
        )?;
        Ok(names.lines().map(|name| name.trim().to_owned()).collect())
    }

    /// The versions of `package` that the suite has, newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let offers = process::output(
            self.command("apt-cache").args(["madison", package]),
            &format!("look for {package} in {}", self.suite),
        )?;
        Ok(versions_in(&offers))
    }

    /// Downloads `package` (a name, or `name=version`) and unpacks it over what is in
    /// `destination`.
    pub(crate) fn unpack(&self, package: &str, destination: &Path) -> Result<()> {
        let archives = self.home.join("archives");
        process::output(
            self.command("apt-get")
                .current_dir(&archives)
                .args(["-qq", "download", package]),
            &format!("download {package}"),
        )?;
        let archive = only_archive(&archives)?;
        process::output(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(&archive)
                .arg(destination),
            &format!("unpack {}", archive.display()),
        )?;
        fs::remove_file(&archive).with_context(|| format!("failed to remove {}", archive.display()))
    }

    fn create(home: &Path, mirror: &Mirror, suite: &'static str) -> Result<Self> {
        // Packages of an earlier run that was interrupted would be taken for this one's.
        remove_dir(&home.join("archives"))?;
        for directory in [
            "archives/partial",
            "lists/partial",
            "cache",
            "state",
            "parts",
            "preferences",
        ] {
            let directory = home.join(directory);
            fs::create_dir_all(&directory)
                .with_context(|| format!("failed to create {}", directory.display()))?;
        }
        let signed_by = mirror
            .signed_by
            .as_ref()
            .map(|value| format!("Signed-By: {value}\n"))
            .unwrap_or_default();
        let source = format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{signed_by}",
            mirror.uri
        );
        write_private(&home.join("debian.sources"), &source)?;
        write_private(&home.join("apt.conf"), &configuration(home)?)?;
        Ok(Self {
            home: home.to_path_buf(),
            suite,
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

/// Removes a directory, which need not be there.
pub(crate) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The second column of what `apt-cache madison` prints.
fn versions_in(offers: &str) -> Vec<String> {
    offers
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_owned())
        .collect()
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

/// The machine's own network settings (proxies, certificates, time limits) without its hooks, which
/// may need root or clear the system's cache; then this apt's own directories.
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
    use super::versions_in;

    #[test]
    fn versions_of_madison() {
        let offers = "  rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://mirror.example trixie-backports/main\n\
                      \x20 rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.example trixie-backports/main\n";
        assert_eq!(
            versions_in(offers),
            ["1.96.1+dfsg1-2~bpo13+1", "1.95.0+dfsg1-2~bpo13+1"]
        );
        assert!(versions_in("").is_empty());
    }
}

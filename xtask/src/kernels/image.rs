//! A kernel to boot: Debian's package, unpacked and never installed, cut down to what a virtual
//! machine needs.
//!
//! In the cache a kernel is a directory named after its series, with `vmlinuz`, `release` and
//! `modules/`: the modules that the root file system needs, uncompressed, numbered in the order of
//! loading.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::series::Series;
use crate::private_apt::{PrivateApt, remove_dir};
use crate::{process, workspace};

/// The flavour for virtual machines: small, and it has the drivers that QEMU's machine needs.
const FLAVOUR: &str = "-cloud-amd64";

/// The modules that the guest's root file system needs. Each brings along what it depends on
/// itself.
const MODULES: &[&str] = &["virtio_pci", "virtiofs", "overlay"];

/// A kernel in the cache.
pub(super) struct KernelImage {
    /// As `uname -r` says, such as `6.1.0-50-cloud-amd64`.
    pub(super) release: String,
    /// The compressed kernel.
    pub(super) kernel: PathBuf,
    /// Modules in the order of loading.
    pub(super) modules: Vec<PathBuf>,
}

impl KernelImage {
    /// The kernel of this series in the cache; the newest of the mirror if there is none, or if
    /// `update` asks for it.
    pub(super) fn find(series: &Series, update: bool) -> Result<Self> {
        if std::env::consts::ARCH != "x86_64" {
            bail!("failed to choose a kernel: only those for x86-64 are booted, and this machine is another");
        }
        let cache = workspace::cache_dir()?.join("kernels");
        let directory = cache.join(series.name);
        if update || !directory.join("release").is_file() {
            eprintln!(
                "xtask: getting a kernel {} from the suite {}",
                series.name, series.suite
            );
            let home = cache.join("apt").join(series.suite);
            let apt = PrivateApt::of_suite(&home, series.suite)?;
            download(series, &apt, &directory)?;
            // Its lists are several times the size of the kernel, and of no use the next time.
            remove_dir(&home)?;
        }
        Self::open(&directory)
    }

    fn open(directory: &Path) -> Result<Self> {
        let path = directory.join("release");
        let release =
            fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let modules = directory.join("modules");
        let entries =
            fs::read_dir(&modules).with_context(|| format!("failed to read {}", modules.display()))?;
        let mut modules: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .collect();
        modules.sort();
        Ok(Self {
            release,
            kernel: directory.join("vmlinuz"),
            modules,
        })
    }
}

/// Downloads the newest kernel of `series` and leaves what is needed of it in `directory`.
fn download(series: &Series, apt: &PrivateApt, directory: &Path) -> Result<()> {
    let prefix = format!("linux-image-{}.", series.name);
    let mut releases: Vec<String> = apt
        .names(&prefix)?
        .iter()
        .filter_map(|name| release_in(name))
        .collect();
    releases.sort_by_key(|release| numbers_in(release));
    let release = loop {
        let Some(release) = releases.pop() else {
            bail!(
                "failed to find a kernel {} in {}: no package {prefix}*{FLAVOUR} there",
                series.name,
                series.suite
            );
        };
        // A name that another package only refers to has no version.
        if !apt.versions(&format!("linux-image-{release}"))?.is_empty() {
            break release;
        }
    };
    // Unpacked beside its place and then renamed, so that an interrupted run leaves nothing half
    // done.
    let staging = directory.with_file_name(format!("{}.partial", series.name));
    remove_dir(&staging)?;
    let root = staging.join("root");
    fs::create_dir_all(&root).with_context(|| format!("failed to create {}", root.display()))?;
    // The newer of these packages are empty: the kernel, its modules, and what is built in are in
    // three others.
    for part in ["linux-image", "linux-binary", "linux-modules", "linux-base"] {
        let package = format!("{part}-{release}");
        if !apt.versions(&package)?.is_empty() {
            apt.unpack(&package, &root)?;
        }
    }
    keep_kernel(&root, &release, &staging)?;
    keep_modules(&root, &release, &staging.join("modules"))?;
    remove_dir(&root)?;
    let path = staging.join("release");
    fs::write(&path, &release).with_context(|| format!("failed to write {}", path.display()))?;
    remove_dir(directory)?;
    fs::rename(&staging, directory)
        .with_context(|| format!("failed to move {} into place", directory.display()))
}

/// The release in the name of a package with a kernel.
fn release_in(package: &str) -> Option<String> {
    let release = package.strip_prefix("linux-image-")?;
    release.ends_with(FLAVOUR).then(|| release.to_owned())
}

/// Returns what releases are ordered by: `6.1.0-9` comes before `6.1.0-50`.
fn numbers_in(release: &str) -> Vec<u64> {
    let words = release.split(|character: char| !character.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).collect()
}

fn keep_kernel(root: &Path, release: &str, staging: &Path) -> Result<()> {
    let places = [
        format!("boot/vmlinuz-{release}"),
        format!("usr/lib/modules/{release}/vmlinuz"),
    ];
    let found = places
        .iter()
        .map(|place| root.join(place))
        .find(|path| path.is_file());
    let Some(kernel) = found else {
        bail!(
            "failed to find the kernel in the packages of {release}: no {}",
            places.join(", no ")
        );
    };
    let kept = staging.join("vmlinuz");
    fs::rename(&kernel, &kept).with_context(|| format!("failed to move {} into place", kept.display()))
}

fn keep_modules(root: &Path, release: &str, kept: &Path) -> Result<()> {
    // Where packages put modules below /usr, modprobe's own place has to lead there.
    let library = root.join("lib");
    if !library.exists() {
        std::os::unix::fs::symlink("usr/lib", &library)
            .with_context(|| format!("failed to link {}", library.display()))?;
    }
    process::output(
        Command::new("/sbin/depmod").arg("-b").arg(root).arg(release),
        &format!("list the modules of {release}"),
    )?;
    fs::create_dir_all(kept).with_context(|| format!("failed to create {}", kept.display()))?;
    let mut done = Vec::new();
    for module in MODULES {
        let steps = process::output(
            Command::new("/sbin/modprobe").arg("-d").arg(root).args([
                "-S",
                release,
                "--show-depends",
                module,
            ]),
            &format!("find the module {module} of {release}"),
        )?;
        for path in files_in(&steps) {
            if !done.contains(&path) {
                let number = 10 + done.len();
                uncompress(&path, kept, number)?;
                done.push(path);
            }
        }
    }
    Ok(())
}

/// The files that `modprobe --show-depends` would load; what is built in needs none.
fn files_in(steps: &str) -> Vec<PathBuf> {
    steps
        .lines()
        .filter_map(|line| line.strip_prefix("insmod "))
        .map(|path| PathBuf::from(path.trim()))
        .collect()
}

fn uncompress(module: &Path, kept: &Path, number: usize) -> Result<()> {
    let name = module.file_name().unwrap_or_default().to_string_lossy();
    let (name, program) = match name.rsplit_once('.') {
        Some((stem, "xz")) => (stem, "xz"),
        Some((stem, "zst")) => (stem, "zstd"),
        _ => (&*name, "cat"),
    };
    let path = kept.join(format!("{number}-{name}"));
    let file = fs::File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    let mut command = Command::new(program);
    if program != "cat" {
        command.args(["-d", "-c"]);
    }
    command.arg(module).stdout(Stdio::from(file));
    process::run(&mut command, &format!("uncompress {}", module.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_packages() {
        assert_eq!(
            release_in("linux-image-6.1.0-50-cloud-amd64").as_deref(),
            Some("6.1.0-50-cloud-amd64")
        );
        assert_eq!(release_in("linux-image-6.1.0-50-cloud-amd64-dbg"), None);
        assert_eq!(release_in("linux-image-6.1.0-50-amd64"), None);
    }

    #[test]
    fn newest_last() {
        let mut releases = ["7.2.12+deb13-cloud-amd64", "7.2.9+deb13-cloud-amd64"];
        releases.sort_by_key(|release| numbers_in(release));
        assert_eq!(releases[1], "7.2.12+deb13-cloud-amd64");
    }

    #[test]
    fn steps_of_modprobe() {
        let steps = "builtin virtio_ring\ninsmod /x/fuse.ko.xz \ninsmod /x/virtiofs.ko\n";
        assert_eq!(
            files_in(steps),
            [PathBuf::from("/x/fuse.ko.xz"), PathBuf::from("/x/virtiofs.ko")]
        );
    }
}

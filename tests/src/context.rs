//! The machine: where memtap is, how to become root, what is installed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run::run;

/// The context of every test.
#[derive(Debug, Clone)]
pub struct Context {
    /// The program under test.
    pub memtap: PathBuf,
    /// The directory that fixtures are built in; kept between runs.
    pub work: PathBuf,
    is_root: bool,
}

/// Something that a test needs and a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A C compiler.
    Compiler,
    /// A C++ compiler.
    CppCompiler,
    /// A Rust compiler.
    Rustc,
    /// The C library as an archive, for static executables.
    StaticLibc,
    /// `musl-gcc`.
    Musl,
    /// `nm`, `objcopy`, `readelf` and `strip`.
    Binutils,
    /// `strace`.
    Strace,
    /// `/usr/bin/python3`.
    Python,
    /// `unshare` and `setpriv` of util-linux.
    Namespaces,
    /// `sudo`, and the programs that make a user and a group.
    Sudo,
    /// `heaptrack` and `heaptrack_print`.
    Heaptrack,
    /// `sqlite3`.
    Sqlite,
    /// `perl`.
    Perl,
    /// `git`.
    Git,
    /// `memcached`.
    Memcached,
    /// jemalloc's library, headers and archive.
    Jemalloc,
    /// tcmalloc's library and archive.
    Tcmalloc,
    /// mimalloc's library.
    Mimalloc,
    /// `redis-server`, `redis-cli` and `redis-benchmark`.
    Redis,
    /// `cargo`, and the crates that `fixtures/rust_allocators` names.
    Crates,
    /// `xz`.
    Xz,
    /// `node`.
    Node,
    /// `java` and `javac`.
    Java,
    /// `nginx`.
    Nginx,
    /// `postgres`, `initdb` and `pgbench`, and a user `postgres`.
    Postgres,
    /// A hierarchy of cgroup v2 that can be written to.
    Cgroup2,
    /// overlayfs in the kernel, and `mount`.
    Overlay,
    /// Go, with its pprof.
    Go,
    /// `protoc`, and pprof's description of its messages.
    Protoc,
    /// `chromium`.
    Chromium,
    /// `npm` and `node`, and the packages of [`crate::Speedscope`].
    Speedscope,
}

impl Context {
    /// Finds memtap (`MEMTAP_BIN`, else the workspace's release build) and a way to become root;
    /// `work` is a directory for what is built.
    pub fn find(work: &Path) -> Result<Self> {
        let memtap = match std::env::var_os("MEMTAP_BIN") {
            Some(path) => PathBuf::from(path),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/memtap"),
        };
        let memtap = memtap.canonicalize().with_context(|| {
            format!(
                "there is no {}: build it with `cargo build --release`, or name another in MEMTAP_BIN",
                memtap.display()
            )
        })?;
        std::fs::create_dir_all(work).with_context(|| format!("failed to create {}", work.display()))?;
        let is_root = test_support::privilege::is_root();
        let context = Self {
            memtap,
            work: work.to_owned(),
            is_root,
        };
        if !context.is_root && !context.privileged("true").status().is_ok_and(|s| s.success()) {
            bail!(
                "tracing needs root: run the suite as root, or where `sudo -n -E true` works without a password"
            );
        }
        Ok(context)
    }

    /// A command to be run as root.
    #[must_use]
    pub fn privileged(&self, program: impl AsRef<OsStr>) -> Command {
        if self.is_root {
            let mut command = Command::new(program);
            // A suite that was started by sudo is to test what root sees; tests of sudo set these
            // themselves.
            for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"] {
                command.env_remove(name);
            }
            command
        } else {
            let mut command = Command::new("sudo");
            command.args(["-n", "-E", "--"]).arg(program);
            command
        }
    }

    /// A command to be run without any privilege.
    #[must_use]
    pub fn unprivileged(&self, program: impl AsRef<OsStr>) -> Command {
        if self.is_root {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
                .arg(program);
            command
        } else {
            Command::new(program)
        }
    }

    /// Returns whether the suite itself is root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.is_root
    }

    /// The process of this name that [`privileged`](Self::privileged) started as `pid`: a child of
    /// that one where sudo was needed.
    pub fn behind_sudo(&self, pid: u32, comm: &str) -> Result<u32> {
        if self.is_root {
            return Ok(pid);
        }
        let mut generation = vec![pid];
        while !generation.is_empty() {
            for pid in &generation {
                let found = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
                if found.trim_end() == comm {
                    return Ok(*pid);
                }
            }
            generation = children(&generation)?;
        }
        bail!("{comm} does not run")
    }

    /// Sends a signal, by name or number, to one process.
    pub fn signal(&self, pid: u32, signal: &str) -> Result<()> {
        let mut command = self.privileged("kill");
        command.args(["-s", signal, &pid.to_string()]);
        run(command)?.succeeded()?;
        Ok(())
    }
}

impl Need {
    /// Returns why the need is not met, or nothing if it is.
    #[must_use]
    pub fn missing(self) -> Option<&'static str> {
        let (is_met, reason) = match self {
            Self::Compiler => (on_path("cc"), "no C compiler `cc`"),
            Self::CppCompiler => (on_path("c++"), "no C++ compiler `c++`"),
            Self::Rustc => (on_path("rustc"), "no `rustc`"),
            Self::StaticLibc => (static_libc(), "no libc.a to link static executables"),
            Self::Musl => (on_path("musl-gcc"), "no `musl-gcc` (musl-tools)"),
            Self::Binutils => (
                ["nm", "objcopy", "readelf", "strip"].into_iter().all(on_path),
                "no `nm`, `objcopy`, `readelf` or `strip` (binutils)",
            ),
            Self::Strace => (on_path("strace"), "no `strace`"),
            Self::Python => (Path::new("/usr/bin/python3").exists(), "no /usr/bin/python3"),
            Self::Namespaces => (
                on_path("unshare") && on_path("setpriv"),
                "no `unshare` or `setpriv` (util-linux)",
            ),
            Self::Sudo => (
                Path::new("/etc/sudoers.d").is_dir()
                    && ["sudo", "setpriv", "useradd", "userdel", "groupadd"]
                        .into_iter()
                        .all(on_path),
                "no `sudo` (with /etc/sudoers.d) or no `useradd` (passwd)",
            ),
            Self::Heaptrack => (
                ["heaptrack", "heaptrack_print"].into_iter().all(on_path),
                "no `heaptrack`",
            ),
            Self::Sqlite => (on_path("sqlite3"), "no `sqlite3`"),
            Self::Perl => (on_path("perl"), "no `perl`"),
            Self::Git => (on_path("git"), "no `git`"),
            Self::Memcached => (on_path("memcached"), "no `memcached`"),
            Self::Jemalloc => (
                library_file("libjemalloc.a") && library_file("libjemalloc.so.2"),
                "no libjemalloc.so.2 or libjemalloc.a (libjemalloc-dev)",
            ),
            Self::Tcmalloc => (
                library_file("libtcmalloc_minimal.a") && library_file("libtcmalloc_minimal.so.4"),
                "no libtcmalloc_minimal.so.4 or libtcmalloc_minimal.a (libgoogle-perftools-dev)",
            ),
            Self::Mimalloc => (
                library_file("libmimalloc.so") && library_file("libmimalloc.so.2.0"),
                "no libmimalloc.so.2.0 (libmimalloc-dev)",
            ),
            Self::Redis => (
                ["redis-server", "redis-cli", "redis-benchmark"]
                    .into_iter()
                    .all(on_path),
                "no `redis-server`, `redis-cli` or `redis-benchmark`",
            ),
            Self::Crates => (
                fixture_crates(),
                "no `cargo`, or it cannot have the crates of tests/fixtures/rust_allocators",
            ),
            Self::Xz => (on_path("xz"), "no `xz` (xz-utils)"),
            Self::Node => (on_path("node"), "no `node` (nodejs)"),
            Self::Java => (
                on_path("java") && on_path("javac"),
                "no `java` or `javac` (default-jdk-headless)",
            ),
            Self::Nginx => (on_path("nginx"), "no `nginx`"),
            Self::Postgres => (
                ["postgres", "initdb", "pgbench"].into_iter().all(on_path) && has_user("postgres"),
                "no `postgres`, `initdb` or `pgbench` on the path, or no user `postgres` (postgresql)",
            ),
            Self::Cgroup2 => (
                crate::cgroup::mount_point().is_some(),
                "no cgroup2 mounted so that it can be written to",
            ),
            Self::Overlay => (overlay(), "no overlayfs in its kernel"),
            Self::Go => (
                go_tool("go").is_some() && go_tool("pprof").is_some(),
                "no `go` with a `pprof` below /usr/lib (golang-1.19-go)",
            ),
            Self::Protoc => (
                on_path("protoc") && Path::new(PPROF_PROTO).exists(),
                "no `protoc`, or no profile.proto (protobuf-compiler, golang-github-google-pprof-dev)",
            ),
            Self::Chromium => (on_path("chromium"), "no `chromium`"),
            Self::Speedscope => (
                on_path("node") && on_path("npm") && crate::Speedscope::get().is_some(),
                "no `node` or `npm`, or it cannot have the packages `speedscope` and `ajv`",
            ),
        };
        (!is_met).then_some(reason)
    }
}

/// pprof's description of its messages, as Debian ships it.
const PPROF_PROTO: &str = "/usr/share/gocode/src/github.com/google/pprof/proto/profile.proto";

/// The path of `go`, or of one of its tools, as Debian ships them: `/usr/lib/go-1.19/…`.
#[must_use]
pub fn go_tool(name: &str) -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").ok()?;
    let mut versions: Vec<PathBuf> = directories
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|it| it.as_bytes().starts_with(b"go-"))
        })
        .collect();
    versions.sort();
    let places = ["bin", "pkg/tool/linux_amd64"];
    let files = versions
        .iter()
        .flat_map(|version| places.map(|place| version.join(place).join(name)));
    files.into_iter().find(|file| file.is_file())
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Returns whether the crates of the fixture are there, or can be fetched.
fn fixture_crates() -> bool {
    static ARE_THERE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ARE_THERE.get_or_init(|| {
        let mut command = Command::new("cargo");
        command
            .args(["fetch", "--locked", "--quiet"])
            .current_dir(crate::recipe::crate_directory("rust_allocators"));
        run(command).is_ok_and(|finished| finished.code() == 0)
    })
}

fn has_user(name: &str) -> bool {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    users
        .lines()
        .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))
}

fn overlay() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("\toverlay\n"))
}

fn static_libc() -> bool {
    library_file("libc.a")
}

/// Returns whether the linker finds a library's file.
fn library_file(name: &str) -> bool {
    library_path(name).is_some()
}

/// The path of a library's file that the linker finds. `cc -print-file-name` repeats a name that it
/// cannot find, and gives a path for one that it can.
#[must_use]
pub fn library_path(name: &str) -> Option<PathBuf> {
    let output = Command::new("cc")
        .arg(format!("-print-file-name={name}"))
        .output()
        .ok()?;
    let path = PathBuf::from(OsStr::from_bytes(output.stdout.trim_ascii()));
    path.canonicalize().ok().filter(|_| path.is_absolute())
}

fn children(parents: &[u32]) -> Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process can be gone by now: it is nobody's child then.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1))
            .and_then(|parent| parent.parse().ok());
        if parent.is_some_and(|parent| parents.contains(&parent)) {
            children.push(pid);
        }
    }
    Ok(children)
}

//! Debian packages that building and testing need: installed where the caller is root, named where
//! not.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::{privilege, process, workspace};

/// One package, and how to see that it is there without asking dpkg, so that other systems are
/// served too.
pub struct Package {
    name: &'static str,
    /// A program that is looked for in `PATH`, or a file where it begins with `/`.
    provides: &'static str,
    reason: &'static str,
}

const GCC: Package = Package {
    name: "gcc",
    provides: "cc",
    reason: "links every Rust program; compiles the fixtures and the benchmark's loop",
};
const LIBC_DEV: Package = Package {
    name: "libc6-dev",
    provides: "/usr/include/stdlib.h",
    reason: "start-up files for the linker; headers for the fixtures",
};

const HEAPTRACK: Package = Package {
    name: "heaptrack",
    provides: "heaptrack_print",
    reason: "another tool's account of a program's blocks, and what that costs",
};

/// Packages that a build needs.
pub const BUILD: &[Package] = &[GCC, LIBC_DEV];

/// The source of lint's tools, where another Python does not provide it.
pub const LINT: &[Package] = &[Package {
    name: "python3-venv",
    provides: "/usr/share/doc/python3-venv",
    reason: "installs the tools of lint",
}];

/// Packages that `cargo xtask test` needs.
pub const TEST: &[Package] = &[
    GCC,
    LIBC_DEV,
    Package {
        name: "g++",
        provides: "c++",
        reason: "compiles the C++ fixtures",
    },
    Package {
        name: "musl-tools",
        provides: "musl-gcc",
        reason: "compiles fixtures for another C library",
    },
    Package {
        name: "binutils",
        provides: "readelf",
        reason: "strips fixtures, and says what is in them",
    },
    Package {
        name: "strace",
        provides: "strace",
        reason: "the reference for mmap, munmap and brk",
    },
    Package {
        name: "gdb",
        provides: "gdb",
        reason: "the reference for call stacks",
    },
    Package {
        name: "util-linux",
        provides: "unshare",
        reason: "namespaces, and dropping privileges",
    },
    Package {
        name: "sudo",
        provides: "sudo",
        reason: "files of the user who calls it",
    },
    Package {
        name: "passwd",
        provides: "useradd",
        reason: "a user who calls sudo",
    },
    Package {
        name: "python3",
        provides: "/usr/bin/python3",
        reason: "a program as the distribution ships it, traced while it runs",
    },
    HEAPTRACK,
    Package {
        name: "sqlite3",
        provides: "sqlite3",
        reason: "a program as the distribution ships it, whose blocks are followed",
    },
    Package {
        name: "perl",
        provides: "perl",
        reason: "a program as the distribution ships it, whose blocks are followed",
    },
    Package {
        name: "git",
        provides: "git",
        reason: "a program as the distribution ships it, whose blocks are followed",
    },
    Package {
        name: "libjemalloc-dev",
        provides: "/usr/include/jemalloc/jemalloc.h",
        reason: "an allocator to be traced, as a library and linked in",
    },
    Package {
        name: "libgoogle-perftools-dev",
        provides: "/usr/include/gperftools/tcmalloc.h",
        reason: "an allocator to be traced, as a library and linked in",
    },
    Package {
        name: "libmimalloc-dev",
        provides: "/usr/include/mimalloc.h",
        reason: "an allocator to be traced",
    },
    Package {
        name: "redis-server",
        provides: "redis-server",
        reason: "a server as the distribution ships it, whose allocator is jemalloc",
    },
    Package {
        name: "redis-tools",
        provides: "redis-benchmark",
        reason: "its clients",
    },
    Package {
        name: "memcached",
        provides: "memcached",
        reason: "a server as the distribution ships it, whose blocks are followed",
    },
    Package {
        name: "nginx-light",
        provides: "nginx",
        reason: "a server as the distribution ships it, with several processes",
    },
    Package {
        name: "libjemalloc2",
        provides: "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
        reason: "an allocator in whose functions probes must find a place",
    },
    Package {
        name: "libtcmalloc-minimal4",
        provides: "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
        reason: "an allocator in whose functions probes must find a place",
    },
    Package {
        name: "libmimalloc2.0",
        provides: "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2",
        reason: "an allocator in whose functions probes must find a place",
    },
    Package {
        name: "musl",
        provides: "/lib/ld-musl-x86_64.so.1",
        reason: "a C library in whose functions probes must find a place",
    },
    Package {
        name: "xz-utils",
        provides: "xz",
        reason: "packs small symbol tables as other distributions ship them",
    },
    Package {
        name: "nodejs",
        provides: "node",
        reason: "a just-in-time compiler that names its code",
    },
    Package {
        name: "golang-1.19-go",
        provides: "/usr/lib/go-1.19/pkg/tool/linux_amd64/pprof",
        reason: "a reader of saved profiles, and a writer of others",
    },
    Package {
        name: "protobuf-compiler",
        provides: "protoc",
        reason: "another reader of saved profiles",
    },
    Package {
        name: "golang-github-google-pprof-dev",
        provides: "/usr/share/gocode/src/github.com/google/pprof/proto/profile.proto",
        reason: "what that reader knows of them",
    },
    Package {
        name: "npm",
        provides: "npm",
        reason: "fetches the schema of speedscope's files",
    },
    Package {
        name: "chromium",
        provides: "chromium",
        reason: "shows pages, and uses them as a person does",
    },
];

/// The tools that `cargo xtask bench` compares with, and the programs that it measures; a row that
/// lacks one says so.
pub const BENCH: &[Package] = &[
    HEAPTRACK,
    Package {
        name: "bpftrace",
        provides: "bpftrace",
        reason: "a tool that the benchmark compares with",
    },
    Package {
        name: "linux-perf",
        provides: "perf",
        reason: "a tool that the benchmark compares with",
    },
    Package {
        name: "valgrind",
        provides: "valgrind",
        reason: "two tools that the benchmark compares with",
    },
    Package {
        name: "ltrace",
        provides: "ltrace",
        reason: "a tool that the benchmark compares with",
    },
    Package {
        name: "strace",
        provides: "strace",
        reason: "a tool that the benchmark compares with",
    },
    Package {
        name: "bpfcc-tools",
        provides: "/usr/sbin/memleak-bpfcc",
        reason: "another tool that follows blocks",
    },
    Package {
        name: "linux-headers-amd64",
        provides: "/usr/share/doc/linux-headers-amd64",
        reason: "headers that bcc compiles that tool with: those of the running kernel are not always to be had",
    },
    Package {
        name: "chromium",
        provides: "chromium",
        reason: "shows the page of many stacks",
    },
    Package {
        name: "python3",
        provides: "/usr/bin/python3",
        reason: "a program that the benchmark slows down",
    },
    Package {
        name: "git",
        provides: "git",
        reason: "a program that the benchmark slows down",
    },
    Package {
        name: "sqlite3",
        provides: "sqlite3",
        reason: "a program that the benchmark slows down",
    },
    Package {
        name: "redis-server",
        provides: "redis-server",
        reason: "a server that the benchmark slows down",
    },
    Package {
        name: "redis-tools",
        provides: "redis-benchmark",
        reason: "has the server do something",
    },
];

/// Packages that `cargo xtask truth` needs for every workload.
pub const TRUTH: &[Package] = &[
    GCC,
    LIBC_DEV,
    Package {
        name: "binutils",
        provides: "nm",
        reason: "says where libc's functions are",
    },
    Package {
        name: "gdb",
        provides: "gdb",
        reason: "the reference for call stacks",
    },
    Package {
        name: "util-linux",
        provides: "setarch",
        reason: "runs programs at addresses that are not random",
    },
];

/// Packages of single workloads of `cargo xtask truth`.
pub const TRUTH_PYTHON: &[Package] = &[Package {
    name: "python3",
    provides: "/usr/bin/python3",
    reason: "a program to compare stacks of",
}];
/// See [`TRUTH_PYTHON`].
pub const TRUTH_PERL: &[Package] = &[Package {
    name: "perl",
    provides: "perl",
    reason: "a program to compare stacks of",
}];
/// See [`TRUTH_PYTHON`].
pub const TRUTH_GIT: &[Package] = &[Package {
    name: "git",
    provides: "git",
    reason: "a program to compare stacks of",
}];
/// See [`TRUTH_PYTHON`].
pub const TRUTH_NODE: &[Package] = &[Package {
    name: "nodejs",
    provides: "node",
    reason: "a program to compare stacks of",
}];

/// Packages that `cargo xtask kernels` needs to unpack a kernel and to boot it.
pub const KERNELS: &[Package] = &[
    Package {
        name: "qemu-system-x86",
        provides: "qemu-system-x86_64",
        reason: "emulates the machine that other kernels run on",
    },
    Package {
        name: "busybox-static",
        provides: "/bin/busybox",
        reason: "the guest's first process",
    },
    Package {
        name: "kmod",
        provides: "/sbin/modprobe",
        reason: "finds the modules that the guest needs",
    },
    Package {
        name: "xz-utils",
        provides: "xz",
        reason: "uncompresses kernel modules",
    },
    Package {
        name: "zstd",
        provides: "zstd",
        reason: "uncompresses kernel modules",
    },
];
/// See [`KERNELS`]; QEMU's package has it up to Debian 12.
pub const VIRTIOFSD: &[Package] = &[Package {
    name: "virtiofsd",
    provides: "/usr/libexec/virtiofsd",
    reason: "gives the guest the host's files",
}];

/// Makes sure that all of `packages` are there: installs those that are missing, or fails naming
/// them.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing: Vec<&Package> = packages.iter().filter(|package| !package.is_present()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !privilege::is_root() || !workspace::in_path("apt-get") {
        let reasons: Vec<String> = missing
            .iter()
            .map(|package| format!("{} ({})", package.name, package.reason))
            .collect();
        bail!(
            "failed to find {}; install them, on Debian by `sudo apt-get install {}`",
            reasons.join(", "),
            names.join(" ")
        );
    }
    for package in &missing {
        eprintln!("xtask: installing {}: {}", package.name, package.reason);
    }
    install(&names)?;
    match missing.iter().find(|package| !package.is_present()) {
        None => Ok(()),
        Some(package) => bail!(
            "failed to find {} although the package {} is installed now; check PATH",
            package.provides,
            package.name
        ),
    }
}

fn install(names: &[&str]) -> Result<()> {
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-y"])
            .args(arguments);
        command
    };
    let install = [&["install", "--no-install-recommends"], names].concat();
    // The lists that are here are usually good enough, and fetching them costs more than the
    // packages do.
    if process::output(&mut apt_get(&install), "install packages").is_ok() {
        return Ok(());
    }
    process::output(&mut apt_get(&["update"]), "update the lists of packages")?;
    process::output(&mut apt_get(&install), &format!("install {}", names.join(" "))).map(drop)
}

impl Package {
    fn is_present(&self) -> bool {
        if self.provides.starts_with('/') {
            Path::new(self.provides).exists()
        } else {
            workspace::in_path(self.provides)
        }
    }
}

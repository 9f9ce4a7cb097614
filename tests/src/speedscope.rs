//! speedscope itself: the schema of its files, and the page that shows them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::run::run;

/// The packages: the first has schema and page, the second reads schemas.
const PACKAGES: [&str; 2] = ["speedscope@1.25.0", "ajv@8.20.0"];

/// Checks the file that its argument names, and prints what is wrong with it.
const CHECKER: &str = "
const { readFileSync } = require('fs');
const Ajv = require('ajv');
const read = (file) => JSON.parse(readFileSync(file, 'utf8'));
const schema = read(require.resolve('speedscope/dist/release/file-format-schema.json'));
const check = new Ajv({ strict: false, allErrors: true }).compile(schema);
if (!check(read(process.argv[2]))) {
  console.error(JSON.stringify(check.errors.slice(0, 10), null, 1));
  process.exit(1);
}
";

/// speedscope's own package, and a program that checks files.
#[derive(Debug)]
pub struct Speedscope {
    /// A script of node's that ends with 0 where the file that it is given keeps to the schema.
    pub checker: PathBuf,
    /// The page.
    pub page: PathBuf,
}

impl Speedscope {
    /// Returns the package, which npm fetches once; nothing where it cannot be had.
    #[must_use]
    pub fn get() -> Option<&'static Self> {
        static PACKAGE: OnceLock<Option<Speedscope>> = OnceLock::new();
        PACKAGE.get_or_init(Self::install).as_ref()
    }

    fn install() -> Option<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/speedscope");
        std::fs::create_dir_all(&directory).ok()?;
        let directory = directory.canonicalize().ok()?;
        let release = directory.join("node_modules/speedscope/dist/release");
        let reader = directory.join("node_modules/ajv/package.json");
        if !release.join("file-format-schema.json").exists() || !reader.exists() {
            let mut npm = Command::new("npm");
            npm.args([
                "install",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--no-save",
            ])
            .arg("--prefix")
            .arg(&directory)
            .args(PACKAGES);
            run(npm).ok().filter(|finished| finished.code() == 0)?;
        }
        let checker = directory.join("check.js");
        std::fs::write(&checker, CHECKER).ok()?;
        Some(Self {
            checker,
            page: release.join("index.html"),
        })
    }
}

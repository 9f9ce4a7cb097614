//! The file that an address belongs to.

use std::path::{Path, PathBuf};

/// An executable mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The address of the file's first byte, mapped or not.
    pub(crate) base: u64,
    pub(crate) path: PathBuf,
}

/// All executable mappings that a process had.
#[derive(Debug, Clone, Default)]
pub(crate) struct Modules(Vec<Module>);

impl Modules {
    /// Adds one, from `START END BASE PATH`.
    pub(crate) fn add(&mut self, text: &str) -> Option<()> {
        let mut words = text.splitn(4, ' ');
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        let (start, end, base) = (number()?, number()?, number()?);
        let path = PathBuf::from(words.next()?);
        self.0.push(Module {
            start,
            end,
            base,
            path,
        });
        Some(())
    }

    fn find(&self, address: u64) -> Option<&Module> {
        self.0
            .iter()
            .find(|module| (module.start..module.end).contains(&address))
    }

    /// Returns whether the address is in this file's code.
    pub(crate) fn is_in(&self, address: u64, path: &Path) -> bool {
        self.find(address).is_some_and(|module| module.path == path)
    }

    /// The file's name.
    pub(crate) fn name(&self, address: u64) -> String {
        self.find(address)
            .map_or_else(|| "no file".to_owned(), Module::name)
    }

    /// The file's name and the distance from its beginning.
    pub(crate) fn place(&self, address: u64) -> String {
        match self.find(address) {
            Some(module) => format!("{}+{:#x}", module.name(), address - module.base),
            None => format!("{address:#x}"),
        }
    }
}

impl Module {
    fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `prog` at 0x1000, `libc.so` at 0x8000.
    pub(crate) fn two() -> Modules {
        let mut modules = Modules::default();
        for text in ["1200 2000 1000 /bin/prog", "8000 9000 8000 /lib/a b/libc.so"] {
            modules.add(text).expect("a mapping");
        }
        modules
    }

    #[test]
    fn places() {
        let modules = two();
        assert_eq!(modules.place(0x1234), "prog+0x234");
        assert_eq!(modules.name(0x8fff), "libc.so");
        assert_eq!(modules.place(0x9000), "0x9000");
        assert_eq!(modules.name(0x1100), "no file");
        assert!(modules.is_in(0x1fff, Path::new("/bin/prog")));
        assert_eq!(Modules::default().add("1 2 x /bin/prog"), None);
    }
}

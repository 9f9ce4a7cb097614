//! Allocators that memtap does not know by itself.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::probe_plan::detect::signature::Signature;
use crate::settings::{SymbolOrOffset, UserSymbol, UserSymbols};

/// Names of functions, beside those of the allocators that are known.
#[derive(Debug, Args)]
#[command(next_help_heading = "Allocators")]
#[expect(clippy::doc_markdown, reason = "help is no Markdown")]
pub(super) struct AllocatorArguments {
    /// Trace the functions of another allocator that are named as those of C after a prefix (`my_`:
    /// my_malloc, my_free …); repeatable
    #[arg(long, value_name = "PREFIX")]
    allocator: Vec<String>,
    /// Trace another function, which has the signature of malloc, calloc, realloc, reallocarray,
    /// posix_memalign, aligned_alloc, free …, or is an operator of C++ (new, delete); by its
    /// symbol, or by its offset in a file (`app:0x12f0=malloc`); repeatable
    #[arg(long, value_name = "[FILE:]SYMBOL=SHAPE", value_parser = symbol)]
    symbol: Vec<UserSymbol>,
}

impl AllocatorArguments {
    pub(super) fn asked(&self) -> Result<UserSymbols> {
        let mut functions = self.symbol.clone();
        for function in &mut functions {
            // A path is one here; a name alone is that of any file.
            if let Some(file) = &mut function.file
                && file.components().count() > 1
            {
                *file = file
                    .canonicalize()
                    .with_context(|| format!("--symbol: failed to find the file {}", file.display()))?;
            }
        }
        Ok(UserSymbols {
            prefixes: self.allocator.clone(),
            functions,
        })
    }
}

/// `take=malloc`, `libpool.so:take=malloc`, `/opt/app:0x12f0=free`
fn symbol(text: &str) -> Result<UserSymbol, String> {
    let shapes = || {
        let names: Vec<&str> = Signature::all().map(Signature::name).collect();
        names.join(", ")
    };
    let Some((place, shape)) = text.rsplit_once('=') else {
        return Err(format!("write NAME=SHAPE; shapes are {}", shapes()));
    };
    let Some(signature) = Signature::named(shape) else {
        return Err(format!("`{shape}` is no shape; there are {}", shapes()));
    };
    let (file, symbol) = match place.rsplit_once(':') {
        Some((file, symbol)) => (Some(PathBuf::from(file)), symbol),
        None => (None, place),
    };
    if symbol.is_empty() || file.as_ref().is_some_and(|file| file.as_os_str().is_empty()) {
        return Err("a name is missing; write [FILE:]SYMBOL=SHAPE".to_owned());
    }
    if symbol.starts_with("_Z") && signature.resizes() {
        return Err(format!(
            "{symbol} is a function of C++, which may throw, and where one resizes a block that cannot be followed; name the \
             function that it calls"
        ));
    }
    let place = match symbol.strip_prefix("0x") {
        None => SymbolOrOffset::Symbol(symbol.to_owned()),
        Some(_) if file.is_none() => {
            return Err(format!(
                "{symbol} is an offset in which file? Write FILE:{symbol}"
            ));
        }
        Some(digits) => SymbolOrOffset::Offset(
            u64::from_str_radix(digits, 16).map_err(|error| format!("{symbol} is no offset: {error}"))?,
        ),
    };
    Ok(UserSymbol {
        file,
        place,
        signature: signature.name(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named() {
        let named = symbol("take=malloc").expect("right");
        assert_eq!((named.file.as_ref(), named.name().as_str()), (None, "take"));
        let named = symbol("libpool.so:give=free").expect("right");
        assert_eq!(named.file, Some(PathBuf::from("libpool.so")));
        let named = symbol("/opt/a:b:0x12F0=new").expect("right");
        assert_eq!(
            (named.file, named.place),
            (Some("/opt/a:b".into()), SymbolOrOffset::Offset(0x12f0))
        );
    }

    #[test]
    fn mistakes_are_told() {
        for (text, word) in [
            ("take", "posix_memalign"),
            ("take=brk", "`brk` is no shape; there are malloc"),
            ("0x12=malloc", "in which file"),
            ("app:0xyz=malloc", "is no offset"),
            ("app:=malloc", "a name is missing"),
            ("_ZN4pool6resizeEPvm=realloc", "may throw"),
        ] {
            let error = symbol(text).expect_err(text);
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}

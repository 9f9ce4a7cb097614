//! Parts of a profile as JSON, where the types' own form is none: paths of any bytes, functions,
//! metrics, and figures that are no numbers.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use tracer_ebpf::Function;

/// A path: text where it is UTF-8, else its bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm {
    Text(String),
    Bytes(Vec<u8>),
}

impl PathForm {
    fn of(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Bytes(path.as_os_str().as_bytes().to_vec()),
        }
    }

    fn path(self) -> PathBuf {
        match self {
            Self::Text(text) => PathBuf::from(text),
            Self::Bytes(bytes) => PathBuf::from(OsString::from_vec(bytes)),
        }
    }
}

/// A path of any bytes.
pub(crate) mod path {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::PathForm;

    /// Writes text, or bytes.
    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        PathForm::of(path).serialize(serializer)
    }

    /// Reads either.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        PathForm::deserialize(deserializer).map(PathForm::path)
    }
}

/// A path of any bytes, or none.
pub(crate) mod optional_path {
    use std::path::PathBuf;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::PathForm;

    /// Writes text, or bytes, or nothing.
    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(crate) fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(PathForm::of).serialize(serializer)
    }

    /// Reads any of the three.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<PathForm>::deserialize(deserializer)?.map(PathForm::path))
    }
}

/// A traced function by its name, or none.
pub(crate) mod optional_function {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use tracer_ebpf::Function;

    /// Writes the name.
    #[expect(
        clippy::ref_option,
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    pub(crate) fn serialize<S: Serializer>(
        function: &Option<Function>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        function.map(Function::name).serialize(serializer)
    }

    /// Reads the name of a function that is known.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Function>, D::Error> {
        let Some(name) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        super::function_named(&name)
            .map(Some)
            .ok_or_else(|| D::Error::custom("a function is not known"))
    }
}

/// Returns the traced function of this name.
#[must_use]
pub(crate) fn function_named(name: &str) -> Option<Function> {
    Function::ALL.iter().copied().find(|it| it.name() == name)
}

/// Reads a float; JSON has `null` for what is no number.
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_any_bytes_come_back() {
        for bytes in [&b"/usr/bin/a"[..], b"/tmp/\xff\xfe", b""] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let json = serde_json::to_string(&PathForm::of(&path)).expect("plain data");
            let read: PathForm = serde_json::from_str(&json).expect("as it was written");
            assert_eq!(read.path(), path, "{json}");
        }
        let json = serde_json::to_string(&PathForm::of(Path::new("/a"))).expect("plain data");
        assert_eq!(json, "\"/a\"");
    }

    #[test]
    fn functions_have_one_name_each() {
        for function in Function::ALL {
            assert_eq!(function_named(function.name()), Some(*function));
        }
        assert_eq!(function_named("mallok"), None);
    }
}

//! Reading the machine's own apt sources, to find the Debian mirror that it uses.
//!
//! Formats: sources.list(5), both the one-line style and the deb822 style.

/// A Debian archive as apt is told to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The archive's address, the first where several are given.
    pub(crate) uri: String,
    /// The value of `Signed-By`, a path or an inline key of several lines, exactly as it was
    /// written.
    pub(crate) signed_by: Option<String>,
}

/// Names by which suites of Debian itself begin: what tells Debian's archive from others on the
/// machine.
const SUITES: &[&str] = &[
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// The Debian archive in a file of one-line style (`*.list`), if it names one.
pub(crate) fn in_one_line_style(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let rest = line
            .strip_prefix("deb")
            .filter(|rest| rest.starts_with([' ', '\t', '[']))?
            .trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="));
        (is_debian(suite) && words.any(|component| component == "main")).then(|| Mirror {
            uri: uri.to_owned(),
            signed_by: signed_by.map(str::to_owned),
        })
    })
}

/// The Debian archive in a file of deb822 style (`*.sources`), if it names one.
pub(crate) fn in_deb822_style(text: &str) -> Option<Mirror> {
    stanzas(text).into_iter().find_map(|stanza| {
        let field = |name: &str| {
            stanza
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        let has = |name: &str, wanted: &str| {
            field(name).is_some_and(|value| value.split_whitespace().any(|word| word == wanted))
        };
        let enabled = !field("Enabled").is_some_and(|value| matches!(value.trim(), "no" | "false" | "0"));
        let debian = field("Suites").is_some_and(|suites| suites.split_whitespace().any(is_debian));
        if !(enabled && debian && has("Types", "deb") && has("Components", "main")) {
            return None;
        }
        let uri = field("URIs")?.split_whitespace().next()?;
        Some(Mirror {
            uri: uri.to_owned(),
            signed_by: field("Signed-By").map(str::to_owned),
        })
    })
}

/// Returns whether a suite is one of Debian's main archive; the security archive holds no
/// backports.
fn is_debian(suite: &str) -> bool {
    let name = suite.split(['-', '/']).next().unwrap_or_default();
    SUITES.contains(&name) && !suite.contains("security") && !suite.ends_with("/updates")
}

type Stanza = Vec<(String, String)>;

fn stanzas(text: &str) -> Vec<Stanza> {
    let mut stanzas = vec![Stanza::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let current = stanzas.last_mut();
        if line.trim().is_empty() {
            stanzas.push(Stanza::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = current.and_then(|stanza| stanza.last_mut()) {
                value.push('\n');
                value.push_str(line);
            }
        } else if let (Some((key, value)), Some(stanza)) = (line.split_once(':'), current) {
            stanza.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    stanzas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(uri: &str, signed_by: Option<&str>) -> Mirror {
        Mirror {
            uri: uri.to_owned(),
            signed_by: signed_by.map(str::to_owned),
        }
    }

    #[test]
    fn one_line_style() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb-src http://mirror.example/debian bookworm main\n\
                    deb http://security.example/debian-security bookworm-security main\n\
                    deb [arch=amd64 signed-by=/keys/debian.gpg] http://mirror.example/debian bookworm main # x\n";
        assert_eq!(
            in_one_line_style(text),
            Some(mirror("http://mirror.example/debian", Some("/keys/debian.gpg")))
        );
        assert_eq!(
            in_one_line_style("deb http://mirror.example/debian stable contrib main\n"),
            Some(mirror("http://mirror.example/debian", None))
        );
        assert_eq!(
            in_one_line_style("deb http://other.example/ubuntu noble main\n"),
            None
        );
        assert_eq!(
            in_one_line_style("deb http://mirror.example/debian bookworm contrib\n"),
            None
        );
        assert_eq!(
            in_one_line_style("deb http://flat.example ./\ndebug\ndeb\n"),
            None
        );
    }

    #[test]
    fn deb822_style() {
        let text = "Types: deb\nURIs: http://security.example/debian-security\n\
                    Suites: bookworm-security\nComponents: main\n\n\
                    Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian http://b.example\n\
                    Suites: bookworm bookworm-updates\nComponents: main contrib\n\
                    Signed-By: /keys/debian.gpg\n";
        assert_eq!(
            in_deb822_style(text),
            Some(mirror("http://mirror.example/debian", Some("/keys/debian.gpg")))
        );
    }

    #[test]
    fn deb822_with_an_inline_key() {
        let text = "types: deb\nuris: http://mirror.example/debian\nsuites: sid\ncomponents: main\n\
                    signed-by:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n\n";
        assert_eq!(
            in_deb822_style(text),
            Some(mirror(
                "http://mirror.example/debian",
                Some("\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc")
            ))
        );
    }

    #[test]
    fn deb822_that_is_disabled_or_source_only() {
        let stanza = "URIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\n";
        assert_eq!(
            in_deb822_style(&format!("Types: deb\nEnabled: no\n{stanza}")),
            None
        );
        assert_eq!(in_deb822_style(&format!("Types: deb-src\n{stanza}")), None);
        assert!(in_deb822_style(&format!("Types: deb\nEnabled: yes\n{stanza}")).is_some());
    }
}

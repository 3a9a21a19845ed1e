//! The INI dialect of the original's configuration files (client spec, section 3.1; server spec,
//! section 12): sections, `key: value` or `key = value`, continuation by indentation, full-line
//! comments, `[DEFAULT]`, and `%(name)s` where the reader asks for it.

use std::collections::BTreeMap;

/// Largest configuration file that is read, in bytes.
pub const MAX_LEN: usize = 1 << 20;

/// The section whose keys are in every section.
const DEFAULT: &str = "DEFAULT";

/// How deep `%(name)s` may refer to values that refer on.
const MAX_DEPTH: usize = 10;

/// How key names are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCase {
    /// Lower-cased while reading: the client's files.
    Fold,
    /// Kept as written: the server's file.
    Keep,
}

/// One or several files, key by key; values are as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ini {
    case: KeyCase,
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

/// Why a file or a value in it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum IniError {
    #[error("{0} bytes are too many for a configuration file")]
    TooLong(usize),
    #[error("it is not UTF-8")]
    Encoding,
    #[error("line {line} stands before any `[section]`")]
    NoSection { line: usize },
    #[error("line {line} has neither `=` nor `:`")]
    NoDelimiter { line: usize },
    #[error("line {line} has no name before the `=` or `:`")]
    NoName { line: usize },
    #[error("line {line}: `[{section}]` is there twice")]
    DuplicateSection { line: usize, section: String },
    #[error("line {line}: `{key}` is there twice in `[{section}]`")]
    DuplicateKey {
        line: usize,
        section: String,
        key: String,
    },
    #[error("`{key}` of `[{section}]`: a `%` must be written `%%` or begin a `%(name)s`")]
    Percent { section: String, key: String },
    #[error("`{key}` of `[{section}]` refers to `{name}`, which does not exist")]
    NoSuchReference {
        section: String,
        key: String,
        name: String,
    },
    #[error("`{key}` of `[{section}]` refers to itself, or through too many others")]
    TooDeep { section: String, key: String },
}

impl Ini {
    /// Without any section.
    pub fn empty(case: KeyCase) -> Self {
        Self {
            case,
            sections: BTreeMap::new(),
        }
    }

    /// Reads one file.
    pub fn parse(bytes: &[u8], case: KeyCase) -> Result<Self, IniError> {
        if bytes.len() > MAX_LEN {
            return Err(IniError::TooLong(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| IniError::Encoding)?;
        let mut reader = Reader {
            ini: Self::empty(case),
            section: None,
            key: None,
            indent: 0,
        };
        for (line, text) in (1..).zip(text.lines()) {
            reader.line(line, text)?;
        }
        Ok(reader.finish())
    }

    /// Takes over every key of `later`, which overrides.
    pub fn merge(&mut self, later: Self) {
        for (section, keys) in later.sections {
            self.sections.entry(section).or_default().extend(keys);
        }
    }

    /// The names of the sections, `[DEFAULT]` left out.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.sections
            .keys()
            .map(String::as_str)
            .filter(|name| *name != DEFAULT)
    }

    /// The names of a section's own keys.
    pub fn keys(&self, section: &str) -> impl Iterator<Item = &str> {
        self.sections
            .get(section)
            .into_iter()
            .flat_map(|keys| keys.keys().map(String::as_str))
    }

    /// A value as written, from the section or from `[DEFAULT]`.
    pub fn raw(&self, section: &str, key: &str) -> Option<&str> {
        let key = self.fold(key);
        [section, DEFAULT]
            .iter()
            .find_map(|name| self.sections.get(*name)?.get(&key))
            .map(String::as_str)
    }

    /// A value with its references replaced.
    pub fn get(&self, section: &str, key: &str) -> Result<Option<String>, IniError> {
        self.raw(section, key)
            .map(|raw| self.interpolate(section, key, raw, 0))
            .transpose()
    }

    fn fold(&self, key: &str) -> String {
        match self.case {
            KeyCase::Fold => key.to_lowercase(),
            KeyCase::Keep => key.to_owned(),
        }
    }

    fn interpolate(
        &self,
        section: &str,
        key: &str,
        raw: &str,
        depth: usize,
    ) -> Result<String, IniError> {
        let place = || (section.to_owned(), key.to_owned());
        let percent = || {
            let (section, key) = place();
            IniError::Percent { section, key }
        };
        if depth == MAX_DEPTH {
            let (section, key) = place();
            return Err(IniError::TooDeep { section, key });
        }
        let mut out = String::with_capacity(raw.len());
        let mut rest = raw;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                out.push('%');
                rest = after;
            } else {
                let (name, after) = rest
                    .strip_prefix('(')
                    .and_then(|r| r.split_once(")s"))
                    .ok_or_else(percent)?;
                let value = self.raw(section, name).ok_or_else(|| {
                    let (section, key) = place();
                    IniError::NoSuchReference {
                        section,
                        key,
                        name: name.to_owned(),
                    }
                })?;
                out.push_str(&self.interpolate(section, key, value, depth + 1)?);
                // Ten levels of ten references each would be a lot of text.
                if out.len() > MAX_LEN {
                    let (section, key) = place();
                    return Err(IniError::TooDeep { section, key });
                }
                rest = after;
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Where the reader is: the last key may go on in a line that is indented further.
struct Reader {
    ini: Ini,
    section: Option<String>,
    key: Option<String>,
    indent: usize,
}

impl Reader {
    fn line(&mut self, line: usize, text: &str) -> Result<(), IniError> {
        let content = text.trim();
        if content.starts_with(['#', ';']) {
            return Ok(());
        }
        if content.is_empty() {
            // Inside a value an empty line counts; `finish` takes trailing ones off again.
            if let Some(value) = self.open_value() {
                value.push('\n');
            }
            return Ok(());
        }
        let indent = text.len() - text.trim_start().len();
        if indent > self.indent
            && let Some(value) = self.open_value()
        {
            value.push('\n');
            value.push_str(content);
            return Ok(());
        }
        self.indent = indent;
        if let Some(name) = content
            .strip_prefix('[')
            .and_then(|rest| rest.rsplit_once(']'))
        {
            return self.header(line, name.0);
        }
        let section = self.section.clone().ok_or(IniError::NoSection { line })?;
        let at = content
            .find(['=', ':'])
            .ok_or(IniError::NoDelimiter { line })?;
        let key = self.ini.fold(content[..at].trim_end());
        if key.is_empty() {
            return Err(IniError::NoName { line });
        }
        let value = content[at + 1..].trim().to_owned();
        let keys = self.ini.sections.entry(section.clone()).or_default();
        if keys.insert(key.clone(), value).is_some() {
            return Err(IniError::DuplicateKey { line, section, key });
        }
        self.key = Some(key);
        Ok(())
    }

    fn header(&mut self, line: usize, name: &str) -> Result<(), IniError> {
        if self.ini.sections.contains_key(name) && name != DEFAULT {
            return Err(IniError::DuplicateSection {
                line,
                section: name.to_owned(),
            });
        }
        self.ini.sections.entry(name.to_owned()).or_default();
        self.section = Some(name.to_owned());
        self.key = None;
        Ok(())
    }

    fn open_value(&mut self) -> Option<&mut String> {
        let (section, key) = (self.section.as_ref()?, self.key.as_ref()?);
        self.ini.sections.get_mut(section)?.get_mut(key)
    }

    fn finish(mut self) -> Ini {
        for value in self
            .ini
            .sections
            .values_mut()
            .flat_map(BTreeMap::values_mut)
        {
            value.truncate(value.trim_end().len());
        }
        self.ini
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fold(text: &str) -> Ini {
        Ini::parse(text.as_bytes(), KeyCase::Fold).unwrap()
    }

    fn get(ini: &Ini, section: &str, key: &str) -> String {
        ini.get(section, key).unwrap().unwrap()
    }

    #[test]
    fn reads_the_classic_dialect() {
        let ini = fold(
            "; comment\n[DEFAULT]\nhost = x\n[service]\nBase: %(HOST)s.example.net # kept\n\
             Long = one\n  two\n\n  # not part of it\n  three\n\nempty =\npct = 100%%\n",
        );
        assert_eq!(get(&ini, "service", "base"), "x.example.net # kept");
        assert_eq!(get(&ini, "service", "LONG"), "one\ntwo\n\nthree");
        assert_eq!(get(&ini, "service", "empty"), "");
        assert_eq!(get(&ini, "service", "pct"), "100%");
        assert_eq!(get(&ini, "other", "host"), "x");
        assert_eq!(ini.get("service", "none"), Ok(None));
        assert_eq!(ini.sections().collect::<Vec<_>>(), ["service"]);
    }

    #[test]
    fn the_servers_dialect_keeps_case_and_percent() {
        let ini = Ini::parse(b"[global]\nPath = a%b\n", KeyCase::Keep).unwrap();
        assert_eq!(ini.raw("global", "Path"), Some("a%b"));
        assert_eq!(ini.raw("global", "path"), None);
    }

    #[test]
    fn later_files_override_key_by_key() {
        let mut ini = fold("[a]\nx = 1\ny = 1\n");
        ini.merge(fold("[a]\ny = 2\n[b]\nz = 3\n"));
        assert_eq!(
            (
                get(&ini, "a", "x"),
                get(&ini, "a", "y"),
                get(&ini, "b", "z")
            ),
            ("1".into(), "2".into(), "3".into())
        );
    }

    #[test]
    fn malformed_files_are_told_by_line() {
        let parse = |text: &str| Ini::parse(text.as_bytes(), KeyCase::Fold).unwrap_err();
        assert_eq!(parse("x = 1"), IniError::NoSection { line: 1 });
        assert_eq!(parse("[a]\nx"), IniError::NoDelimiter { line: 2 });
        assert_eq!(parse("[a]\n= 1"), IniError::NoName { line: 2 });
        assert!(matches!(
            parse("[a]\n[a]"),
            IniError::DuplicateSection { line: 2, .. }
        ));
        assert!(matches!(
            parse("[a]\nx=1\nX=2"),
            IniError::DuplicateKey { line: 3, .. }
        ));
        assert_eq!(Ini::parse(b"\xff", KeyCase::Fold), Err(IniError::Encoding));
    }

    #[test]
    fn broken_references_are_told_by_key() {
        let ini = fold("[a]\nlone = 5%\nopen = %(x\nnone = %(nope)s\nself = %(self)s%(self)s\n");
        assert!(matches!(
            ini.get("a", "lone"),
            Err(IniError::Percent { .. })
        ));
        assert!(matches!(
            ini.get("a", "open"),
            Err(IniError::Percent { .. })
        ));
        assert!(matches!(
            ini.get("a", "none"),
            Err(IniError::NoSuchReference { .. })
        ));
        assert!(matches!(
            ini.get("a", "self"),
            Err(IniError::TooDeep { .. })
        ));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([\\[\\]=:%()s#; \n\ta-c]|\\PC){0,60}") {
            if let Ok(ini) = Ini::parse(text.as_bytes(), KeyCase::Fold) {
                for section in ini.sections() {
                    for key in ini.keys(section) {
                        let _ = ini.get(section, key);
                    }
                }
            }
        }
    }
}

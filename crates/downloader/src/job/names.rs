//! What a file is called and where it goes (specification, section 10).
//!
//! In: a URL, an owner, names that are taken. Out: paths. Whether a name is taken is the caller's to
//! find out.

use camino::{Utf8Path, Utf8PathBuf};
use percent_encoding::percent_decode_str;
use system_image_bus::download::Family;

/// What is appended to a file's name while it is under way.
pub const SUFFIX: &str = ".tmp";

/// Longest name, in bytes: file systems take 255, and there must be room for ` (1)`, for [`SUFFIX`]
/// and for what is written beside it.
const MAX_LEN: usize = 220;

/// The program's name in the directories of a family.
pub const fn program(family: Family) -> &'static str {
    match family {
        Family::Canonical => "ubuntu-download-manager",
        Family::Lomiri => "lomiri-download-manager",
    }
}

/// Where a process keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// Root's: the system's temporary directory, for all.
    System {
        /// That directory.
        temporary: Utf8PathBuf,
    },
    /// A user's.
    User {
        /// `$XDG_DATA_HOME`.
        data: Utf8PathBuf,
        /// `$HOME`.
        home: Utf8PathBuf,
    },
}

impl Home {
    /// The directory of downloads for which no place is given.
    pub fn directory(&self, family: Family, confined: Option<&str>) -> Utf8PathBuf {
        let (data, home) = match self {
            Self::System { temporary } => return temporary.clone(),
            Self::User { data, home } => (data, home),
        };
        let program = data.join(program(family));
        let Some(label) = confined else {
            return program.join("Downloads");
        };
        let snap = label.strip_prefix("snap.");
        if let Some(snap) = snap.and_then(|rest| first(rest, '.')) {
            return home.join("snap").join(snap).join("common/Downloads");
        }
        let package = first(label, '_').unwrap_or("unknown");
        program.join(package).join("Downloads")
    }
}

impl Home {
    /// Whether a directory is one that a confined application may have files put in: below its own in
    /// the usual places, links resolved.
    pub fn is_of(&self, label: &str, directory: &Utf8Path) -> bool {
        let (Self::User { data, home }, Ok(real)) = (self, directory.canonicalize_utf8()) else {
            return false;
        };
        let package = first(label, '_').unwrap_or("unknown");
        let own = [
            data.join(package),
            home.join(".cache").join(package),
            home.join(".config").join(package),
            self.directory(Family::Canonical, Some(label)),
            self.directory(Family::Lomiri, Some(label)),
        ];
        let mut own = own.iter().filter_map(|one| one.canonicalize_utf8().ok());
        own.any(|one| real.starts_with(one))
    }
}

/// The part before a separator, if it can be a directory's name.
fn first(text: &str, separator: char) -> Option<&str> {
    let part = text.split(separator).next()?;
    is_name(part).then_some(part)
}

/// Whether a file may be called that.
fn is_name(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && !text.contains(['/', '\0'])
}

/// The last element of a URL's path, decoded; none where that is no name.
pub fn from_url(path: &str) -> Option<String> {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    let name = decoded.rsplit('/').next()?;
    is_name(name).then(|| shortened(name))
}

/// The name that a server suggests, if it is one.
pub fn suggested(name: &str) -> Option<String> {
    is_name(name).then(|| shortened(name))
}

/// A name that is not too long, by its beginning.
fn shortened(name: &str) -> String {
    let mut end = name.len().min(MAX_LEN);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].to_owned()
}

/// The first of `x.tar.gz`, `x (1).tar.gz`, `x (2).tar.gz`, … that is free.
pub fn free(wanted: &Utf8Path, mut is_taken: impl FnMut(&Utf8Path) -> bool) -> Utf8PathBuf {
    if !is_taken(wanted) {
        return wanted.to_owned();
    }
    let name = wanted.file_name().unwrap_or_default();
    // A name that begins with a dot is not all suffix.
    let dot = name.char_indices().skip(1).find(|(_, c)| *c == '.');
    let (stem, suffix) = name.split_at(dot.map_or(name.len(), |(place, _)| place));
    let mut numbered = (1_u64..).map(|n| wanted.with_file_name(format!("{stem} ({n}){suffix}")));
    numbered
        .find(|path| !is_taken(path))
        .expect("there are more numbers than files")
}

/// A file's name while it is under way.
pub fn partial(path: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}{SUFFIX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_the_last_element_of_the_decoded_path() {
        for (path, want) in [
            ("/a/b.bin", Some("b.bin")),
            ("/a%20b%2Fc.bin", Some("c.bin")),
            ("/a%20b", Some("a b")),
            ("/", None),
            ("", None),
            ("/a/", None),
            ("/..", None),
            ("/%2e%2e", None),
            ("/a%00b", None),
        ] {
            assert_eq!(from_url(path).as_deref(), want, "{path}");
        }
        let long = from_url(&format!("/{}", "ä".repeat(200))).unwrap();
        assert_eq!(long, "ä".repeat(110));
    }

    #[test]
    fn a_taken_name_is_numbered_before_its_whole_suffix() {
        let taken = [
            "/d.x/col.tar.gz",
            "/d.x/col (1).tar.gz",
            "/d.x/.a",
            "/d.x/n",
        ];
        let is_taken = |path: &Utf8Path| taken.contains(&path.as_str());
        for (wanted, want) in [
            ("/d.x/col.tar.gz", "/d.x/col (2).tar.gz"),
            ("/d.x/n", "/d.x/n (1)"),
            ("/d.x/.a", "/d.x/.a (1)"),
            ("/d.x/free", "/d.x/free"),
        ] {
            assert_eq!(free(wanted.into(), is_taken), want);
        }
    }

    #[test]
    fn an_application_may_choose_directories_of_its_own() {
        let place = tempfile::tempdir().unwrap();
        let home = Utf8Path::from_path(place.path()).unwrap();
        let user = Home::User {
            data: home.join(".local/share"),
            home: home.to_owned(),
        };
        let (own, other) = (home.join(".cache/com.app/x"), home.join(".cache/com.other"));
        for directory in [&own, &other] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::os::unix::fs::symlink(&other, own.join("link")).unwrap();
        for (directory, want) in [
            (own.clone(), true),
            (other, false),
            (own.join("link"), false),
            (home.join(".cache/com.app/../com.other"), false),
            (home.join("nowhere"), false),
        ] {
            assert_eq!(user.is_of("com.app_app_1", &directory), want, "{directory}");
        }
    }

    #[test]
    fn each_owner_has_its_directory() {
        let system = Home::System {
            temporary: "/tmp".into(),
        };
        let user = Home::User {
            data: "/h/.local/share".into(),
            home: "/h".into(),
        };
        let lomiri = "/h/.local/share/lomiri-download-manager";
        for (home, family, confined, want) in [
            (&system, Family::Lomiri, None, "/tmp".to_owned()),
            (&user, Family::Lomiri, None, format!("{lomiri}/Downloads")),
            (
                &user,
                Family::Canonical,
                None,
                "/h/.local/share/ubuntu-download-manager/Downloads".to_owned(),
            ),
            (
                &user,
                Family::Lomiri,
                Some("com.example.app_app_1.0"),
                format!("{lomiri}/com.example.app/Downloads"),
            ),
            (
                &user,
                Family::Lomiri,
                Some("snap.foo.bar"),
                "/h/snap/foo/common/Downloads".to_owned(),
            ),
            (
                &user,
                Family::Lomiri,
                Some("/usr/bin/foo"),
                format!("{lomiri}/unknown/Downloads"),
            ),
            (
                &user,
                Family::Lomiri,
                Some("snap..x"),
                format!("{lomiri}/snap..x/Downloads"),
            ),
        ] {
            assert_eq!(home.directory(family, confined), want);
        }
    }
}

//! The command file, by which a client tells the upgrader what to do (upgrader spec, sections 3
//! to 5; client spec, section 14).
//!
//! In: the bytes of any known writer: blank and unknown lines, comments, CR LF and a missing last
//! line end included. Out: typed commands in order, and the skipped lines for the log. What a
//! known command lacks or may not have is an error, because skipping it would apply half an image.

use std::fmt;

use crate::name::{FileName, NameError};

/// Largest command file that is read, in bytes: some 10,000 lines.
pub const MAX_LEN: usize = 1 << 20;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Make a new empty system: the run is a full installation.
    FormatSystem,
    /// Wipe the user's data.
    FormatData,
    /// Check a keyring and use it from now on.
    LoadKeyring(SignedFile),
    /// Mount the system to be changed.
    MountSystem,
    /// Unmount it.
    UnmountSystem,
    /// Verify and apply a tarball.
    Update(SignedFile),
    /// Switch a setting on.
    Enable(Setting),
    /// Switch a setting off.
    Disable(SettingName),
}

/// A file of the drop box with its detached signature, which is always named after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignedFile {
    file: FileName,
    signature: FileName,
}

impl SignedFile {
    /// The file together with `<file>.asc`.
    pub fn of(file: FileName) -> Result<Self, NameError> {
        let signature = format!("{file}.asc").parse()?;
        Ok(Self { file, signature })
    }

    /// The signed file.
    pub fn file(&self) -> &FileName {
        &self.file
    }

    /// Its signature.
    pub fn signature(&self) -> &FileName {
        &self.signature
    }
}

/// What can be enabled, with what it needs (upgrader spec, section 4).
#[derive(Clone, PartialEq, Eq)]
pub enum Setting {
    /// adb over USB.
    DeveloperMode,
    /// File transfer over USB.
    Mtp,
    /// The user's first password.
    DefaultPassword(String),
    /// adb while the screen is locked.
    AdbOnlock,
    /// adb keys from a file of the drop box.
    AdbKeys(FileName),
    /// The mark of a wipe in production.
    FactoryWipe,
}

/// What can be disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are those of `Setting`")]
pub enum SettingName {
    DeveloperMode,
    Mtp,
    DefaultPassword,
    AdbOnlock,
    AdbKeys,
    FactoryWipe,
}

impl SettingName {
    const ALL: [Self; 6] = [
        Self::DeveloperMode,
        Self::Mtp,
        Self::DefaultPassword,
        Self::AdbOnlock,
        Self::AdbKeys,
        Self::FactoryWipe,
    ];

    /// The word in the command file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeveloperMode => "developer_mode",
            Self::Mtp => "mtp",
            Self::DefaultPassword => "default_password",
            Self::AdbOnlock => "adb_onlock",
            Self::AdbKeys => "adb_keys",
            Self::FactoryWipe => "factory_wipe",
        }
    }

    fn find(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == word)
    }
}

impl Setting {
    /// Which setting it is.
    pub const fn name(&self) -> SettingName {
        match self {
            Self::DeveloperMode => SettingName::DeveloperMode,
            Self::Mtp => SettingName::Mtp,
            Self::DefaultPassword(_) => SettingName::DefaultPassword,
            Self::AdbOnlock => SettingName::AdbOnlock,
            Self::AdbKeys(_) => SettingName::AdbKeys,
            Self::FactoryWipe => SettingName::FactoryWipe,
        }
    }
}

impl fmt::Debug for Setting {
    /// Like a derived one, but a password never reaches a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdbKeys(file) => f.debug_tuple("AdbKeys").field(file).finish(),
            other => fmt::Debug::fmt(&other.name(), f),
        }
    }
}

impl fmt::Display for Command {
    /// The command's line, without line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FormatSystem => f.write_str("format system"),
            Self::FormatData => f.write_str("format data"),
            Self::LoadKeyring(signed) => {
                write!(f, "load_keyring {} {}", signed.file, signed.signature)
            }
            Self::MountSystem => f.write_str("mount system"),
            Self::UnmountSystem => f.write_str("unmount system"),
            Self::Update(signed) => write!(f, "update {} {}", signed.file, signed.signature),
            Self::Enable(setting) => {
                write!(f, "enable {}", setting.name().as_str())?;
                match setting {
                    Setting::DefaultPassword(password) => write!(f, " {password}"),
                    Setting::AdbKeys(file) => write!(f, " {file}"),
                    _ => Ok(()),
                }
            }
            Self::Disable(name) => write!(f, "disable {}", name.as_str()),
        }
    }
}

/// A command file, line by line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandFile {
    lines: Vec<Line>,
}

/// One line of a command file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A command to carry out.
    Command(Command),
    /// Nothing but blanks.
    Blank,
    /// A comment.
    Comment,
    /// A command or target that no upgrader knows, to be told in the log and skipped.
    Unknown(String),
}

/// A line that must not be skipped and cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// More than [`MAX_LEN`] bytes.
    #[error("a command file of {0} bytes is no command file")]
    TooLong(usize),
    /// The line is not UTF-8.
    #[error("line {line} is not UTF-8")]
    Encoding {
        /// Counted from 1.
        line: usize,
    },
    /// The command needs more words.
    #[error("line {line}: `{command}` needs {needs}")]
    MissingWord {
        /// Counted from 1.
        line: usize,
        /// The first words of the line.
        command: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// A word is no plain file name.
    #[error("line {line}")]
    Name {
        /// Counted from 1.
        line: usize,
        /// Which name and why.
        source: NameError,
    },
    /// The signature does not belong to the file: what is verified must be what is applied.
    #[error("line {line}: the signature of `{file}` must be named `{file}.asc`, not `{signature}`")]
    Unrelated {
        /// Counted from 1.
        line: usize,
        /// The file named first.
        file: FileName,
        /// The signature named second.
        signature: FileName,
    },
}

impl CommandFile {
    /// Reads a command file.
    pub fn parse(bytes: &[u8]) -> Result<Self, CommandError> {
        if bytes.len() > MAX_LEN {
            return Err(CommandError::TooLong(bytes.len()));
        }
        let mut lines = (1..)
            .zip(bytes.split(|byte| *byte == b'\n'))
            .map(|(line, bytes)| {
                let text =
                    std::str::from_utf8(bytes).map_err(|_| CommandError::Encoding { line })?;
                parse_line(line, text)
            })
            .collect::<Result<Vec<_>, _>>()?;
        // What follows the last line end is a line only if it holds something.
        if lines.last() == Some(&Line::Blank) {
            lines.pop();
        }
        Ok(Self { lines })
    }

    /// The bytes to write; each line has its end.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = String::new();
        for line in &self.lines {
            match line {
                Line::Command(command) => text.push_str(&command.to_string()),
                Line::Blank => {}
                Line::Comment => text.push('#'),
                Line::Unknown(words) => text.push_str(words),
            }
            text.push('\n');
        }
        text.into_bytes()
    }

    /// All lines in order, the first being line 1.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The commands in order.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.lines.iter().filter_map(|line| match line {
            Line::Command(command) => Some(command),
            _ => None,
        })
    }
}

impl FromIterator<Command> for CommandFile {
    fn from_iter<I: IntoIterator<Item = Command>>(commands: I) -> Self {
        Self {
            lines: commands.into_iter().map(Line::Command).collect(),
        }
    }
}

fn parse_line(line: usize, text: &str) -> Result<Line, CommandError> {
    let mut words = text.split_ascii_whitespace();
    let Some(first) = words.next() else {
        return Ok(Line::Blank);
    };
    let unknown = || Ok(Line::Unknown(text.trim().to_owned()));
    let command = match (first, words.next()) {
        // Glued to a word it is a comment too, as it is in every other file of its kind.
        (word, _) if word.starts_with('#') => return Ok(Line::Comment),
        ("format", Some("system")) => Command::FormatSystem,
        ("format", Some("data")) => Command::FormatData,
        ("mount", Some("system")) => Command::MountSystem,
        ("unmount", Some("system")) => Command::UnmountSystem,
        ("load_keyring", file) => {
            Command::LoadKeyring(signed(line, "load_keyring", file, words.next())?)
        }
        ("update", file) => Command::Update(signed(line, "update", file, words.next())?),
        ("enable", Some(target)) => match SettingName::find(target) {
            Some(name) => Command::Enable(setting(line, name, words.next())?),
            None => return unknown(),
        },
        ("disable", Some(target)) => match SettingName::find(target) {
            Some(name) => Command::Disable(name),
            None => return unknown(),
        },
        _ => return unknown(),
    };
    Ok(Line::Command(command))
}

fn signed(
    line: usize,
    command: &'static str,
    file: Option<&str>,
    signature: Option<&str>,
) -> Result<SignedFile, CommandError> {
    let (Some(file), Some(signature)) = (file, signature) else {
        let needs = "a file and its signature";
        return Err(CommandError::MissingWord {
            line,
            command,
            needs,
        });
    };
    let name = |text: &str| {
        text.parse::<FileName>()
            .map_err(|source| CommandError::Name { line, source })
    };
    let (file, signature) = (name(file)?, name(signature)?);
    if signature.as_str().strip_suffix(".asc") != Some(file.as_str()) {
        return Err(CommandError::Unrelated {
            line,
            file,
            signature,
        });
    }
    Ok(SignedFile { file, signature })
}

fn setting(line: usize, name: SettingName, word: Option<&str>) -> Result<Setting, CommandError> {
    Ok(match name {
        SettingName::DeveloperMode => Setting::DeveloperMode,
        SettingName::Mtp => Setting::Mtp,
        SettingName::AdbOnlock => Setting::AdbOnlock,
        SettingName::FactoryWipe => Setting::FactoryWipe,
        SettingName::DefaultPassword => {
            let command = "enable default_password";
            let needs = "a password";
            let password = word.ok_or(CommandError::MissingWord {
                line,
                command,
                needs,
            })?;
            Setting::DefaultPassword(password.to_owned())
        }
        SettingName::AdbKeys => {
            let command = "enable adb_keys";
            let path = word.ok_or(CommandError::MissingWord {
                line,
                command,
                needs: "a file",
            })?;
            // Only the last component of a path counts here, in every upgrader.
            let file = path.rsplit('/').next().unwrap_or(path);
            Setting::AdbKeys(
                file.parse()
                    .map_err(|source| CommandError::Name { line, source })?,
            )
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Vec<String> {
        CommandFile::parse(text.as_bytes())
            .unwrap()
            .commands()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn the_clients_file_survives_byte_for_byte() {
        let text = "load_keyring image-master.tar.xz image-master.tar.xz.asc\n\
                    load_keyring image-signing.tar.xz image-signing.tar.xz.asc\n\
                    format system\n\
                    mount system\n\
                    update full3-b.tar.xz full3-b.tar.xz.asc\n\
                    update full3-a.tar.xz full3-a.tar.xz.asc\n\
                    unmount system\n";
        let file = CommandFile::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(file.to_bytes()).unwrap(), text);
        assert_eq!(file.commands().count(), 7);
    }

    #[test]
    fn files_of_every_known_writer_are_read() {
        // Blanks, CR LF, an empty line, a comment, an unknown command, no last line end.
        let text = "# made on a PC\r\n format \t system  now\r\n\r\ninstaller_check\r\n\
                    enable developer_mode\r\nenable adb_keys /tmp/adbkey.pub\n\
                    enable default_password 0000\ndisable mtp\nformat cache\nenable nfc\nunmount system";
        assert_eq!(
            parse(text),
            [
                "format system",
                "enable developer_mode",
                "enable adb_keys adbkey.pub",
                "enable default_password 0000",
                "disable mtp",
                "unmount system",
            ]
        );
        let file = CommandFile::parse(text.as_bytes()).unwrap();
        let unknown: Vec<_> = file
            .lines()
            .iter()
            .filter(|line| matches!(line, Line::Unknown(_)))
            .collect();
        assert_eq!(unknown.len(), 3, "{unknown:?}");
    }

    #[test]
    fn every_command_survives() {
        let signed = SignedFile::of("a.tar.xz".parse().unwrap()).unwrap();
        let mut commands = vec![
            Command::FormatSystem,
            Command::FormatData,
            Command::LoadKeyring(signed.clone()),
            Command::MountSystem,
            Command::Update(signed),
            Command::UnmountSystem,
            Command::Enable(Setting::DeveloperMode),
            Command::Enable(Setting::Mtp),
            Command::Enable(Setting::DefaultPassword("x".into())),
            Command::Enable(Setting::AdbOnlock),
            Command::Enable(Setting::AdbKeys("k.pub".parse().unwrap())),
            Command::Enable(Setting::FactoryWipe),
        ];
        commands.extend(SettingName::ALL.map(Command::Disable));
        let file: CommandFile = commands.into_iter().collect();
        assert_eq!(CommandFile::parse(&file.to_bytes()).unwrap(), file);
    }

    #[test]
    fn what_would_apply_half_an_image_is_an_error() {
        for text in [
            "update a.tar.xz",
            "update",
            "load_keyring x",
            "update ../a.tar.xz ../a.tar.xz.asc",
            "update a\\b a\\b.asc",
            "update a.tar.xz b.tar.xz.asc",
            "update a.tar.xz a.tar.xz",
            "enable default_password",
            "enable adb_keys ..",
        ] {
            assert!(CommandFile::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!(
            CommandFile::parse(b"ok\n\xff"),
            Err(CommandError::Encoding { line: 2 })
        );
        assert!(CommandFile::parse(&vec![b' '; MAX_LEN + 1]).is_err());
    }

    #[test]
    fn a_password_does_not_show_in_a_log() {
        let file = CommandFile::parse(b"enable default_password secret\n").unwrap();
        assert!(!format!("{file:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_read_survives(
            bytes in "((update|load_keyring|enable|format|x|#)[ \t\r]{0,2}(system|a b|a a\\.asc|mtp)?\n?){0,8}"
        ) {
            if let Ok(file) = CommandFile::parse(bytes.as_bytes()) {
                let again = CommandFile::parse(&file.to_bytes()).unwrap();
                prop_assert!(again.commands().eq(file.commands()));
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = CommandFile::parse(&bytes);
        }
    }
}

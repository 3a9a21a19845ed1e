//! What a command file asks for, as steps that can be taken in order.
//!
//! In: a parsed command file. Out: a [`Plan`], or why nothing of it will be done. Decided before
//! anything is touched, so an order that makes no sense, or a command that this build cannot
//! carry out, leaves the device as it was.

use system_image_formats::command::{Command, CommandFile, Line, SignedFile};

/// Steps in the order of the command file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Keyrings to load, before all else.
    pub keyrings: Vec<SignedFile>,
    /// What changes the system.
    pub steps: Vec<Step>,
    /// Lines that were skipped, for the log.
    pub skipped: Vec<String>,
}

/// One step that changes the system or makes it accessible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the system empty.
    Format,
    /// Make it accessible.
    Mount,
    /// Apply a tarball.
    Update(SignedFile),
    /// Put it away.
    Unmount,
}

/// Why a command file is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A command of the original that this build lacks.
    #[error("`{0}` is not supported by this build yet")]
    Unsupported(String),
    /// `update` where no system is mounted: the original would fill the cache with it.
    #[error("`update {0}` stands where the system is not mounted")]
    NotMounted(String),
    /// `format system` or a second `mount system` while it is mounted.
    #[error("`{0}` stands where the system is mounted")]
    Mounted(&'static str),
    /// `format system` without an update after it.
    #[error("the system would be formatted and nothing installed")]
    Empty,
    /// `format system` after an update.
    #[error("`format system` stands after an update, which it would undo")]
    Undone,
    /// No command at all.
    #[error("the command file has no command")]
    NoCommand,
}

impl PlanError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unsupported(_) => Some("take the line out of the command file"),
            Self::NotMounted(_) => Some("`mount system` must come first"),
            _ => None,
        }
    }
}

impl Plan {
    /// Puts the commands of a file in order.
    pub fn of(file: &CommandFile) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        let mut mounted = false;
        if file.commands().next().is_none() {
            return Err(PlanError::NoCommand);
        }
        for line in file.lines() {
            let command = match line {
                Line::Command(command) => command,
                Line::Unknown(words) => {
                    plan.skipped.push(words.clone());
                    continue;
                }
                Line::Blank | Line::Comment => continue,
            };
            match command {
                Command::LoadKeyring(signed) => plan.keyrings.push(signed.clone()),
                Command::FormatSystem if mounted => {
                    return Err(PlanError::Mounted("format system"));
                }
                Command::FormatSystem if plan.updates().next().is_some() => {
                    return Err(PlanError::Undone);
                }
                Command::FormatSystem => plan.steps.push(Step::Format),
                Command::MountSystem if mounted => {
                    return Err(PlanError::Mounted("mount system"));
                }
                Command::MountSystem => {
                    mounted = true;
                    plan.steps.push(Step::Mount);
                }
                Command::Update(signed) if !mounted => {
                    return Err(PlanError::NotMounted(signed.file().to_string()));
                }
                Command::Update(signed) => plan.steps.push(Step::Update(signed.clone())),
                // Some flashers end every file with it, also one that mounted nothing.
                Command::UnmountSystem if !mounted => plan.skipped.push(command.to_string()),
                Command::UnmountSystem => {
                    mounted = false;
                    plan.steps.push(Step::Unmount);
                }
                Command::FormatData => return Err(PlanError::Unsupported(command.to_string())),
                // Not the whole line: it may hold a password.
                Command::Enable(setting) => {
                    let name = setting.name().as_str();
                    return Err(PlanError::Unsupported(format!("enable {name}")));
                }
                Command::Disable(name) => {
                    return Err(PlanError::Unsupported(format!("disable {}", name.as_str())));
                }
            }
        }
        if plan.is_full() && plan.updates().next().is_none() {
            return Err(PlanError::Empty);
        }
        if mounted {
            // The community's installer ends its file without a line end, and with it this line.
            plan.steps.push(Step::Unmount);
        }
        Ok(plan)
    }

    /// Whether the system is made anew, whatever state it is in.
    pub fn is_full(&self) -> bool {
        self.steps.contains(&Step::Format)
    }

    /// The tarballs in the order in which they are applied.
    pub fn updates(&self) -> impl Iterator<Item = &SignedFile> {
        self.steps.iter().filter_map(|step| match step {
            Step::Update(signed) => Some(signed),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, PlanError> {
        Plan::of(&CommandFile::parse(text.as_bytes()).unwrap())
    }

    fn words(plan: &Plan) -> String {
        let word = |step: &Step| match step {
            Step::Format => "format".to_owned(),
            Step::Mount => "mount".to_owned(),
            Step::Update(signed) => signed.file().to_string(),
            Step::Unmount => "unmount".to_owned(),
        };
        plan.steps.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_files_of_all_known_writers_become_steps() {
        let client = "load_keyring a.tar.xz a.tar.xz.asc\nload_keyring b.tar.xz b.tar.xz.asc\n\
                      format system\nmount system\nupdate u.tar.xz u.tar.xz.asc\n\
                      update version-22.tar.xz version-22.tar.xz.asc\nunmount system\n";
        let plan_of_client = plan(client).unwrap();
        assert_eq!(
            words(&plan_of_client),
            "format mount u.tar.xz version-22.tar.xz unmount"
        );
        assert_eq!(plan_of_client.keyrings.len(), 2);
        assert!(plan_of_client.is_full());
        let community = "# comment\n\nmount system\r\n  update\tu.tar.xz  u.tar.xz.asc\n\
                         installer_check\nunmount system";
        let plan_of_community = plan(community).unwrap();
        assert_eq!(words(&plan_of_community), "mount u.tar.xz unmount");
        assert_eq!(plan_of_community.skipped, ["installer_check"]);
        // Two deltas of one path may both carry the same keyring file.
        let again = "mount system\nupdate u u.asc\nupdate k k.asc\nupdate k k.asc\n";
        assert_eq!(words(&plan(again).unwrap()), "mount u k k unmount");
        let cut = plan("mount system\nupdate u.tar.xz u.tar.xz.asc\n").unwrap();
        assert_eq!(words(&cut), "mount u.tar.xz unmount");
    }

    #[test]
    fn an_order_that_makes_no_sense_is_refused() {
        let update = "update u u.asc\n";
        for (text, want) in [
            (update.to_owned(), PlanError::NotMounted("u".into())),
            (
                format!("mount system\nunmount system\n{update}"),
                PlanError::NotMounted("u".into()),
            ),
            (
                "mount system\nmount system\n".into(),
                PlanError::Mounted("mount system"),
            ),
            (
                "mount system\nformat system\n".into(),
                PlanError::Mounted("format system"),
            ),
            ("format system\nmount system\n".into(), PlanError::Empty),
            (
                format!("mount system\n{update}unmount system\nformat system\n"),
                PlanError::Undone,
            ),
            ("# nothing\n\nnothing\n".into(), PlanError::NoCommand),
        ] {
            assert_eq!(plan(&text), Err(want), "{text}");
        }
    }

    #[test]
    fn commands_that_are_not_built_yet_are_refused_and_no_password_is_shown() {
        for (line, want) in [
            ("format data", "format data"),
            ("enable mtp", "enable mtp"),
            ("enable default_password secret", "enable default_password"),
            ("disable adb_keys", "disable adb_keys"),
        ] {
            let refused = plan(&format!("{line}\nmount system\n")).unwrap_err();
            assert_eq!(refused, PlanError::Unsupported(want.into()));
        }
    }
}

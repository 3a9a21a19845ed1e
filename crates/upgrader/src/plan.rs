//! What a command file asks for, as steps that can be taken in order.
//!
//! In: a parsed command file. Out: a [`Plan`], or why nothing of it will be done. Decided before
//! anything is touched, so an order that makes no sense leaves the device as it was.

use std::fmt;

use system_image_formats::command::{Command, CommandFile, Line, Setting, SettingName, SignedFile};
use system_image_formats::name::FileName;

use crate::data::mark::Mark;

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

/// One step that changes the device or makes the system accessible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the system empty.
    Format,
    /// Make it accessible.
    Mount,
    /// Apply a tarball.
    Update(SignedFile),
    /// Set the user's first password in the system.
    Password(Secret),
    /// Put the system away.
    Unmount,
    /// Remove user data.
    Wipe,
    /// Switch a mark on user data.
    Mark(Mark, bool),
    /// Let the keys in this file of the drop box use adb, or none.
    AdbKeys(Option<FileName>),
}

/// A password, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Why a command file is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `update` where no system is mounted: the original would fill the cache with it.
    #[error("`{0}` stands where the system is not mounted")]
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
    /// What opens a device without its data being wiped first.
    #[error("`enable {0}` needs `format data` before it")]
    NotWiped(&'static str),
    /// No command at all.
    #[error("the command file has no command")]
    NoCommand,
}

impl PlanError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotMounted(_) => Some("`mount system` must come first"),
            Self::NotWiped(_) => Some("a device with somebody's data on it is not opened"),
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
                    return Err(PlanError::NotMounted(format!("update {}", signed.file())));
                }
                Command::Update(signed) => plan.steps.push(Step::Update(signed.clone())),
                // Some flashers end every file with it, also one that mounted nothing.
                Command::UnmountSystem if !mounted => plan.skipped.push(command.to_string()),
                Command::UnmountSystem => {
                    mounted = false;
                    plan.steps.push(Step::Unmount);
                }
                Command::FormatData => plan.steps.push(Step::Wipe),
                Command::Enable(setting) => {
                    let step = plan.enable(setting, mounted)?;
                    plan.steps.push(step);
                }
                Command::Disable(SettingName::AdbKeys) => plan.steps.push(Step::AdbKeys(None)),
                Command::Disable(name) => match Mark::of(*name) {
                    Some(mark) => plan.steps.push(Step::Mark(mark, false)),
                    // A password that was set stays: nothing is done by any upgrader.
                    None => plan.skipped.push(command.to_string()),
                },
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

    /// What stops a command file from opening a device without losing its data.
    fn enable(&self, setting: &Setting, mounted: bool) -> Result<Step, PlanError> {
        let name = setting.name();
        let is_guarded = !matches!(name, SettingName::DeveloperMode | SettingName::Mtp);
        if is_guarded && !self.wipes() {
            return Err(PlanError::NotWiped(name.as_str()));
        }
        Ok(match setting {
            Setting::DefaultPassword(_) if !mounted => {
                return Err(PlanError::NotMounted("enable default_password".into()));
            }
            Setting::DefaultPassword(password) => Step::Password(Secret(password.clone())),
            Setting::AdbKeys(file) => Step::AdbKeys(Some(file.clone())),
            Setting::DeveloperMode => Step::Mark(Mark::Adb, true),
            Setting::Mtp => Step::Mark(Mark::Mtp, true),
            Setting::AdbOnlock => Step::Mark(Mark::AdbOnlock, true),
            Setting::FactoryWipe => Step::Mark(Mark::FactoryWipe, true),
        })
    }

    /// Whether user data is removed.
    pub fn wipes(&self) -> bool {
        self.steps.contains(&Step::Wipe)
    }

    /// Whether the system is changed at all: a reset leaves it alone.
    pub fn changes_system(&self) -> bool {
        let changes = |step| matches!(step, &Step::Format | &Step::Update(_) | &Step::Password(_));
        self.steps.iter().any(changes)
    }

    /// Names of files in the drop box that are consumed besides the tarballs.
    pub fn files(&self) -> impl Iterator<Item = &FileName> {
        self.steps.iter().filter_map(|step| match step {
            Step::AdbKeys(file) => file.as_ref(),
            _ => None,
        })
    }

    /// The password to set, if one is.
    pub fn password(&self) -> Option<&Secret> {
        let mut passwords = self.steps.iter().filter_map(|step| match step {
            Step::Password(secret) => Some(secret),
            _ => None,
        });
        passwords.next_back()
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
            Step::Wipe => "wipe".to_owned(),
            other => format!("{other:?}"),
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
            (update.to_owned(), PlanError::NotMounted("update u".into())),
            (
                format!("mount system\nunmount system\n{update}"),
                PlanError::NotMounted("update u".into()),
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
    fn user_data_is_wiped_before_or_after_the_mount() {
        let before = "format data\nformat system\nmount system\nupdate u u.asc\n\
                      enable developer_mode\nenable adb_keys adbkey.pub\n\
                      enable default_password secret\ndisable mtp\nunmount system\n";
        let planned = plan(before).unwrap();
        assert_eq!(
            words(&planned),
            "wipe format mount u Mark(Adb, true) AdbKeys(Some(FileName(\"adbkey.pub\"))) \
             Password(…) Mark(Mtp, false) unmount"
        );
        assert_eq!(planned.files().count(), 1);
        assert_eq!(planned.password().unwrap().0, "secret");
        let after = "mount system\nformat data\nupdate u u.asc\nenable adb_onlock\nunmount system";
        assert!(plan(after).unwrap().wipes());
        let reset = plan("format data\nenable factory_wipe\nunmount system\n").unwrap();
        assert_eq!(words(&reset), "wipe Mark(FactoryWipe, true)");
        assert!(!reset.changes_system());
    }

    #[test]
    fn a_device_is_not_opened_without_losing_its_data() {
        for (line, want) in [
            ("enable default_password secret", "default_password"),
            ("enable adb_onlock", "adb_onlock"),
            ("enable adb_keys k", "adb_keys"),
            ("enable factory_wipe", "factory_wipe"),
        ] {
            let text = format!("mount system\n{line}\nformat data\n");
            assert_eq!(plan(&text), Err(PlanError::NotWiped(want)), "{line}");
            let text = format!("format data\nmount system\n{line}\n");
            assert!(plan(&text).is_ok(), "{line}");
        }
        for line in [
            "enable developer_mode",
            "enable mtp",
            "disable factory_wipe",
        ] {
            assert!(plan(&format!("{line}\n")).is_ok(), "{line}");
        }
        let unmounted = plan("format data\nenable default_password x\n");
        assert_eq!(
            unmounted,
            Err(PlanError::NotMounted("enable default_password".into()))
        );
    }
}

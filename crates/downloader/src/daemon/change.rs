//! Changes to downloads that callers ask for, besides their state.

use std::collections::{BTreeMap, HashMap};

use camino::Utf8Path;
use zbus::Variant;

use super::core::{Core, log_record};
use crate::bus::interfaces::Interface;
use crate::bus::outbox::Changed;
use crate::job::download::Download;
use crate::job::failure::Refusal;
use crate::job::machine::{State, Told};
use crate::job::metadata::{Metadata, key};

/// The properties of the original's interface.
pub(super) fn classic(download: &Download) -> HashMap<&'static str, Variant<'static>> {
    let metadata = &download.metadata;
    HashMap::from([
        ("Title", metadata.text(key::TITLE).to_owned().into()),
        ("ShowInIndicator", metadata.truth(key::SHOWN).into()),
        (
            "ClickPackage",
            metadata.text(key::CLICK_PACKAGE).to_owned().into(),
        ),
        ("DestinationApp", download.owner.clone().into()),
    ])
}

impl Core {
    pub(super) fn set_default_throttle(&mut self, bytes_per_second: u64) {
        self.engine.set_limit(bytes_per_second);
        for number in self.numbers() {
            self.set_throttle(number, bytes_per_second);
        }
    }

    pub(super) fn allow_mobile_data(&mut self, allowed: bool) {
        self.default_mobile_data = allowed;
        for number in self.numbers() {
            self.set_mobile_data(number, allowed);
        }
    }

    fn numbers(&self) -> Vec<u64> {
        self.downloads.keys().copied().collect()
    }

    pub(super) fn set_throttle(&mut self, number: u64, bytes_per_second: u64) {
        if let Some(download) = self.downloads.get_mut(&number) {
            download.throttle = bytes_per_second;
            self.save_state(number);
        }
        if let Some(run) = self.runs.get(&number) {
            run.set_limit(bytes_per_second);
        }
    }

    pub(super) fn set_mobile_data(&mut self, number: u64, allowed: bool) {
        if let Some(download) = self.downloads.get_mut(&number) {
            download.mobile_data = allowed;
            self.save_state(number);
            self.take_turns();
        }
    }

    /// Replaces all of it. Tells of the properties that have another value now.
    pub(super) fn set_metadata(&mut self, number: u64, metadata: Metadata) {
        let Some(download) = self.downloads.get_mut(&number) else {
            return;
        };
        let before = classic(download);
        download.metadata = metadata;
        let given = [
            (key::TITLE, "Title"),
            (key::SHOWN, "ShowInIndicator"),
            (key::CLICK_PACKAGE, "ClickPackage"),
        ];
        let present: Vec<&str> = given
            .iter()
            .filter(|(key, _)| download.metadata.map().contains_key(*key))
            .map(|(_, property)| *property)
            .collect();
        let mut changed: Changed<'_> = classic(download);
        changed.retain(|name, value| present.contains(name) && before.get(name) != Some(value));
        self.outbox.changed(download, Interface::Download, &changed);
        self.save(number);
    }

    pub(super) fn set_headers(
        &mut self,
        number: u64,
        headers: BTreeMap<String, String>,
    ) -> Result<(), Refusal> {
        self.idle(number)?.headers = headers;
        self.save(number);
        Ok(())
    }

    pub(super) fn set_directory(
        &mut self,
        number: u64,
        directory: &Utf8Path,
    ) -> Result<(), Refusal> {
        let invalid = |text: &str| Err(Refusal::Invalid(text.to_owned()));
        let file = &self.idle(number)?.files[0];
        let name = file.destination.file_name().unwrap_or_default();
        let wanted = directory.join(name);
        if !directory.is_absolute() {
            return invalid("The destination dir must be an absolute path.");
        }
        match directory.metadata() {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return invalid("The destination dir must be a dir and a file was found."),
            Err(_) => {
                return invalid("The destination dir must be already present in the system.");
            }
        }
        let owner = self.idle(number)?.confined.clone();
        if let Some(label) = owner
            && !self.host.home.is_of(&label, directory)
        {
            return Err(Refusal::not_writable(directory));
        }
        let place = self.free(&wanted);
        let file = &mut self.idle(number)?.files[0];
        file.stage.clone_from(&place);
        file.destination = place;
        self.save(number);
        Ok(())
    }

    /// A download that nobody has started yet.
    fn idle(&mut self, number: u64) -> Result<&mut Download, Refusal> {
        let download = self.downloads.get_mut(&number);
        let idle =
            download.filter(|one| one.machine.state() == State::Idle && !one.files.is_empty());
        idle.ok_or_else(Refusal::started)
    }

    fn save(&mut self, number: u64) {
        if let Some(download) = self.downloads.get(&number)
            && let Err(error) = self.records.save(download)
        {
            log_record(&error);
        }
    }

    /// A download that cannot even begin: its caller is told in the answer, nobody by signals.
    pub(super) fn vanish(&mut self, number: u64) {
        if let Some(download) = self.downloads.get_mut(&number) {
            download.machine.told(Told::Failed);
            self.save_state(number);
            self.leave(number);
            self.take_turns();
        }
    }
}

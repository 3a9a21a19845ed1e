//! Calls of the manager (specification, sections 4.1, 5, 13 and 14).

use std::collections::HashMap;

use system_image_bus::download::Family;
use zbus::message::{Body, Header};
use zbus::{ObjectPath, OwnedVariant, Variant};

use super::{Answer, argument, arguments, no_method};
use crate::daemon::core::Core;
use crate::daemon::create::{Wanted, WantedGroup};
use crate::job::caller::Caller;
use crate::job::download::{Download, File, Shape};
use crate::job::failure::Refusal;
use crate::job::ids;

impl Core {
    pub(super) fn manager(
        &mut self,
        family: Family,
        member: &str,
        header: &Header<'_>,
        body: &Body,
        caller: &Caller,
    ) -> Answer {
        match member {
            "createDownload" => {
                let wanted: Wanted = arguments(body)?;
                let number = self.create(caller, family, wanted)?;
                self.reply_path(header, family, number);
            }
            "createMmsDownload" => {
                let (url, host, port): (String, String, i32) = arguments(body)?;
                let number = self.create_message(caller, family, url, &host, port)?;
                self.reply_path(header, family, number);
            }
            "createDownloadGroup" => {
                let wanted: WantedGroup = arguments(body)?;
                let number = self.create_group(caller, family, wanted)?;
                self.reply_path(header, family, number);
            }
            "getAllDownloads" => {
                let (owner, exactly): (String, bool) = if body.is_empty() {
                    Default::default()
                } else {
                    arguments(body)?
                };
                let owner = caller.confined.clone().unwrap_or(owner);
                let all = owner.is_empty() && !exactly && caller.confined.is_none();
                self.reply_paths(header, family, |one| {
                    all || one.owner == owner && caller.may_steer(one.confined.as_deref())
                });
            }
            "getAllDownloadsWithMetadata" => {
                let (key, value): (String, String) = arguments(body)?;
                self.reply_paths(header, family, |one| {
                    caller.may_steer(one.confined.as_deref()) && one.metadata.renders(&key, &value)
                });
            }
            "getDownloadState" => {
                let id: String = argument(body)?;
                self.reply_state(header, caller, &id)?;
            }
            "setDefaultThrottle" => {
                let speed: u64 = argument(body)?;
                self.set_default_throttle(speed);
                self.outbox.reply(header, &());
            }
            "defaultThrottle" => self.outbox.reply(header, &self.engine.limit()),
            "allowGSMDownload" => {
                let allowed: bool = argument(body)?;
                self.allow_mobile_data(allowed);
                self.outbox.reply(header, &());
            }
            "isGSMDownloadAllowed" => self.outbox.reply(header, &self.default_mobile_data),
            "exit" if self.host.stoppable => {
                self.outbox.reply(header, &());
                self.over = true;
            }
            "exit" => {
                let text = "Daemon should have been started with -stoppable";
                return Err(Refusal::Unsupported(text.to_owned()));
            }
            _ => return Err(no_method(member)),
        }
        Ok(())
    }

    fn reply_path(&self, header: &Header<'_>, family: Family, number: u64) {
        let path = self.downloads.get(&number);
        let path = path.map(|one| ids::path(family, &one.tail()));
        if let Some(Ok(path)) = path.map(ObjectPath::try_from) {
            self.outbox.reply(header, &path);
        }
    }

    fn reply_paths(&self, header: &Header<'_>, family: Family, which: impl Fn(&Download) -> bool) {
        let chosen = self.downloads().filter(|one| which(one));
        let paths = chosen.map(|one| ObjectPath::try_from(ids::path(family, &one.tail())));
        let paths: Vec<ObjectPath<'_>> = paths.flatten().collect();
        self.outbox.reply(header, &paths);
    }

    fn reply_state(&self, header: &Header<'_>, caller: &Caller, id: &str) -> Answer {
        type Reply<'r> = (
            i32,
            &'r str,
            &'r str,
            &'r str,
            &'r HashMap<String, OwnedVariant>,
        );
        let none = HashMap::new();
        let live = self.downloads().find(|one| one.id == id);
        if let Some(download) = live.filter(|one| caller.may_steer(one.confined.as_deref())) {
            let file = download.files.first();
            let text = |of: fn(&File) -> &str| file.map_or("", of);
            let reply: Reply<'_> = (
                download.machine.state().number(),
                text(|file| &file.url),
                text(|file| file.destination.as_str()),
                text(|file| &file.hash),
                download.metadata.map(),
            );
            self.outbox.reply(header, &(reply,));
            return Ok(());
        }
        let known = match caller.confined {
            None => self.records.known(id),
            Some(_) => Ok(None),
        };
        let known = known.map_err(|error| Refusal::Failed(error.to_string()))?;
        let reply: Reply<'_> = match &known {
            Some(known) => (
                known.state.number(),
                &known.url,
                &known.path,
                &known.hash,
                &none,
            ),
            None => (-1, "", "", "", &none),
        };
        self.outbox.reply(header, &(reply,));
        Ok(())
    }

    pub(super) fn list(&self, header: &Header<'_>, caller: &Caller) {
        let seen = self
            .downloads()
            .filter(|one| caller.may_steer(one.confined.as_deref()));
        let all: Vec<HashMap<&str, Variant<'_>>> = seen
            .map(|one| {
                let mut shown = self.show(one);
                let path = ids::path(Family::Lomiri, &one.tail());
                shown.insert("Object", path.into());
                shown.insert("Title", one.metadata.text("title").to_owned().into());
                shown.insert("Throttle", one.throttle.into());
                shown.insert("Group", (one.shape == Shape::Group).into());
                shown
            })
            .collect();
        self.outbox.reply(header, &all);
    }
}

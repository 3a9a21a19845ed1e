//! Calls that every object answers: introspection, properties, signs of life.

use std::collections::HashMap;

use zbus::Variant;
use zbus::message::{Body, Header};

use super::{Answer, Object, argument, arguments};
use crate::bus::interfaces::Interface;
use crate::bus::introspect;
use crate::daemon::change;
use crate::daemon::core::Core;
use crate::job::failure::Refusal;

impl Core {
    pub(super) fn properties(
        &self,
        object: Object,
        member: &str,
        header: &Header<'_>,
        body: &Body,
    ) -> Answer {
        let (name, property): (String, String) = match member {
            "GetAll" => (argument(body)?, String::new()),
            "Get" => arguments(body)?,
            _ => {
                let text = "No property can be set";
                return Err(Refusal::Denied(text.to_owned()));
            }
        };
        let mut all = self.interfaces(object).into_iter();
        let interface = all.find(|interface| interface.name() == name);
        let interface = interface
            .ok_or_else(|| Refusal::Invalid(format!("There is no interface `{name}` here")))?;
        let values = match object {
            Object::Download(number, _) => self.values(number, interface),
            Object::Manager | Object::Nothing => HashMap::new(),
        };
        if member == "GetAll" {
            self.outbox.reply(header, &values);
            return Ok(());
        }
        match values.get(property.as_str()) {
            Some(value) => {
                self.outbox.reply(header, value);
                Ok(())
            }
            None => Err(Refusal::Invalid(format!(
                "There is no property `{property}`"
            ))),
        }
    }

    fn values(&self, number: u64, interface: Interface) -> HashMap<&'static str, Variant<'_>> {
        match (self.downloads.get(&number), interface) {
            (Some(download), Interface::Download(_)) => change::classic(download),
            (Some(download), Interface::OurDownload) => self.show(download),
            _ => HashMap::new(),
        }
    }

    pub(super) fn introspect(&self, object: Object, path: &str, header: &Header<'_>) {
        let paths = self.paths();
        let below = introspect::children(path, paths.iter().map(String::as_str));
        let interfaces = self.interfaces(object);
        let text = introspect::describe(interfaces, below.iter().map(String::as_str));
        self.outbox.reply(header, &text);
    }

    pub(super) fn peer(&self, member: &str, header: &Header<'_>) -> Answer {
        if member == "Ping" {
            self.outbox.reply(header, &());
            return Ok(());
        }
        let places = ["/var/lib/dbus/machine-id", "/etc/machine-id"];
        let id = places
            .iter()
            .find_map(|place| std::fs::read_to_string(place).ok());
        let id = id.ok_or_else(|| Refusal::Failed("This machine has no id".to_owned()))?;
        self.outbox.reply(header, &id.trim());
        Ok(())
    }
}

//! Calls from the bus: types of the bus in, one question or order to the core, types of the bus out.

mod download;
mod manager;
mod standard;

use system_image_bus::download::Family;
use zbus::Message;
use zbus::message::{Body, Header};
use zbus::names::InterfaceName;
use zbus::wire::DynamicDeserialize;

use super::core::Core;
use crate::bus::interfaces::{COMMON, Interface};
use crate::bus::introspect;
use crate::bus::outbox::interface;
use crate::job::caller::Caller;
use crate::job::download::Download;
use crate::job::failure::Refusal;
use crate::job::ids;

/// What a call is about.
#[derive(Clone, Copy, Debug)]
enum Object {
    /// `/`.
    Manager,
    /// A download, by its number, at a path of a family.
    Download(u64, Family),
    /// Above a download.
    Nothing,
}

/// What the caller hears.
type Answer = Result<(), Refusal>;

impl Core {
    /// Answers a call.
    pub fn answer(&mut self, call: &Message, caller: &Caller) {
        let header = call.header();
        let answered = self.dispatch(call, &header, caller);
        if let Err(refusal) = answered {
            self.outbox.refuse(&header, &refusal);
        }
    }

    fn dispatch(&mut self, call: &Message, header: &Header<'_>, caller: &Caller) -> Answer {
        let path = header.path().map_or("", |path| path.as_str());
        let member = header.member().map_or("", |member| member.as_str());
        if !caller.is_welcome(self.host.user) {
            let text = format!("User {} may not use this service", caller.user);
            return Err(Refusal::Denied(text));
        }
        let object = self.object(path, caller)?;
        let interface = self.interface(
            object,
            header.interface().map(InterfaceName::as_str),
            member,
        );
        let body = call.body();
        let interface = interface?;
        check(&body, interface, member)?;
        match interface {
            Interface::Manager(family) => self.manager(family, member, header, &body, caller),
            Interface::OurManager => {
                self.list(header, caller);
                Ok(())
            }
            Interface::Download(_) => self.download_call(object, member, header, &body),
            Interface::Group(_) => self.group_call(object, member, header, &body),
            Interface::OurDownload => Err(no_method(member)),
            Interface::Introspectable => {
                self.introspect(object, path, header);
                Ok(())
            }
            Interface::Peer => self.peer(member, header),
            Interface::Properties => self.properties(object, member, header, &body),
        }
    }

    fn object(&self, path: &str, caller: &Caller) -> Result<Object, Refusal> {
        if path == "/" {
            return Ok(Object::Manager);
        }
        let nobody = || Refusal::NoObject(path.to_owned());
        if let Some((family, tail)) = ids::split(path)
            && let Some(download) = self.find(tail)
        {
            // To others it is not there.
            if !caller.may_steer(download.confined.as_deref()) {
                return Err(nobody());
            }
            return Ok(Object::Download(download.number, family));
        }
        let above = introspect::children(path, self.paths().iter().map(String::as_str));
        if above.is_empty() {
            return Err(nobody());
        }
        Ok(Object::Nothing)
    }

    /// The interfaces of an object.
    fn interfaces(&self, object: Object) -> Vec<Interface> {
        let mut interfaces = COMMON.to_vec();
        match object {
            Object::Manager => {
                interfaces.extend(Family::ALL.map(Interface::Manager));
                interfaces.push(Interface::OurManager);
            }
            Object::Download(number, family) => {
                if let Some(download) = self.downloads.get(&number) {
                    interfaces.push(interface(download, family));
                    interfaces.push(Interface::OurDownload);
                }
            }
            Object::Nothing => {}
        }
        interfaces
    }

    /// Which interface a call is for. A call may leave that out.
    fn interface(
        &self,
        object: Object,
        name: Option<&str>,
        member: &str,
    ) -> Result<Interface, Refusal> {
        let mut all = self.interfaces(object).into_iter();
        let found = match name {
            Some(name) => all.find(|interface| interface.name() == name),
            // The manager's of both families take the same calls.
            None => all.find(|interface| interface.forms(member).next().is_some()),
        };
        found.ok_or_else(|| match name {
            Some(name) => Refusal::NoMethod(format!("There is no interface `{name}` here")),
            None => no_method(member),
        })
    }

    /// All paths of both families.
    fn paths(&self) -> Vec<String> {
        let of = |download: &Download| {
            let tail = download.tail();
            Family::ALL.map(|family| ids::path(family, &tail))
        };
        let mut paths: Vec<String> = self.downloads().flat_map(of).collect();
        paths.extend(Family::ALL.map(|family| family.path().to_owned()));
        paths
    }
}

/// Refuses a call whose arguments are not those of the method.
fn check(body: &Body, interface: Interface, member: &str) -> Answer {
    let given = body.signature().to_string_no_parens();
    let mut known = false;
    for form in interface.forms(member) {
        known = true;
        // A single structure and the same values side by side are the same bytes.
        let inner = form
            .strip_prefix('(')
            .and_then(|form| form.strip_suffix(')'));
        if form == given || inner == Some(&given) {
            return Ok(());
        }
    }
    if known {
        let text = format!("`{member}` does not take arguments of the type `{given}`");
        Err(Refusal::Invalid(text))
    } else {
        Err(no_method(member))
    }
}

fn no_method(member: &str) -> Refusal {
    Refusal::NoMethod(format!("There is no method `{member}`"))
}

/// The arguments of a call.
fn arguments<'b, A: DynamicDeserialize<'b>>(body: &'b Body) -> Result<A, Refusal> {
    body.deserialize()
        .map_err(|error| Refusal::Invalid(error.to_string()))
}

/// The only argument of a call.
fn argument<'b, A: DynamicDeserialize<'b>>(body: &'b Body) -> Result<A, Refusal> {
    arguments(body)
}

//! Calls from the bus: types of the bus in, one question or order to the core, types of the bus out.

use std::collections::{BTreeMap, HashMap};

use system_image_bus::download::Family;
use zbus::message::{Body, Header};
use zbus::wire::DynamicDeserialize;
use zbus::{Message, ObjectPath, OwnedVariant, Variant};

use super::core::Core;
use super::create::{Wanted, WantedGroup};
use crate::bus::interfaces::{COMMON, Interface};
use crate::bus::introspect;
use crate::bus::outbox::interface;
use crate::job::caller::Caller;
use crate::job::download::{Download, Shape};
use crate::job::failure::Refusal;
use crate::job::ids;
use crate::job::machine::{Activity, Told};

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
        let interface =
            self.interface(object, header.interface().map(|name| name.as_str()), member);
        let body = call.body();
        let interface = interface?;
        check(&body, interface, member)?;
        match interface {
            Interface::Manager(family) => self.manager(family, member, header, &body, caller),
            Interface::OurManager => self.list(header, caller),
            Interface::Download(_) => self.download_call(object, member, header, &body),
            Interface::Group(_) => self.group_call(object, member, header, &body),
            Interface::OurDownload => Err(no_method(member)),
            Interface::Introspectable => self.introspect(object, path, header),
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

    fn manager(
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
                let (owner, exactly): (String, bool) = match body.is_empty() {
                    true => Default::default(),
                    false => arguments(body)?,
                };
                let owner = caller.confined.clone().unwrap_or(owner);
                let all = owner.is_empty() && !exactly && caller.confined.is_none();
                self.reply_paths(header, family, |one| all || one.owner == owner);
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
            let text = |of: fn(&crate::job::download::File) -> &str| file.map_or("", of);
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

    fn list(&self, header: &Header<'_>, caller: &Caller) -> Answer {
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
        Ok(())
    }

    fn download_call(
        &mut self,
        object: Object,
        member: &str,
        header: &Header<'_>,
        body: &Body,
    ) -> Answer {
        let (number, download) = self.download_of(object)?;
        let Some(file) = download.files.first() else {
            return Err(no_method(member));
        };
        match member {
            "start" => {
                if download.machine.activity() == Activity::Resting
                    && !download.ran
                    && Self::prepare(file).is_err()
                {
                    let refusal = Refusal::not_writable(&file.destination);
                    self.vanish(number);
                    return Err(refusal);
                }
                self.order(header, number, Told::Start);
            }
            "collected" => self.order(header, number, Told::Collected),
            "state" => {
                let state = download.machine.state().number();
                self.outbox.reply(header, &state);
            }
            "progress" => self.outbox.reply(header, &download.received()),
            "filePath" => self.outbox.reply(header, &file.destination.as_str()),
            "setMetadata" => {
                let (confined, metadata) = (download.confined.is_some(), argument(body)?);
                let metadata = self.metadata(confined, metadata)?;
                self.set_metadata(number, metadata);
                self.outbox.reply(header, &());
            }
            "headers" => self.outbox.reply(header, &download.headers),
            "setHeaders" => {
                let headers: BTreeMap<String, String> = argument(body)?;
                self.set_headers(number, headers)?;
                self.outbox.reply(header, &());
            }
            "setDestinationDir" => {
                let directory: String = argument(body)?;
                self.set_directory(number, directory.into())?;
                self.outbox.reply(header, &());
            }
            _ => return self.common_call(number, member, header, body),
        }
        Ok(())
    }

    fn group_call(
        &mut self,
        object: Object,
        member: &str,
        header: &Header<'_>,
        body: &Body,
    ) -> Answer {
        let (number, download) = self.download_of(object)?;
        match member {
            "start" => self.order(header, number, Told::Start),
            "progress" => {
                let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
                let all = count(download.files.len());
                let done = count(download.files.iter().filter(|file| file.done).count());
                let running = match download.machine.activity() {
                    Activity::Running | Activity::Finishing => all - done,
                    _ => 0,
                };
                let reply = (all, running, all - done - running, done);
                self.outbox.reply(header, &reply);
            }
            _ => return self.common_call(number, member, header, body),
        }
        Ok(())
    }

    /// What downloads and groups have in common.
    fn common_call(
        &mut self,
        number: u64,
        member: &str,
        header: &Header<'_>,
        body: &Body,
    ) -> Answer {
        let Some(download) = self.downloads.get(&number) else {
            return Err(no_method(member));
        };
        match member {
            "pause" => self.order(header, number, Told::Pause),
            "resume" => self.order(header, number, Told::Resume),
            "cancel" => self.order(header, number, Told::Cancel),
            "totalSize" => self.outbox.reply(header, &download.total()),
            "metadata" => self.outbox.reply(header, download.metadata.map()),
            "throttle" => self.outbox.reply(header, &download.throttle),
            "setThrottle" => {
                let speed: u64 = argument(body)?;
                self.set_throttle(number, speed);
                self.outbox.reply(header, &());
            }
            "isGSMDownloadAllowed" => self.outbox.reply(header, &download.mobile_data),
            "allowGSMDownload" => {
                let allowed: bool = argument(body)?;
                self.set_mobile_data(number, allowed);
                self.outbox.reply(header, &());
            }
            _ => return Err(no_method(member)),
        }
        Ok(())
    }

    /// Answers at once; what comes of it are signals.
    fn order(&mut self, header: &Header<'_>, number: u64, told: Told) {
        self.outbox.reply(header, &());
        self.tell(number, told);
    }

    fn download_of(&self, object: Object) -> Result<(u64, &Download), Refusal> {
        let found = match object {
            Object::Download(number, _) => self.downloads.get(&number),
            Object::Manager | Object::Nothing => None,
        };
        let found = found.ok_or_else(|| Refusal::NoObject("/".to_owned()))?;
        Ok((found.number, found))
    }

    fn properties(&self, object: Object, member: &str, header: &Header<'_>, body: &Body) -> Answer {
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
            (Some(download), Interface::Download(_)) => super::change::classic(download),
            (Some(download), Interface::OurDownload) => self.show(download),
            _ => HashMap::new(),
        }
    }

    fn introspect(&self, object: Object, path: &str, header: &Header<'_>) -> Answer {
        let paths = self.paths();
        let below = introspect::children(path, paths.iter().map(String::as_str));
        let interfaces = self.interfaces(object);
        let text = introspect::describe(interfaces, below.iter().map(String::as_str));
        self.outbox.reply(header, &text);
        Ok(())
    }

    fn peer(&self, member: &str, header: &Header<'_>) -> Answer {
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

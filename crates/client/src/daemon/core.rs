//! One device's client behind the bus: what runs, what was found, and what is told.
//!
//! Work that takes time runs on a thread of its own, so that every call is answered meanwhile; it
//! reports through a channel, and one task tells everybody, so signals keep their order. Nothing
//! here is a state that a restart may not lose: what was checked, chosen and prepared is on the
//! disk ([`crate::state`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use system_image_bus::access::{self, Denied, Interaction};
use system_image_bus::service as names;
use system_image_formats::config::HookName;
use system_image_formats::name::ChannelName;
use system_image_formats::version::ImageVersion;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zbus::Connection;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;

use super::idle::Idle;
use super::legacy;
use super::modern::{Modern, Told};
use crate::apply::{self, Reset};
use crate::automatic;
use crate::check::{Checked, Wish};
use crate::client::Client;
use crate::device::{self, Device};
use crate::log::Log;
use crate::power;
use crate::settings::{AutoDownload, LAST_CHECK, MIN_BATTERY};
use crate::state::{Choice, Found, Installed, Offered};
use crate::transfer::{Canceled, Control, Event, Handle, Wanted, Way, unless_canceled};

/// Work that a call starts begins this much later, as in the original: a caller has time to listen.
const BREATH: Duration = Duration::from_millis(50);

/// Progress is told at most this often while the percentage stays.
const OFTEN: Duration = Duration::from_secs(1);

/// How long data must have flowed before its speed says something.
const STEADY: Duration = Duration::from_secs(1);

/// The actions of the polkit policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Download, pause, cancel.
    Download,
    /// Settings, channel, build.
    Configure,
    /// Apply, restart.
    Apply,
    /// Wipe the user's data.
    Reset,
}

impl Action {
    const fn id(self) -> &'static str {
        match self {
            Self::Download => "com.canonical.SystemImage.download",
            Self::Configure => "com.canonical.SystemImage.configure",
            Self::Apply => "com.canonical.SystemImage.apply",
            Self::Reset => "com.canonical.SystemImage.reset",
        }
    }
}

/// What a check found is not there any more when it is to be downloaded.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the update is not offered any more")]
struct Withdrawn;

/// What is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Check,
    Download,
    Apply,
}

/// How far a download is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) received: u64,
    pub(super) total: u64,
    /// Bytes per second since it went on last; 0 while nobody knows.
    pub(super) speed: u64,
}

impl Progress {
    /// Whole percents.
    pub(super) fn percent(self) -> i32 {
        let percent = u128::from(self.received) * 100 / u128::from(self.total.max(1));
        i32::try_from(percent.min(100)).unwrap_or(100)
    }

    /// Seconds that are left; 0 while nobody knows.
    pub(super) fn eta(self) -> f64 {
        if self.speed == 0 {
            return 0.0;
        }
        self.total.saturating_sub(self.received) as f64 / self.speed as f64
    }
}

struct Job {
    work: Work,
    handle: Handle,
    paused: bool,
}

struct Inner {
    /// The configuration as it was read last.
    loaded: Device,
    /// What the user had chosen then, here or by the command line.
    choice: Option<Choice>,
    client: Client,
    job: Option<Job>,
    /// What the last check found, with the keyrings and files that a download needs.
    checked: Option<Checked>,
    /// What it announced.
    announced: Option<Available>,
    failures: i32,
    last_error: String,
    progress: Progress,
    /// When data began to flow, and how much was there.
    since: Option<(Instant, u64)>,
    told: Option<(Instant, i32)>,
}

/// What `UpdateAvailableStatus` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Available {
    there: bool,
    version: String,
    size: u64,
    error: String,
}

/// What a thread reports.
enum Report {
    Checked(anyhow::Result<Box<Checked>>),
    Transfer(Event),
    Downloaded(anyhow::Result<()>),
    Applied {
        done: anyhow::Result<()>,
        reboots: bool,
    },
}

/// The client on the bus.
pub(super) struct Core {
    connection: Connection,
    directory: Utf8PathBuf,
    log: Arc<Log>,
    idle: Idle,
    reports: UnboundedSender<Report>,
    inner: Mutex<Inner>,
    /// The properties of our interface as they were told last.
    pub(super) told: Told,
}

/// The other end: tells what the threads report.
pub(super) struct Running(UnboundedReceiver<Report>);

impl Running {
    /// Tells everything until the core is over.
    pub(super) async fn until_over(mut self, core: &Arc<Core>) {
        let teller = Arc::clone(core);
        let telling = tokio::spawn(async move {
            while let Some(report) = self.0.recv().await {
                teller.tell(report).await;
            }
        });
        let lifetime = core.lock().client.device.config.lifetime.duration();
        let at_work = || core.is_at_work();
        core.idle
            .wait(lifetime, at_work, system_image_lean::give_back)
            .await;
        core.log.info("nobody needs us any more");
        telling.abort();
    }
}

impl Core {
    /// A core for a configured device, and what tells of it.
    pub(super) fn new(
        connection: Connection,
        directory: Utf8PathBuf,
        device: Device,
        log: Arc<Log>,
    ) -> (Arc<Self>, Running) {
        let (reports, receiver) = unbounded_channel();
        let mut client = Client::new(device.clone(), Arc::clone(&log));
        client.follow_choice();
        let inner = Inner {
            loaded: device,
            choice: client.state.choice(&client.installed),
            client,
            job: None,
            checked: None,
            announced: None,
            failures: 0,
            last_error: String::new(),
            progress: Progress::default(),
            since: None,
            told: None,
        };
        let core = Self {
            connection,
            directory,
            log,
            idle: Idle::default(),
            reports,
            inner: Mutex::new(inner),
            told: Told::default(),
        };
        (Arc::new(core), Running(receiver))
    }

    /// Finds out how the last update ended.
    pub(super) fn begin(&self) {
        let client = self.lock().client.clone();
        if let Err(error) = client.settle() {
            self.log.error(&format!("{error:#}"));
        }
    }

    /// Something was asked: stay, and read the configuration again unless something is at work.
    pub(super) fn touch(&self) {
        self.idle.touch();
        let mut inner = self.lock();
        if inner.job.is_some() {
            return;
        }
        match Device::load(&self.directory) {
            Ok(device) if device == inner.loaded && inner.chosen() == inner.choice => {}
            Ok(device) => {
                let before = Installed::from(&inner.client.device.config.service);
                inner.loaded = device.clone();
                let mut client = Client::new(device, Arc::clone(&self.log));
                client.follow_choice();
                // What was found for another channel or version counts no more.
                if Installed::from(&client.device.config.service) != before {
                    inner.checked = None;
                    inner.announced = None;
                }
                inner.client = client;
                inner.choice = inner.chosen();
            }
            Err(error) => self.log.error(&format!("{error:#}; going on as before")),
        }
    }

    /// Refuses a caller who may not change the device.
    pub(super) async fn allow(&self, header: &Header<'_>, action: Action) -> Result<(), Denied> {
        let caller = header.sender().map_or("", |name| name.as_str()).to_owned();
        let flags = header.primary().flags();
        let interaction = if flags.contains(zbus::message::Flags::ALLOW_INTERACTIVE_AUTH) {
            Interaction::Allowed
        } else {
            Interaction::Never
        };
        let allowed = access::authorize(&self.connection, &caller, action.id(), interaction).await;
        if let Err(error) = &allowed {
            self.log.error(&format!("{error}"));
        }
        allowed
    }

    /// Leaves the bus.
    pub(super) fn exit(&self) {
        self.idle.end();
    }

    pub(super) fn client(&self) -> Client {
        self.lock().client.clone()
    }

    /// What is at work, and whether it stands still.
    pub(super) fn work(&self) -> Option<(Work, bool)> {
        self.lock().job.as_ref().map(|job| (job.work, job.paused))
    }

    pub(super) fn progress(&self) -> Progress {
        self.lock().progress
    }

    /// The version that the last check found, and what it is made of.
    pub(super) fn target(&self) -> Option<Found> {
        self.lock().found()
    }

    pub(super) fn last_error(&self) -> String {
        self.lock().last_error.clone()
    }

    fn is_at_work(&self) -> bool {
        self.work().is_some_and(|(_, paused)| !paused)
    }

    /// Section 15.4.
    pub(super) async fn check(self: &Arc<Self>) {
        let busy = {
            let mut inner = self.lock();
            let work = inner.job.as_ref().map(|job| job.work);
            if work.is_none() {
                inner.failures = 0;
                inner.last_error.clear();
                self.start_check(&mut inner);
            }
            work.map(|work| (inner.announced.clone(), work == Work::Download))
        };
        match busy {
            None => Modern::changed(self).await,
            // The running check answers everybody; a running download is told of as it is.
            Some((Some(announced), downloading)) => self.announce(&announced, downloading).await,
            Some((None, _)) => {}
        }
    }

    fn start_check(self: &Arc<Self>, inner: &mut Inner) {
        let (handle, control) = Control::new();
        inner.job = Some(Job {
            work: Work::Check,
            handle,
            paused: false,
        });
        let (client, reports) = (inner.client.clone(), self.reports.clone());
        let wish = wish(&client);
        spawn(move |runtime| {
            let checked = runtime.block_on(async {
                tokio::time::sleep(BREATH).await;
                unless_canceled(control, client.check_and_note(&wish)).await
            });
            let _ = reports.send(Report::Checked(checked.map(Box::new)));
        });
    }

    /// Section 15.5. An update that an earlier process found counts, and one that failed is tried
    /// again.
    pub(super) async fn download(self: &Arc<Self>) {
        {
            let mut inner = self.lock();
            if let Some(job) = &mut inner.job {
                if job.work == Work::Download && job.paused {
                    job.handle.want(Wanted::Run);
                }
                return;
            }
            if !matches!(inner.found(), Some(Found::Update { .. })) {
                return;
            }
            self.start_download(&mut inner);
        }
        Modern::changed(self).await;
        self.emit("UpdateProgress", &(0_i32, 0.0_f64)).await;
    }

    fn start_download(self: &Arc<Self>, inner: &mut Inner) {
        let (handle, control) = Control::new();
        inner.job = Some(Job {
            work: Work::Download,
            handle,
            paused: false,
        });
        inner.progress = Progress::default();
        inner.since = None;
        inner.told = None;
        let (client, checked) = (inner.client.clone(), inner.checked.take());
        let (reports, bus) = (self.reports.clone(), self.connection.clone());
        let wish = wish(&client);
        spawn(move |runtime| {
            let prepared = runtime.block_on(async {
                tokio::time::sleep(BREATH).await;
                let way = way(&client, &bus).await;
                let events = reports.clone();
                let on_event = &mut move |event| {
                    let _ = events.send(Report::Transfer(event));
                };
                // It listens to the control itself: a download manager must be told to stop.
                client
                    .prepare(&wish, checked, &way, control, on_event)
                    .await
            });
            let prepared = prepared.and_then(|update| update.ok_or_else(|| Withdrawn.into()));
            let prepared = prepared.map(drop);
            let _ = reports.send(Report::Downloaded(prepared));
        });
    }

    /// Section 15.6.
    pub(super) fn pause(&self) -> &'static str {
        match &self.lock().job {
            Some(job) if job.work == Work::Download && !job.paused => {
                job.handle.want(Wanted::Pause);
                ""
            }
            _ => "not downloading",
        }
    }

    /// Gives up what is at work; when nothing is, nothing happens, now or later.
    pub(super) fn cancel(&self) {
        if let Some(job) = &self.lock().job {
            job.handle.want(Wanted::Cancel);
        }
    }

    /// Mobile data may be used by the download at work.
    pub(super) fn allow_mobile(&self) {
        if let Some(job) = &self.lock().job {
            job.handle.allow_mobile(true);
        }
    }

    /// Section 15.7: applies what is prepared, and says truly whether it did.
    pub(super) async fn apply(self: &Arc<Self>) {
        let started = {
            let mut inner = self.lock();
            let free = inner.job.is_none();
            if free {
                self.start_apply(&mut inner);
            }
            free
        };
        if started {
            Modern::changed(self).await;
        } else {
            self.emit("Applied", &false).await;
        }
    }

    fn start_apply(self: &Arc<Self>, inner: &mut Inner) {
        let (handle, control) = Control::new();
        inner.job = Some(Job {
            work: Work::Apply,
            handle,
            paused: false,
        });
        let (client, reports) = (inner.client.clone(), self.reports.clone());
        let bus = self.connection.clone();
        let wish = wish(&client);
        let reboots = client.device.config.hooks.apply == HookName::Reboot;
        spawn(move |runtime| {
            let done = runtime.block_on(async {
                tokio::time::sleep(BREATH).await;
                let known = client.prepared();
                let prepared = match known {
                    Ok(Some(prepared)) => prepared,
                    // A stranger's command file, or a damaged one: what it should be is found out.
                    Ok(None) if !client.has_command_file() => {
                        anyhow::bail!("no update is prepared")
                    }
                    Ok(None) | Err(_) => {
                        let way = way(&client, &bus).await;
                        client
                            .prepare(&wish, None, &way, control.clone(), &mut |_| ())
                            .await?;
                        let prepared = client.prepared()?;
                        prepared.ok_or_else(|| anyhow::anyhow!("no update is prepared"))?
                    }
                };
                control.check()?;
                power::check(Some(&bus), &client.settings).await?;
                client.apply(&prepared)
            });
            let _ = reports.send(Report::Applied { done, reboots });
        });
    }

    /// Section 15.12.
    pub(super) async fn reset(&self, kind: Reset) {
        let client = self.client();
        match client.reset(kind) {
            Ok(()) if client.device.config.hooks.apply == HookName::Reboot => {
                self.emit("Rebooting", &true).await;
            }
            Ok(()) => {}
            Err(error) => {
                self.log.error(&format!("{error:#}"));
                self.emit("Rebooting", &false).await;
            }
        }
    }

    /// Restarts the device into its system.
    pub(super) fn reboot(&self) {
        if let Err(error) = apply::reboot() {
            self.log.error(&format!("{error:#}"));
        }
    }

    /// Section 15.8.
    pub(super) fn information(&self) -> Vec<(&'static str, String)> {
        let inner = self.lock();
        let client = &inner.client;
        let service = &client.device.config.service;
        let (current, detail) = (service.build_number, &service.version_detail);
        let (target, target_detail) = match inner.found() {
            None => ("-1".to_owned(), String::new()),
            Some(Found::Update {
                version,
                version_detail,
                ..
            }) => (version.to_string(), version_detail.to_string()),
            Some(_) => (current.to_string(), detail.to_string()),
        };
        let name = client.name.as_ref().map_or("?", |name| name.as_str());
        vec![
            ("current_build_number", current.to_string()),
            ("target_build_number", target),
            ("device_name", name.to_owned()),
            ("channel_name", service.channel.to_string()),
            ("last_update_date", client.device.last_update()),
            ("version_detail", detail.to_string()),
            ("target_version_detail", target_detail),
            (
                "last_check_date",
                client.settings.get(LAST_CHECK).unwrap_or_default(),
            ),
        ]
    }

    /// Section 15.9. Returns whether the value is another one than before; values that cannot be are
    /// ignored.
    pub(super) fn set_setting(&self, key: &str, value: &str) -> anyhow::Result<bool> {
        let valid = match key {
            MIN_BATTERY => value.parse::<u8>().is_ok_and(|percent| percent <= 100),
            AutoDownload::KEY => ["0", "1", "2"].contains(&value),
            _ => true,
        };
        if !valid {
            return Ok(false);
        }
        let settings = self.lock().client.settings.clone();
        let before = settings.get(key)?;
        settings.set(key, value)?;
        Ok(before != value)
    }

    /// Section 15.10: the channels of the last successful check that have this device.
    pub(super) fn channels(&self) -> Vec<Offered> {
        let inner = self.lock();
        match &inner.checked {
            Some(checked) => checked.channels.clone(),
            None => inner
                .client
                .state
                .checked()
                .map(|checked| checked.channels)
                .unwrap_or_default(),
        }
    }

    /// Follows another channel, for good; false if the device cannot.
    pub(super) fn set_channel(&self, name: &str) -> anyhow::Result<bool> {
        let Ok(name) = name.parse::<ChannelName>() else {
            return Ok(false);
        };
        if !self.channels().iter().any(|offered| offered.name == name) {
            return Ok(false);
        }
        self.choose(Some(&name), None)?;
        Ok(true)
    }

    /// Starts from another version, for good.
    pub(super) fn choose(
        &self,
        channel: Option<&ChannelName>,
        build: Option<ImageVersion>,
    ) -> anyhow::Result<()> {
        let mut inner = self.lock();
        let before = Installed::from(&inner.client.device.config.service);
        inner.client.choose(channel, build)?;
        inner.choice = inner.chosen();
        if Installed::from(&inner.client.device.config.service) != before {
            inner.checked = None;
            inner.announced = None;
        }
        Ok(())
    }

    /// Sends a signal of the original's interface, and takes it for a sign of life.
    pub(super) async fn emit<B>(&self, name: &'static str, body: &B)
    where
        B: serde::Serialize + zbus::DynamicType + std::fmt::Debug,
    {
        self.log.debug(&format!("EMIT {name}{body:?}"));
        if name != "Rebooting" {
            self.idle.touch();
        }
        self.send(names::INTERFACE, name, body).await;
    }

    /// Sends a signal.
    pub(super) async fn send<B>(&self, interface: &'static str, name: &'static str, body: &B)
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let emitter = SignalEmitter::new(&self.connection, names::PATH);
        let sent = match emitter {
            Ok(emitter) => emitter.emit(interface, name, body).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            self.log.error(&format!("cannot send {name}: {error}"));
        }
    }

    async fn announce(&self, what: &Available, downloading: bool) {
        let client = self.client();
        let now = device::local_time(device::clock());
        if let Err(error) = client.settings.set(LAST_CHECK, &now) {
            self.log.error(&format!("{error:#}"));
        }
        // The original's callers read 32 bits.
        let size = i32::try_from(what.size).unwrap_or(i32::MAX);
        let body = (
            what.there,
            downloading,
            &what.version,
            size,
            client.device.last_update(),
            &what.error,
        );
        self.emit("UpdateAvailableStatus", &body).await;
    }

    /// Tells what a thread reports.
    async fn tell(self: &Arc<Self>, report: Report) {
        match report {
            Report::Checked(checked) => self.tell_checked(checked).await,
            Report::Transfer(event) => {
                if !self.tell_transfer(event).await {
                    return;
                }
            }
            Report::Downloaded(prepared) => self.tell_downloaded(prepared).await,
            Report::Applied { done, reboots } => {
                self.lock().job = None;
                if let Err(error) = &done {
                    self.log.error(&format!("{error:#}"));
                    self.lock().last_error = format!("{error:#}");
                }
                if done.is_ok() && reboots {
                    self.emit("Rebooting", &true).await;
                }
                self.emit("Applied", &done.is_ok()).await;
            }
        }
        Modern::changed(self).await;
    }

    async fn tell_checked(self: &Arc<Self>, checked: anyhow::Result<Box<Checked>>) {
        let (available, client) = {
            let mut inner = self.lock();
            inner.job = None;
            let available = match checked {
                Ok(checked) => {
                    let available = Available::of(&checked);
                    inner.checked = Some(*checked);
                    available
                }
                Err(error) => {
                    self.log.error(&format!("{error:#}"));
                    inner.last_error = format!("{error:#}");
                    Available {
                        error: legacy::text(&error),
                        ..Available::default()
                    }
                }
            };
            inner.announced = Some(available.clone());
            (available, inner.client.clone())
        };
        let downloads = available.there && may_download(&client, &self.connection).await;
        self.announce(&available, downloads).await;
        if downloads {
            self.download().await;
        }
    }

    /// Whether there was something to tell: much less often than something comes.
    async fn tell_transfer(&self, event: Event) -> bool {
        match event {
            Event::Started(total) => {
                {
                    let mut inner = self.lock();
                    inner.progress.total = total;
                    inner.since = Some((Instant::now(), 0));
                }
                self.emit("DownloadStarted", &()).await;
            }
            Event::Progress(now) => {
                let told = {
                    let mut inner = self.lock();
                    inner.advance(now.received, now.total)
                };
                let Some(progress) = told else {
                    return false;
                };
                let body = (progress.percent(), progress.eta());
                self.emit("UpdateProgress", &body).await;
                Modern::advanced(self, progress).await;
            }
            Event::Paused => {
                let percent = {
                    let mut inner = self.lock();
                    inner.pause(true);
                    inner.progress.percent()
                };
                self.emit("UpdatePaused", &percent).await;
            }
            Event::Resumed => self.lock().pause(false),
        }
        true
    }

    async fn tell_downloaded(&self, prepared: anyhow::Result<()>) {
        let failed = {
            let mut inner = self.lock();
            inner.job = None;
            inner.since = None;
            match prepared {
                Ok(()) => {
                    inner.failures = 0;
                    inner.last_error.clear();
                    None
                }
                Err(error) => {
                    // Callers of the original get its words, which leave out what is not known to
                    // it; ours get the causes.
                    inner.last_error = format!("{error:#}");
                    if !error.is::<Canceled>() {
                        self.log.error(&inner.last_error);
                    }
                    inner.failures = inner.failures.saturating_add(1);
                    Some((inner.failures, legacy::reason(&error)))
                }
            }
        };
        match failed {
            None => self.emit("UpdateDownloaded", &()).await,
            Some(failed) => self.emit("UpdateFailed", &failed).await,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// What is known of the server: what a check in this process found, or one before it that
    /// started from the same channel and version.
    fn found(&self) -> Option<Found> {
        if let Some(checked) = &self.checked {
            return Some(checked.found());
        }
        let checked = self.client.state.checked()?;
        let from = Installed::from(&self.client.device.config.service);
        (checked.from == from).then_some(checked.found)
    }

    /// What the user has chosen by now.
    fn chosen(&self) -> Option<Choice> {
        self.client.state.choice(&self.client.installed)
    }

    /// More has been received. What to tell, if it is worth telling.
    fn advance(&mut self, received: u64, total: Option<u64>) -> Option<Progress> {
        let now = Instant::now();
        let (since, before) = *self.since.get_or_insert((now, received));
        let flowing = now.duration_since(since);
        let progress = &mut self.progress;
        progress.received = received;
        progress.total = total.unwrap_or(progress.total).max(received);
        let flowed = received.saturating_sub(before);
        if flowing >= STEADY {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "bytes per second fit, and neither is negative"
            )]
            let speed = (flowed as f64 / flowing.as_secs_f64()) as u64;
            progress.speed = speed;
        }
        let percent = progress.percent();
        let news = self
            .told
            .is_none_or(|(at, told)| told != percent || now.duration_since(at) > OFTEN);
        if news {
            self.told = Some((now, percent));
        }
        news.then_some(self.progress)
    }

    fn pause(&mut self, paused: bool) {
        if let Some(job) = &mut self.job {
            job.paused = paused;
        }
        self.since = None;
        self.progress.speed = 0;
    }
}

impl Available {
    fn of(checked: &Checked) -> Self {
        match checked.update() {
            Some(update) => Self {
                there: true,
                version: update.version.to_string(),
                size: update.size,
                error: String::new(),
            },
            None => Self::default(),
        }
    }
}

/// What the service wishes for: what the user chose, and nothing else.
fn wish(client: &Client) -> Wish {
    Wish {
        build_given: client.build_given,
        ..Wish::default()
    }
}

async fn way(client: &Client, bus: &Connection) -> Way {
    Way::choose(Some(bus), client.device.config.downloader, &client.log).await
}

/// Whether an update that was found is downloaded unasked: by the setting, and on the network that
/// there really is.
async fn may_download(client: &Client, connection: &Connection) -> bool {
    use system_image_bus::{Kernel, Network};
    match client.settings.auto_download() {
        Ok(setting) => {
            let network = Network::now(Some(connection), &Kernel::default()).await;
            let may = automatic::download(setting, network);
            if let Err(why) = &may {
                client.log.info(&why.to_string());
            }
            may.is_ok()
        }
        Err(error) => {
            client.log.error(&format!("{error:#}"));
            false
        }
    }
}

/// Runs work that takes time on a thread of its own, with a runtime of its own.
pub(super) fn spawn(work: impl FnOnce(&tokio::runtime::Runtime) + Send + 'static) {
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime needs two file descriptors, and there are some");
        work(&runtime);
        // A download that was given up may still be writing its last buffer.
        runtime.shutdown_background();
    });
}

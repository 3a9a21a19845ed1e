//! One device's client: check, download, prepare, apply. The command line and the service on the
//! bus are two faces of it.
//!
//! In: a configured device and what is wished for. Out: an update in the drop box, whole and
//! verified, and records of what happened. Every step may be repeated; what is there is not done
//! again.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use system_image_formats::channels::Channels;
use system_image_formats::keyring::KeyringType;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::ImageVersion;
use system_image_planner::Filter;
use system_image_trust::Verified;

use crate::apply;
use crate::check::{self, Checked, Update, Wish};
use crate::device::{self, Device};
use crate::handover;
use crate::log::Log;
use crate::meter::Meters;
use crate::server::Server;
use crate::session::{self, Facts, Failure, Fresh, Session, with_fresh_keys};
use crate::settings::{AutoDownload, Settings};
use crate::state::{
    self, Applying, Choice, Event as Happened, Found, Installed, Lock, Prepared, PreparedFile,
    Record, Settled, State,
};
use crate::transfer::{Canceled, Control, OnEvent, Way, unless_canceled};
use crate::update::{self, Fetch};

/// A device and everything that is known of it.
#[derive(Clone, Debug)]
pub struct Client {
    /// The configuration, with what was chosen and given in place of what is installed.
    pub device: Device,
    /// What is installed.
    pub installed: Installed,
    /// The device's name, if it is known.
    pub name: Option<DeviceName>,
    /// Whether no signature is looked at.
    pub trust_anybody: bool,
    /// Whether the version to start from was given or chosen.
    pub build_given: bool,
    /// What is known from earlier runs.
    pub state: State,
    /// The settings that are shared with other programs.
    pub settings: Settings,
    /// Who is shown the progress of metadata; that of payloads is told as events.
    pub meters: Option<Meters>,
    /// Where to tell what happens.
    pub log: Arc<Log>,
}

impl Client {
    /// The client of a configured device, as it is installed.
    pub fn new(device: Device, log: Arc<Log>) -> Self {
        let config = &device.config;
        Self {
            installed: Installed::from(&config.service),
            name: device.name(),
            trust_anybody: false,
            build_given: false,
            state: State::of(config),
            settings: Settings::at(&config.system.settings_db),
            device,
            meters: None,
            log,
        }
    }

    /// Follows what the user chose before.
    pub fn follow_choice(&mut self) {
        let Some(choice) = self.state.choice(&self.installed) else {
            return;
        };
        if let Some(channel) = choice.channel {
            self.device.config.service.channel = channel;
        }
        if let Some(build) = choice.build {
            self.start_from(build);
        }
    }

    /// Starts from this version, whatever is installed.
    pub fn start_from(&mut self, build: ImageVersion) {
        self.device.config.service.build_number = build;
        self.build_given = true;
    }

    /// Follows another channel, or starts from another version, until an image has brought it.
    pub fn choose(
        &mut self,
        channel: Option<&ChannelName>,
        build: Option<ImageVersion>,
    ) -> anyhow::Result<()> {
        let before = self.state.choice(&self.installed);
        let (followed, from) = before.map_or((None, None), |choice| (choice.channel, choice.build));
        if let Some(channel) = channel {
            // What was prepared from another channel must not be applied in its place.
            if let Some(prepared) = self.state.prepared()
                && prepared.channel != *channel
            {
                self.log
                    .info("taking back the update of the channel before");
                handover::take_back(&self.device.config.cache_partition)?;
                self.state.forget_prepared()?;
            }
            if channel != followed.as_ref().unwrap_or(&self.installed.channel) {
                let record = Record::new(device::clock(), Happened::Switched, channel, None);
                self.state.record(&record)?;
            }
            self.device.config.service.channel = channel.clone();
        }
        self.state.choose(&Choice {
            installed: self.installed.clone(),
            channel: channel.cloned().or(followed),
            build: build.or(from),
        })?;
        if let Some(build) = build {
            self.start_from(build);
        }
        Ok(())
    }

    /// Keeps other clients out.
    pub fn lock(&self) -> anyhow::Result<Lock> {
        self.state.lock()
    }

    /// Finds out how an update ended that was handed over before.
    pub fn settle(&self) -> anyhow::Result<Option<Settled>> {
        let drop_box = &self.device.config.cache_partition;
        let result = state::result_path(drop_box);
        let settled = self
            .state
            .settle(&self.installed, drop_box, &result, device::clock())?;
        if let Some(settled) = &settled {
            self.log.info(&settled.to_string());
        }
        Ok(settled)
    }

    /// The configured server.
    pub fn server(&self) -> anyhow::Result<Server> {
        let meters = self.meters.clone();
        Server::new(&self.device.config, self.name()?, meters)
    }

    fn name(&self) -> anyhow::Result<&DeviceName> {
        self.name.as_ref().ok_or_else(|| {
            anyhow!("the device's name is not known: set `device` in `[service]` or give --device")
        })
    }

    fn facts<'a>(&'a self, device: &'a DeviceName) -> Facts<'a> {
        Facts {
            config: &self.device.config,
            device,
            now: device::clock(),
            trust_anybody: self.trust_anybody,
            patches_failed: self.state.patches_failed(&self.installed),
            log: &self.log,
        }
    }

    /// The server's channels.
    pub async fn channels(&self) -> anyhow::Result<Verified<Channels>> {
        let (server, name) = (self.server()?, self.name()?);
        let session = with_fresh_keys(&self.log, async |fresh| {
            Session::open(&server, self.facts(name), fresh).await
        });
        Ok(session.await?.channels)
    }

    /// Asks the server whether there is an update.
    pub async fn check(&self, wish: &Wish) -> anyhow::Result<Checked> {
        let (server, name) = (self.server()?, self.name()?);
        with_fresh_keys(&self.log, async |fresh| {
            check::check(&server, self.facts(name), wish, fresh).await
        })
        .await
    }

    /// As [`check`](Self::check), and keeps how it ended for later runs.
    pub async fn check_and_note(&self, wish: &Wish) -> anyhow::Result<Checked> {
        let checked = self.check(wish).await;
        let before = self.state.checked();
        let (found, channels) = match &checked {
            Ok(checked) => (checked.found(), checked.channels.clone()),
            Err(error) => {
                let why = format!("{error:#}");
                let channels = before.map(|checked| checked.channels);
                (Found::Failed { why }, channels.unwrap_or_default())
            }
        };
        let noted = self.state.note_checked(&state::Checked {
            at: device::clock(),
            from: Installed::from(&self.device.config.service),
            found,
            channels,
        });
        // A check that cannot be noted is still a check.
        if let Err(error) = noted {
            self.log.error(&format!("{error:#}"));
        }
        checked
    }

    /// Downloads what is missing of the update and writes the command file; the update, or none if
    /// there is none.
    ///
    /// `known` is what a check found; the server is asked anew when there is none, or it turns out
    /// that keys were changed meanwhile. Files that come damaged twice make it a full image.
    pub async fn prepare(
        &self,
        wish: &Wish,
        known: Option<Checked>,
        way: &Way,
        control: Control,
        on_event: OnEvent<'_>,
    ) -> anyhow::Result<Option<Update>> {
        let _lock = self.lock()?;
        let prepared = self.attempt(wish, known, way, &control, on_event).await;
        let prepared = match prepared {
            Err(error) if update::is_damaged(&error) && wish.filter.is_none() => {
                self.log
                    .error(&format!("{error:#}; trying with a full image"));
                let full = Wish {
                    filter: Some(Filter::Full),
                    ..wish.clone()
                };
                let retried = self.attempt(&full, None, way, &control, on_event).await;
                // That there is no full image does not say why there is no update.
                retried.and_then(|update| update.map_or(Err(error), |update| Ok(Some(update))))
            }
            prepared => prepared,
        };
        if let Err(error) = &prepared
            && !error.is::<Canceled>()
        {
            let service = &self.device.config.service;
            let record = Record {
                reason: Some(format!("{error:#}")),
                ..Record::new(device::clock(), Happened::Failed, &service.channel, None)
            };
            if let Err(error) = self.state.record(&record) {
                self.log.error(&format!("{error:#}"));
            }
        }
        prepared
    }

    async fn attempt(
        &self,
        wish: &Wish,
        mut known: Option<Checked>,
        way: &Way,
        control: &Control,
        on_event: OnEvent<'_>,
    ) -> anyhow::Result<Option<Update>> {
        let (server, name) = (self.server()?, self.name()?);
        let (config, log) = (&self.device.config, &*self.log);
        with_fresh_keys(log, async |fresh| {
            control.check()?;
            let known = known.take().filter(|_| fresh == Fresh::default());
            let checked = if let Some(checked) = known {
                checked
            } else {
                let checked = check::check(&server, self.facts(name), wish, fresh);
                unless_canceled(control.clone(), checked).await?
            };
            let Some(update) = checked.update() else {
                if let check::Outcome::NotOffered(error) = checked.outcome {
                    return Err(Failure::Final(error.into()));
                }
                return Ok(None);
            };
            let fetch = Fetch {
                server: &server,
                chain: &checked.chain,
                config,
                way,
                mobile_data: wish.mobile_data || self.allows_mobile_data(),
                control: control.clone(),
                log,
            };
            update::fetch(fetch, &update.files, on_event).await?;
            self.hand_over(update)?;
            Ok::<_, Failure>(Some(update.clone()))
        })
        .await
    }

    /// Whether the settings allow downloads that may cost something.
    fn allows_mobile_data(&self) -> bool {
        match self.settings.auto_download() {
            Ok(allowed) => allowed != AutoDownload::OnWifi,
            Err(error) => {
                self.log.error(&format!("{error:#}"));
                false
            }
        }
    }

    /// Writes the command file, and what it is about beside it.
    fn hand_over(&self, update: &Update) -> anyhow::Result<()> {
        self.log.info("preparing recovery");
        let config = &self.device.config;
        let now = device::clock();
        let files = update.files.iter().map(|file| {
            Ok(PreparedFile {
                name: file.path.file_name()?,
                sha256: file.checksum,
                size: file.size,
            })
        });
        let files: anyhow::Result<Vec<_>> = files.collect();
        let channel = &config.service.channel;
        self.state.note_prepared(&Prepared {
            at: now,
            installed: self.installed.clone(),
            channel: channel.clone(),
            version: update.reached(),
            version_detail: update.version_detail.clone(),
            files: files?,
        })?;
        handover::prepare(config, update, &self.log)?;
        let moved = Some((update.from, update.reached()));
        self.state
            .record(&Record::new(now, Happened::Prepared, channel, moved))
    }

    /// Each keyring that is kept, in the order of the chain: when it expires, if it does, or why it
    /// cannot be used; nothing for one that was not fetched yet.
    pub fn keyrings(&self) -> Vec<(KeyringType, anyhow::Result<Option<Option<i64>>>)> {
        let name = match self.name() {
            Ok(name) => name,
            Err(error) => return vec![(KeyringType::ArchiveMaster, Err(error))],
        };
        session::kept_keyrings(self.facts(name))
    }

    /// Whether something is prepared, by whomever.
    pub fn has_command_file(&self) -> bool {
        let drop_box = &self.device.config.cache_partition;
        drop_box.join(handover::COMMAND_FILE).exists()
    }

    /// The prepared update, every file of it verified once more; none if there is none, or an error
    /// that says what is wrong with it.
    pub fn prepared(&self) -> anyhow::Result<Option<Prepared>> {
        let Some(prepared) = self.state.prepared() else {
            return Ok(None);
        };
        let facts = self.facts(self.name()?);
        let there = handover::verify(facts, &prepared.files)?;
        Ok(there.then_some(prepared))
    }

    /// Hands the prepared update over: runs the apply hook, normally the reboot into the recovery.
    /// Whether there is enough in the battery is asked before, by [`power::check`].
    ///
    /// [`power::check`]: crate::power::check
    pub fn apply(&self, prepared: &Prepared) -> anyhow::Result<()> {
        self.log.info("applying");
        self.state.note_applying(&Applying {
            at: device::clock(),
            installed: self.installed.clone(),
            channel: prepared.channel.clone(),
            version: prepared.version,
            patched: prepared.is_patched(),
            boot: state::boot().unwrap_or_default(),
        })?;
        let config = &self.device.config;
        let applied = apply::run(&config.hooks.apply, &config.cache_partition);
        if let Err(error) = &applied {
            let moved = Some((self.installed.build, prepared.version));
            let channel = &prepared.channel;
            let record = Record {
                reason: Some(format!("{error:#}")),
                ..Record::new(device::clock(), Happened::Failed, channel, moved)
            };
            self.state.forget_applying()?;
            self.state.record(&record)?;
        }
        applied
    }

    /// Has the recovery wipe the user's data, and for a production reset forbid it to come back.
    /// A prepared update is lost.
    pub fn reset(&self, kind: apply::Reset) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let config = &self.device.config;
        let channel = &self.installed.channel;
        handover::write_reset(&config.cache_partition, kind)?;
        self.state.forget_prepared()?;
        self.state.record(&Record::new(
            device::clock(),
            Happened::Reset,
            channel,
            None,
        ))?;
        apply::run(&config.hooks.apply, &config.cache_partition)
            .context("the reset is prepared, and the device does not restart by itself")
    }
}

//! The original's interface (client spec, sections 15.2 to 15.12): bus types in, one call on the
//! core, bus types out.

use std::collections::HashMap;
use std::sync::Arc;

use system_image_bus::access::Denied;
use system_image_formats::version::ImageVersion;
use zbus::fdo::{Error, Result};
use zbus::message::Header;
use zbus::object_server::SignalEmitter;

use super::core::{Action, Core};
use super::firmware;
use super::modern::Modern;
use crate::apply::Reset;

/// The object on the bus.
pub(super) struct Service {
    core: Arc<Core>,
}

impl Service {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    async fn allow(&self, header: &Header<'_>, action: Action) -> Result<()> {
        self.core.touch();
        self.core
            .allow(header, action)
            .await
            .map_err(|denied| refused(&denied))
    }
}

/// The caller may not.
pub(super) fn refused(denied: &Denied) -> Error {
    let hint = denied.hint().map(|hint| format!("; {hint}"));
    Error::AccessDenied(format!("{denied}{}", hint.unwrap_or_default()))
}

/// Lets a tool take its time while other calls are answered.
async fn aside<T: Send + 'static>(work: fn() -> T) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Failed(error.to_string()))
}

fn failed(error: &anyhow::Error) -> Error {
    Error::Failed(format!("{error:#}"))
}

#[zbus::interface(name = "com.canonical.SystemImage", introspection_docs = false)]
impl Service {
    async fn check_for_update(&self) {
        self.core.touch();
        self.core.check().await;
    }

    async fn download_update(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        self.allow(&header, Action::Download).await?;
        self.core.download().await;
        Ok(())
    }

    async fn pause_download(&self, #[zbus(header)] header: Header<'_>) -> Result<&'static str> {
        self.allow(&header, Action::Download).await?;
        Ok(self.core.pause())
    }

    async fn cancel_update(&self, #[zbus(header)] header: Header<'_>) -> Result<&'static str> {
        self.allow(&header, Action::Download).await?;
        self.core.cancel();
        Ok("")
    }

    async fn apply_update(&self, #[zbus(header)] header: Header<'_>) -> Result<&'static str> {
        self.allow(&header, Action::Apply).await?;
        self.core.apply().await;
        Ok("")
    }

    #[zbus(name = "ForceAllowGSMDownload")]
    async fn force_allow_gsm_download(
        &self,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<&'static str> {
        self.allow(&header, Action::Download).await?;
        self.core.allow_mobile();
        Ok("")
    }

    fn information(&self) -> HashMap<&'static str, String> {
        self.core.touch();
        self.core.information().into_iter().collect()
    }

    async fn set_setting(
        &self,
        #[zbus(header)] header: Header<'_>,
        key: &str,
        value: &str,
    ) -> Result<()> {
        self.allow(&header, Action::Configure).await?;
        let changed = self.core.set_setting(key, value);
        if changed.map_err(|error| failed(&error))? {
            self.core.emit("SettingChanged", &(key, value)).await;
        }
        Ok(())
    }

    fn get_setting(&self, key: &str) -> Result<String> {
        self.core.touch();
        let settings = self.core.client().settings;
        settings.get(key).map_err(|error| failed(&error))
    }

    async fn factory_reset(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        self.allow(&header, Action::Reset).await?;
        self.core.reset(Reset::Factory).await;
        Ok(())
    }

    async fn production_reset(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        self.allow(&header, Action::Reset).await?;
        self.core.reset(Reset::Production).await;
        Ok(())
    }

    async fn exit(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        self.allow(&header, Action::Configure).await?;
        self.core.exit();
        Ok(())
    }

    fn get_channels(&self) -> Vec<String> {
        self.core.touch();
        let channels = self.core.channels().into_iter();
        let shown = channels.filter(|offered| offered.shown);
        shown.map(|offered| offered.name.to_string()).collect()
    }

    async fn set_channel(&self, #[zbus(header)] header: Header<'_>, channel: &str) -> Result<bool> {
        self.allow(&header, Action::Configure).await?;
        let chosen = self.core.set_channel(channel);
        Modern::changed(&self.core).await;
        chosen.map_err(|error| failed(&error))
    }

    async fn set_build(&self, #[zbus(header)] header: Header<'_>, build: i32) -> Result<()> {
        self.allow(&header, Action::Configure).await?;
        let build = u32::try_from(build)
            .map_err(|_| Error::InvalidArgs(format!("there is no build {build}")))?;
        let chosen = self.core.choose(None, Some(ImageVersion::new(build)));
        Modern::changed(&self.core).await;
        chosen.map_err(|error| failed(&error))
    }

    fn get_channel(&self) -> String {
        self.core.touch();
        let client = self.core.client();
        client.device.config.service.channel.to_string()
    }

    fn get_build(&self) -> i32 {
        self.core.touch();
        let build = self.core.client().device.config.service.build_number;
        i32::try_from(build.get()).unwrap_or(i32::MAX)
    }

    async fn supports_firmware_update(&self) -> bool {
        self.core.touch();
        aside(firmware::is_supported).await.unwrap_or_default()
    }

    async fn check_for_firmware_update(&self) -> Result<String> {
        self.core.touch();
        aside(firmware::check).await
    }

    async fn update_firmware(&self, #[zbus(header)] header: Header<'_>) -> Result<String> {
        self.allow(&header, Action::Apply).await?;
        aside(firmware::update).await
    }

    async fn reboot(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        self.allow(&header, Action::Apply).await?;
        self.core.reboot();
        Ok(())
    }

    #[zbus(signal)]
    async fn update_available_status(
        emitter: &SignalEmitter<'_>,
        is_available: bool,
        downloading: bool,
        available_version: &str,
        update_size: i32,
        last_update_date: &str,
        error_reason: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn download_started(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn update_progress(
        emitter: &SignalEmitter<'_>,
        percentage: i32,
        eta: f64,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn update_paused(emitter: &SignalEmitter<'_>, percentage: i32) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn update_downloaded(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn update_failed(
        emitter: &SignalEmitter<'_>,
        consecutive_failure_count: i32,
        last_reason: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn setting_changed(
        emitter: &SignalEmitter<'_>,
        key: &str,
        new_value: &str,
    ) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn applied(emitter: &SignalEmitter<'_>, status: bool) -> zbus::Result<()>;

    #[zbus(signal)]
    async fn rebooting(emitter: &SignalEmitter<'_>, status: bool) -> zbus::Result<()>;
}

//! Whether there is enough in the battery to apply an update: the setting `min_battery`, which the
//! original only kept.

use system_image_bus::{Battery, Kernel};
use zbus::Connection;

use crate::settings::Settings;

/// The battery is emptier than it may be, and nothing charges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the battery is at {percent} %, and updates are applied from {least} % on")]
pub struct TooEmpty {
    /// How full it is.
    pub percent: u8,
    /// How full it must be.
    pub least: u8,
}

impl TooEmpty {
    /// One line for the person at the keyboard.
    pub fn hint(&self) -> &'static str {
        "plug in the charger, or ask for less with `--set min_battery=PERCENT`"
    }
}

/// An error unless an update may be applied now. A device without battery always may.
pub async fn check(connection: Option<&Connection>, settings: &Settings) -> anyhow::Result<()> {
    // Nobody is asked, let alone started, for a setting that is not set.
    if let Some(least) = settings.min_battery()? {
        enough(now(connection).await, Some(least))?;
    }
    Ok(())
}

/// The battery as it is now, if there is one.
pub async fn now(connection: Option<&Connection>) -> Option<Battery> {
    Battery::now(connection, &Kernel::default()).await
}

/// An error if this battery is too empty. One that is being charged is full enough.
pub fn enough(battery: Option<Battery>, least: Option<u8>) -> Result<(), TooEmpty> {
    match (battery, least) {
        (Some(battery), Some(least)) if battery.discharging && battery.percent < least => {
            let percent = battery.percent;
            Err(TooEmpty { percent, least })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use system_image_bus::Source;

    use super::*;

    #[test]
    fn only_a_battery_that_is_emptier_than_asked_and_gets_emptier_is_too_empty() {
        let battery = |percent, discharging| {
            let source = Source::Kernel;
            Some(Battery {
                percent,
                discharging,
                source,
            })
        };
        for (battery, least, fine) in [
            (None, None, true),
            (None, Some(100), true),
            (battery(0, true), None, true),
            (battery(20, true), Some(20), true),
            (battery(19, true), Some(20), false),
            (battery(19, false), Some(20), true),
        ] {
            assert_eq!(
                enough(battery, least).is_ok(),
                fine,
                "{battery:?} {least:?}"
            );
        }
    }
}

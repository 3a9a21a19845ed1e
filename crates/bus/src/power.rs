//! How full the battery is.

use zbus::Connection;

use crate::call::Remote;
use crate::{Kernel, Source, presence};

const UPOWER: &str = "org.freedesktop.UPower";

/// The battery, or all of them taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Battery {
    /// How full it is, 0 to 100.
    pub percent: u8,
    /// Whether it gets emptier.
    pub discharging: bool,
    /// Who says so.
    pub source: Source,
}

impl Battery {
    /// The battery as it is now; none if the device has none.
    ///
    /// `UPower` is asked, and started if it can be. Where it is missing or does not answer, and where
    /// there is no bus, the kernel is.
    pub async fn now(connection: Option<&Connection>, kernel: &Kernel) -> Option<Self> {
        if let Some(connection) = connection
            && let Ok(true) = presence::reachable(connection, UPOWER).await
            && let Some(facts) = upower(connection).await
        {
            return from_upower(&facts);
        }
        from_kernel(&supplies(kernel))
    }
}

/// What `UPower` says about the battery that it shows to people.
#[derive(Debug)]
struct Shown {
    kind: u32,
    present: bool,
    percent: f64,
    state: u32,
    /// Whether the device runs on battery, which stands in for a state that is unknown.
    on_battery: bool,
}

async fn upower(connection: &Connection) -> Option<Shown> {
    let manager = Remote {
        connection,
        service: UPOWER,
        path: "/org/freedesktop/UPower",
        interface: UPOWER,
    };
    let device = Remote {
        path: "/org/freedesktop/UPower/devices/DisplayDevice",
        interface: "org.freedesktop.UPower.Device",
        ..manager
    };
    let shown = device.properties().await.ok()?;
    let all = manager.properties().await.ok()?;
    Some(Shown {
        kind: shown.get("Type")?,
        present: shown.get("IsPresent")?,
        percent: shown.get("Percentage")?,
        state: shown.get("State")?,
        on_battery: all.get("OnBattery").unwrap_or_default(),
    })
}

fn from_upower(shown: &Shown) -> Option<Battery> {
    const BATTERY: u32 = 2;
    const UPS: u32 = 3;
    if !shown.present || !matches!(shown.kind, BATTERY | UPS) {
        return None;
    }
    let discharging = match shown.state {
        // Charging, full, about to be charged.
        1 | 4 | 5 => false,
        // Discharging, empty, about to be discharged.
        2 | 3 | 6 => true,
        _ => shown.on_battery,
    };
    Some(Battery {
        percent: percent(shown.percent),
        discharging,
        source: Source::Service,
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 100; what is not a number becomes 0"
)]
fn percent(value: f64) -> u8 {
    // A limit that is compared with it must not be reached by rounding.
    value.clamp(0.0, 100.0) as u8
}

/// A power supply's files, as far as they matter.
#[derive(Clone, Debug, Default)]
struct Supply {
    kind: String,
    scope: String,
    present: String,
    capacity: String,
    status: String,
}

fn supplies(kernel: &Kernel) -> Vec<Supply> {
    const ALL: &str = "sys/class/power_supply";
    let supply = |name: &String| {
        let read = |file: &str| {
            let text = kernel.read(&format!("{ALL}/{name}/{file}"));
            text.unwrap_or_default()
        };
        Supply {
            kind: read("type"),
            scope: read("scope"),
            present: read("present"),
            capacity: read("capacity"),
            status: read("status"),
        }
    };
    kernel.list(ALL).iter().map(supply).collect()
}

fn from_kernel(supplies: &[Supply]) -> Option<Battery> {
    // The scope of a mouse's battery is `Device`.
    let ours = |supply: &&Supply| {
        supply.kind == "Battery" && supply.scope != "Device" && supply.present != "0"
    };
    let batteries = supplies.iter().filter(ours);
    let known = batteries.filter_map(|supply| Some((supply, supply.capacity.parse::<u32>().ok()?)));
    let known: Vec<_> = known.collect();
    let count = u32::try_from(known.len()).ok().filter(|count| *count > 0)?;
    let sum: u32 = known.iter().map(|(_, capacity)| *capacity.min(&100)).sum();
    Some(Battery {
        percent: u8::try_from(sum / count).ok()?,
        discharging: known
            .iter()
            .any(|(supply, _)| supply.status == "Discharging"),
        source: Source::Kernel,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shown_battery_counts_if_it_is_one() {
        let cases = [
            // kind, present, percent, state, on battery: percent, discharging
            ((2, true, 57.9, 2, true), Some((57, true))),
            ((2, true, 57.9, 1, true), Some((57, false))),
            ((3, true, 100.0, 4, false), Some((100, false))),
            ((2, true, 3.0, 0, true), Some((3, true))),
            ((2, true, f64::NAN, 0, false), Some((0, false))),
            ((2, true, 200.0, 5, false), Some((100, false))),
            ((2, false, 57.9, 2, true), None),
            ((1, true, 0.0, 0, false), None),
            ((0, false, 0.0, 0, false), None),
        ];
        for ((kind, present, percent, state, on_battery), expected) in cases {
            let shown = Shown {
                kind,
                present,
                percent,
                state,
                on_battery,
            };
            let got = from_upower(&shown).map(|battery| (battery.percent, battery.discharging));
            assert_eq!(got, expected, "{shown:?}");
        }
    }

    #[test]
    fn only_batteries_of_the_device_itself_count() {
        let supply =
            |kind: &str, scope: &str, present: &str, capacity: &str, status: &str| Supply {
                kind: kind.into(),
                scope: scope.into(),
                present: present.into(),
                capacity: capacity.into(),
                status: status.into(),
            };
        let phone = supply("Battery", "", "1", "40", "Discharging");
        let second = supply("Battery", "System", "", "90", "Full");
        let mouse = supply("Battery", "Device", "1", "5", "Discharging");
        let charger = supply("USB", "", "", "", "");
        let empty_bay = supply("Battery", "", "0", "0", "Unknown");
        let silent = supply("Battery", "", "1", "", "Charging");
        let cases: [(&[&Supply], _); 7] = [
            (&[], None),
            (&[&charger, &mouse], None),
            (&[&silent], None),
            (&[&empty_bay], None),
            (&[&charger, &phone, &mouse], Some((40, true))),
            (&[&second], Some((90, false))),
            (&[&phone, &second], Some((65, true))),
        ];
        for (supplies, expected) in cases {
            let supplies: Vec<_> = supplies.iter().map(|supply| (*supply).clone()).collect();
            let got = from_kernel(&supplies).map(|battery| (battery.percent, battery.discharging));
            assert_eq!(got, expected, "{supplies:?}");
        }
    }
}

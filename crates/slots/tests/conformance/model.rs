//! Any sequence of changes and boots gives what two variables and a counter would give.

use proptest::prelude::*;
use system_image_slots::{Boot, SlotName, Trial};

use crate::{Device, always, grub, slot, systemd};

const SLOTS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    TryOut(&'static str, u8),
    Confirm(&'static str),
    Abandon,
    Boot,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || prop::sample::select(&SLOTS[..]);
    let step = prop_oneof![
        3 => (name(), 1u8..5).prop_map(|(name, tries)| Step::TryOut(name, tries)),
        1 => name().prop_map(Step::Confirm),
        1 => Just(Step::Abandon),
        4 => Just(Step::Boot),
    ];
    prop::collection::vec(step, 1..16)
}

/// What the state is after a step, and what booted if it was a boot.
fn model(boot: &mut Boot, step: &Step) -> Option<SlotName> {
    match step {
        Step::TryOut(name, left) => {
            let (slot, left) = (slot(name), *left);
            boot.trial = (slot != boot.default).then_some(Trial { slot, left });
        }
        Step::Confirm(name) => *boot = always(name),
        Step::Abandon => boot.trial = None,
        Step::Boot => {
            let next = boot.next().clone();
            if let Some(trial) = &mut boot.trial {
                trial.left = trial.left.saturating_sub(1);
            }
            return Some(next);
        }
    }
    None
}

fn follows(device: &mut impl Device, steps: &[Step]) {
    let mut boot = always("a");
    for (count, step) in steps.iter().enumerate() {
        let booted = model(&mut boot, step);
        match step {
            Step::TryOut(name, tries) => device.control().try_out(&slot(name), *tries).unwrap(),
            Step::Confirm(name) => device.control().confirm(&slot(name)).unwrap(),
            Step::Abandon => device.control().abandon().unwrap(),
            Step::Boot => assert_eq!(device.boot(), booted.unwrap().as_str(), "step {count}"),
        }
        assert_eq!(device.control().read().unwrap(), boot, "after step {count}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn grub_follows_the_model(steps in steps()) {
        follows(&mut grub::Emulated::new(&SLOTS), &steps);
    }

    #[test]
    fn systemd_boot_follows_the_model(steps in steps()) {
        follows(&mut systemd::Emulated::new(&SLOTS), &steps);
    }
}

//! The work that changes the device, in pieces that can be repeated.
//!
//! Each piece is on the disk when it returns; what is done is noted by the caller.

use anyhow::Context;
use system_image_delta::Places;

use crate::data::mark::{Mark, remove_adb_keys, set_adb_keys};
use crate::data::{password, reset};
use crate::journal::Way;
use crate::plan::{Plan, Secret, Step};
use crate::prepare::{Live, Prepared, apply};
use crate::run::{Run, Told};
use system_image_formats::name::FileName;

/// Longest file of adb keys that is read, in bytes.
const MAX_ADB_KEYS: u64 = 64 << 10;

/// A piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Remove user data.
    Wipe,
    /// Place the payload for user data of the tarball of this number.
    Payload(usize),
    /// Make the system empty.
    Format,
    /// Lay the tarball of this number over the system.
    Update(usize),
    /// Set the password in the system.
    Password(Secret),
    /// Switch a mark.
    Mark(Mark, bool),
    /// Let keys use adb, or none.
    AdbKeys(Option<FileName>),
    /// Write the images for partitions, except for a recovery's.
    Images,
    /// Put the new system in the place of the old one.
    Commit,
    /// Write the recovery's image.
    Recovery,
    /// Remove what waited, and put everything away.
    PutAway,
}

/// The work of a plan, in order.
pub fn of(plan: &Plan, way: Way) -> Vec<Work> {
    let mut work = Vec::new();
    let mut number = 0;
    for step in &plan.steps {
        match (step, way) {
            (Step::Wipe, _) => {
                work.push(Work::Wipe);
                // A device that was reset offers its files to a computer.
                work.push(Work::Mark(Mark::Mtp, true));
            }
            (Step::Mark(mark, on), _) => work.push(Work::Mark(*mark, *on)),
            (Step::AdbKeys(file), _) => work.push(Work::AdbKeys(file.clone())),
            (Step::Update(_), _) => {
                work.push(match way {
                    Way::Prepared => Work::Payload(number),
                    Way::Direct => Work::Update(number),
                });
                number += 1;
            }
            (Step::Format, Way::Direct) => work.push(Work::Format),
            (Step::Password(secret), Way::Direct) => work.push(Work::Password(secret.clone())),
            _ => {}
        }
    }
    if plan.changes_system() {
        work.push(Work::Images);
        if way == Way::Prepared {
            work.push(Work::Commit);
        }
        work.push(Work::Recovery);
    }
    work
}

/// How many tarballs are among the first `done` pieces of direct work.
pub fn updates_done(plan: &Plan, done: usize) -> usize {
    let work = of(plan, Way::Direct);
    let done = work.iter().take(done);
    done.filter(|piece| matches!(piece, Work::Update(_)))
        .count()
}

/// Whether the new system was put in place by the first `done` pieces of work.
pub fn is_committed(plan: &Plan, done: usize) -> bool {
    let work = of(plan, Way::Prepared);
    let mut done = work.iter().take(done);
    done.any(|piece| *piece == Work::Commit)
}

/// Does a piece.
pub fn take(
    run: &Run<'_>,
    plan: &Plan,
    prepared: &mut Prepared,
    piece: &Work,
    told: &mut Told<'_>,
) -> anyhow::Result<()> {
    let settings = run.settings;
    let data = prepared.stage.data();
    match piece {
        Work::Wipe => told.step("removing user data", |_| {
            reset::wipe(data, settings)
                .and_then(|()| data.sync())
                .context("cannot remove user data")?;
            Ok(((), 0))
        }),
        Work::Mark(mark, on) => {
            let set = mark.set(data, *on);
            set.with_context(|| format!("cannot switch {mark:?} on user data"))
        }
        Work::AdbKeys(None) => remove_adb_keys(data).context("cannot remove adb keys"),
        Work::AdbKeys(Some(file)) => {
            let keys = run.drop_box.read(file, MAX_ADB_KEYS)?;
            set_adb_keys(data, &keys, settings.privileges).context("cannot write adb keys")
        }
        Work::Payload(number) => Ok(prepared.stage.place_payload(*number)?),
        Work::Format => told.step("formatting the system", |_| {
            let live = live(&mut prepared.live)?;
            put_away(live)?;
            Ok((live.storage.format()?, 0))
        }),
        Work::Update(number) => update(run, prepared, *number, told),
        Work::Password(secret) => {
            let root = mounted(live(&mut prepared.live)?)?;
            password::set(root, &settings.user, &secret.0)
                .and_then(|()| root.sync())
                .context("cannot set the password in the system")
        }
        Work::Images => images(prepared, false, told),
        Work::Recovery => images(prepared, true, told),
        Work::Commit => told.step("putting the new system in place", |_| {
            let deployment = prepared.deployment.as_mut();
            let deployment = deployment.context("no new system was prepared")?;
            Ok((deployment.commit()?, 0))
        }),
        Work::PutAway => {
            if let Some(live) = &mut prepared.live {
                put_away(live)?;
            }
            if let Some(deployment) = &mut prepared.deployment {
                told.step("putting the old system away", |_| {
                    Ok((deployment.finish()?, 0))
                })?;
            }
            if plan.changes_system() {
                prepared.stage.clear()?;
            }
            Ok(())
        }
    }
}

fn update(
    run: &Run<'_>,
    prepared: &mut Prepared,
    number: usize,
    told: &mut Told<'_>,
) -> anyhow::Result<()> {
    let live = live(&mut prepared.live)?;
    mounted(live)?;
    let tarball = live.tarballs.get(number).and_then(Option::as_ref);
    let tarball = tarball.context("a tarball is missing")?;
    let root = live.root.as_ref().context("the system is not mounted")?;
    let stage = &prepared.stage;
    told.step(&format!("unpacking {}", tarball.name()), |told| {
        let places = Places {
            system: root,
            data: Some(stage.data()),
        };
        // It was unpacked once before, to be checked.
        let bytes = apply(run, tarball, places, stage, told, 1)?;
        // Before anything says that it is done.
        root.sync().context("cannot write the system to the disk")?;
        stage
            .data()
            .sync()
            .context("cannot write user data to the disk")?;
        Ok(((), bytes))
    })
}

fn images(prepared: &Prepared, recovery: bool, told: &mut Told<'_>) -> anyhow::Result<()> {
    for name in prepared.stage.images()? {
        if name.starts_with("recovery") == recovery {
            told.step(&format!("writing the partition {name}"), |_| {
                Ok(((), prepared.stage.write_image(&name)?))
            })?;
        }
    }
    Ok(())
}

fn live(live: &mut Option<Live>) -> anyhow::Result<&mut Live> {
    live.as_mut()
        .context("the system is not there to be changed")
}

fn mounted(live: &mut Live) -> anyhow::Result<&system_image_delta::Root> {
    let root = match live.root.take() {
        Some(root) => root,
        None => live.storage.mount()?,
    };
    Ok(live.root.insert(root))
}

fn put_away(live: &mut Live) -> anyhow::Result<()> {
    if let Some(root) = live.root.take() {
        live.storage.unmount(root)?;
    }
    Ok(())
}

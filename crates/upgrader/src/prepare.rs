//! Everything that can be done before the device is changed: keyrings, signatures, and a new system
//! beside the old one where there is room; else every archive is read to its end.

use anyhow::Context;
use system_image_delta::{Places, Root};
use system_image_formats::channel_ini::ChannelIni;
use system_image_report::Size;

use crate::config::{Settings, Way as Wanted};
use crate::data::password;
use crate::deploy::{self, Deployment, State, slot};
use crate::installed::InstalledSystem;
use crate::journal::{Begun, Way};
use crate::keyrings;
use crate::log;
use crate::plan::Plan;
use crate::run::{Run, Told, WITHOUT_SYSTEM, is_for_want_of_room};
use crate::stage::{self, CHANNEL_INI, MAX_CHANNEL_INI, Stage, Taker};
use crate::storage::{self, Storage};
use crate::tarball::Tarball;
use crate::version;

/// What the work is done with.
#[derive(Debug)]
pub struct Prepared {
    /// How the changes are made.
    pub way: Way,
    /// The slot that is changed.
    pub slot: Option<String>,
    /// What waits among user data.
    pub stage: Stage,
    /// The new system, if one was prepared.
    pub deployment: Option<Box<dyn Deployment>>,
    /// The system itself, if it is changed directly.
    pub live: Option<Live>,
}

/// The system itself, and the tarballs to lay over it.
#[derive(Debug)]
pub struct Live {
    /// Where it is.
    pub storage: Box<dyn Storage>,
    /// It, while it is mounted.
    pub root: Option<Root>,
    /// Those of the command file, in order; on continuing, `None` for what is done already.
    pub tarballs: Vec<Option<Tarball>>,
}

impl Prepared {
    /// After a failure: leaves nothing mounted, and everything as it is.
    pub fn put_away(&mut self) {
        if let Some(live) = &mut self.live
            && let Some(root) = live.root.take()
            && let Err(error) = live.storage.unmount(root)
        {
            log(&format!("the system stays mounted: {error}"));
        }
        if let Some(deployment) = &mut self.deployment
            && let Err(error) = deployment.put_away()
        {
            log(&format!("the new system stays mounted: {error}"));
        }
    }
}

/// Prepares a new command file, and begins. An error leaves the device as it was.
pub fn prepare(run: &Run<'_>, plan: &Plan, told: &mut Told<'_>) -> anyhow::Result<Prepared> {
    prepared(run, plan, told).inspect_err(|_| {
        let cleared = stage(run.settings, None).and_then(|stage| Ok(stage.clear()?));
        if let Err(error) = cleared {
            log(&format!("what was prepared stays: {error:#}"));
        }
    })
}

fn prepared(run: &Run<'_>, plan: &Plan, told: &mut Told<'_>) -> anyhow::Result<Prepared> {
    let settings = run.settings;
    let slot = match settings.slots() {
        Some(slots) if plan.changes_system() => Some(slot::target(slots)?.to_string()),
        _ => None,
    };
    let stage = self::stage(settings, slot.clone())?;
    stage.clear_content()?;
    for name in plan.files() {
        run.drop_box.file(name)?;
    }
    if !plan.changes_system() {
        stage.clear()?;
        // Keyrings that are named must be good all the same.
        load_keyrings(run, plan)?;
        run.journal
            .begin(WITHOUT_SYSTEM, None)
            .context("cannot begin")?;
        return Ok(Prepared {
            way: WITHOUT_SYSTEM,
            slot,
            stage,
            deployment: None,
            live: None,
        });
    }
    let tarballs = verify(run, plan, 0, told)?;
    let mut tarballs: Vec<Tarball> = tarballs.into_iter().flatten().collect();
    patch(settings, &mut tarballs, &stage, told)?;
    if let Some(mut deployment) = deploy::prepared(settings, plan.is_full())? {
        let prepared = beside(run, plan, &tarballs, &mut *deployment, &stage, told);
        match prepared {
            Ok(()) => {
                let begun = run.journal.begin(Way::Prepared, slot.clone());
                if let Err(error) = begun.context("cannot begin") {
                    if let Err(error) = deployment.abandon() {
                        log(&format!("what was prepared stays: {error}"));
                    }
                    return Err(error);
                }
                return Ok(Prepared {
                    way: Way::Prepared,
                    slot,
                    stage,
                    deployment: Some(deployment),
                    live: None,
                });
            }
            Err(error) => {
                let abandoned = deployment.abandon();
                stage.clear_content()?;
                let is_hopeless = match settings.way {
                    Wanted::Auto => settings.slots().is_some() || !can_be_direct(plan, &error),
                    Wanted::Beside | Wanted::Direct => true,
                };
                if is_hopeless {
                    return Err(error);
                }
                abandoned?;
                log(&format!("the system is changed directly: {error:#}"));
            }
        }
    }
    directly(run, plan, tarballs, stage, told)
}

/// Whether the system itself can be changed where a new one cannot be prepared: for want of room, or
/// because there is no system that could be mounted, for a full installation.
fn can_be_direct(plan: &Plan, error: &anyhow::Error) -> bool {
    let is_unusable = || {
        error.chain().any(|cause| {
            matches!(
                cause.downcast_ref::<deploy::DeployError>(),
                Some(deploy::DeployError::Storage(
                    storage::SystemError::Io { .. } | storage::SystemError::Program { .. }
                ))
            )
        })
    };
    is_for_want_of_room(error) || (plan.is_full() && is_unusable())
}

/// Whether the new system of an interrupted update is not there, and nothing was put in place: the work
/// can only be done from its start.
pub fn is_lost(run: &Run<'_>, plan: &Plan, begun: &Begun) -> anyhow::Result<bool> {
    let is_committed = crate::work::is_committed(plan, begun.done);
    if begun.way == Way::Direct || !plan.changes_system() || is_committed {
        return Ok(false);
    }
    let Some(mut deployment) = deploy::prepared(run.settings, plan.is_full())? else {
        return Ok(false);
    };
    let state = deployment.state();
    deployment.put_away()?;
    Ok(state? == State::Nothing)
}

/// Makes everything ready again for work that an earlier run began.
pub fn again(
    run: &Run<'_>,
    plan: &Plan,
    begun: &Begun,
    told: &mut Told<'_>,
) -> anyhow::Result<Prepared> {
    let settings = run.settings;
    let stage = self::stage(settings, begun.slot.clone())?;
    let mut prepared = Prepared {
        way: begun.way,
        slot: begun.slot.clone(),
        stage,
        deployment: None,
        live: None,
    };
    if !plan.changes_system() {
        return Ok(prepared);
    }
    if begun.way == Way::Prepared {
        let mut deployment = deploy::prepared(settings, plan.is_full())?
            .context("the settings do not say any more where the new system is")?;
        let slot = begun.slot.as_deref().map(str::parse).transpose();
        deployment.resume(slot.context("the journal names no slot")?);
        prepared.deployment = Some(deployment);
        return Ok(prepared);
    }
    let storage = deploy::live(settings)?.context("the running slot cannot be changed")?;
    storage.check()?;
    let done = crate::work::updates_done(plan, begun.done);
    let mut tarballs = verify(run, plan, done, told)?;
    for (number, tarball) in tarballs.iter_mut().enumerate() {
        if let Some(patch) = tarball
            .as_mut()
            .filter(|tarball| tarball.patched_len().is_some())
        {
            patch.take_made(prepared.stage.archive(number)?);
        }
    }
    prepared.live = Some(Live {
        storage,
        root: None,
        tarballs,
    });
    Ok(prepared)
}

/// Removes what was prepared for work that is given up. Whether the system is as it was.
pub fn give_up(run: &Run<'_>, plan: &Plan, begun: &Begun) -> anyhow::Result<bool> {
    let stage = stage(run.settings, begun.slot.clone())?;
    if begun.way == Way::Direct {
        return Ok(false);
    }
    if let Some(mut deployment) = deploy::prepared(run.settings, plan.is_full())?
        && plan.changes_system()
    {
        if deployment.state()? == State::Committing {
            // It must be put in place in the end, by whoever finds out why it could not be.
            return Ok(false);
        }
        deployment.abandon()?;
    }
    stage.clear()?;
    Ok(!plan.wipes())
}

fn stage(settings: &Settings, slot: Option<String>) -> anyhow::Result<Stage> {
    let data = Root::open(settings.data.as_std_path())
        .with_context(|| format!("cannot open user data `{}`", settings.data))?;
    Ok(Stage::new(data, settings.partitions.clone(), slot))
}

fn load_keyrings(run: &Run<'_>, plan: &Plan) -> anyhow::Result<system_image_trust::Chain> {
    let settings = run.settings;
    Ok(keyrings::load(
        &settings.archive_master,
        &plan.keyrings,
        &run.drop_box,
        &settings.data,
        settings.device.clone(),
        run.now,
    )?)
}

/// Verifies the tarballs after the first `done`; `None` for those.
fn verify(
    run: &Run<'_>,
    plan: &Plan,
    done: usize,
    told: &mut Told<'_>,
) -> anyhow::Result<Vec<Option<Tarball>>> {
    let chain = load_keyrings(run, plan)?;
    if plan.updates().nth(done).is_none() {
        return Ok(plan.updates().map(|_| None).collect());
    }
    let signers = chain.index_signers()?;
    let mut tarballs = Vec::new();
    for (number, signed) in plan.updates().enumerate() {
        if number < done {
            tarballs.push(None);
            continue;
        }
        let what = format!("verifying {}", signed.file());
        let tarball = told.step(&what, |_| {
            Ok((Tarball::verify(&run.drop_box, signed, &signers)?, 0))
        })?;
        tarballs.push(Some(tarball));
    }
    Ok(tarballs)
}

/// Has patches make their archives out of the installed system, as long as it is untouched.
fn patch(
    settings: &Settings,
    tarballs: &mut [Tarball],
    stage: &Stage,
    told: &mut Told<'_>,
) -> anyhow::Result<()> {
    let numbered = tarballs.iter().enumerate();
    let patches: Vec<_> = numbered
        .filter_map(|(number, tarball)| tarball.patched_len().map(|_| number))
        .collect();
    stage.clear_archives(&patches)?;
    if patches.is_empty() {
        return Ok(());
    }
    let storage = installed_storage(settings)?;
    let root = storage.look()?;
    let mut make = || -> anyhow::Result<()> {
        let installed = InstalledSystem::new(settings, &root)?;
        for (number, tarball) in tarballs.iter_mut().enumerate() {
            let Some(len) = tarball.patched_len() else {
                continue;
            };
            let what = format!("applying {} to the installed system", tarball.name());
            told.step(&what, |_| {
                let archive = stage.archive_to_make(number, len)?;
                let left = tarball.make(&installed, archive, settings.patch_limits)?;
                if left > 0 {
                    let name = tarball.name();
                    log(&format!("{name}: an earlier run had made {left} bytes"));
                }
                Ok(((), len - left))
            })?;
        }
        Ok(())
    };
    let ended = make();
    storage.unmount(root)?;
    ended
}

/// Where the installed system is, to be looked at.
fn installed_storage(settings: &Settings) -> anyhow::Result<Box<dyn Storage>> {
    Ok(match settings.slots() {
        Some(slots) => slot::base(slots)?,
        None => deploy::live(settings)?.context("there is no system")?,
    })
}

/// Prepares a new system that is not live.
fn beside(
    run: &Run<'_>,
    plan: &Plan,
    tarballs: &[Tarball],
    deployment: &mut dyn Deployment,
    stage: &Stage,
    told: &mut Told<'_>,
) -> anyhow::Result<()> {
    let settings = run.settings;
    deployment.check()?;
    let installed = installed(settings);
    let bytes = tarballs
        .iter()
        .filter_map(|tarball| tarball.plain_size)
        .sum();
    told.step("beginning a new system beside the old one", |_| {
        Ok((deployment.open(plan.is_full(), bytes)?, 0))
    })?;
    for (number, tarball) in tarballs.iter().enumerate() {
        let payload = stage.payload(number)?;
        let what = format!("unpacking {}", tarball.name());
        told.step(&what, |told| {
            let places = Places {
                system: deployment.tree(),
                data: Some(&payload),
            };
            // The only time that it is unpacked.
            let bytes = apply(run, tarball, places, stage, told, 2)?;
            Ok(((), bytes))
        })?;
    }
    if let Some(slots) = settings.slots()
        && !plan.is_full()
        && stage.has_slotted()
    {
        let running = slot::running(slots)?;
        told.step("copying partitions to the other slot", |_| {
            Ok((stage.mirror(running.as_str())?, 0))
        })?;
    }
    if let Some(secret) = plan.password() {
        password::set(deployment.tree(), &settings.user, &secret.0)
            .context("cannot set the password in the new system")?;
    }
    let offered = read_channel_ini(deployment.tree());
    check_version(settings, plan, installed.as_ref(), offered.as_ref())?;
    stage.check_images()?;
    stage.sync()?;
    told.step("writing the new system to the disk", |_| {
        Ok((deployment.seal()?, 0))
    })
}

/// Lays a tarball over trees, and logs what it did. Returns the bytes written.
///
/// `share` is how often its bytes count for the progress, to which each tarball adds twice.
pub fn apply(
    run: &Run<'_>,
    tarball: &Tarball,
    places: Places<'_>,
    stage: &Stage,
    told: &mut Told<'_>,
    share: u64,
) -> anyhow::Result<u64> {
    let settings = run.settings;
    let mut taker = Taker::new(stage, tarball.name());
    let mut read = |bytes| told.progress.add(share * bytes);
    let applied = tarball.apply(
        places,
        settings.limits,
        settings.privileges,
        &mut taker,
        &mut read,
    )?;
    let name = tarball.name();
    log(&format!(
        "{name}: placed {} members with {} bytes, removed {}",
        applied.members, applied.bytes, applied.removed
    ));
    if applied.skipped != Default::default() {
        log(&format!(
            "{name}: left out without root: {} owners, {} devices, {} attributes",
            applied.skipped.owners, applied.skipped.devices, applied.skipped.xattrs
        ));
    }
    Ok(applied.bytes)
}

/// Checks all archives to their ends, for a system that will be changed directly.
fn directly(
    run: &Run<'_>,
    plan: &Plan,
    tarballs: Vec<Tarball>,
    stage: Stage,
    told: &mut Told<'_>,
) -> anyhow::Result<Prepared> {
    let settings = run.settings;
    let storage = deploy::live(settings)?.context("the running slot cannot be changed")?;
    storage.check()?;
    let installed = installed(settings);
    let mut offered = None;
    let capacity = storage.capacity().unwrap_or_else(|error| {
        log(&format!("not known how much fits: {error}"));
        None
    });
    for tarball in &tarballs {
        let what = format!("checking {}", tarball.name());
        told.step(&what, |told| {
            let mut taker = Taker::new(&stage, tarball.name());
            let mut read = |bytes| told.progress.add(bytes);
            let contents = tarball.check(settings.limits, &mut taker, &mut read)?;
            offered = taker.channel_ini.or(offered.take());
            // Only each by itself: the next one may replace the files of the one before.
            if let Some(capacity) = capacity.filter(|capacity| contents.solid_bytes > *capacity) {
                return Err(NoRoom {
                    name: tarball.name(),
                    bytes: Size(contents.solid_bytes),
                    capacity: Size(capacity),
                }
                .into());
            }
            Ok(((), 0))
        })?;
    }
    check_version(settings, plan, installed.as_ref(), offered.as_ref())?;
    stage.check_images()?;
    stage.sync()?;
    run.journal
        .begin(Way::Direct, None)
        .context("cannot begin")?;
    Ok(Prepared {
        way: Way::Direct,
        slot: None,
        stage,
        deployment: None,
        live: Some(Live {
            storage,
            root: None,
            tarballs: tarballs.into_iter().map(Some).collect(),
        }),
    })
}

fn check_version(
    settings: &Settings,
    plan: &Plan,
    installed: Option<&ChannelIni>,
    offered: Option<&ChannelIni>,
) -> anyhow::Result<()> {
    let is_allowed = settings.downgrade || plan.wipes();
    Ok(version::check(
        &settings.device,
        installed,
        offered,
        is_allowed,
    )?)
}

/// What the installed system says of itself. One that cannot be looked at says nothing.
fn installed(settings: &Settings) -> Option<ChannelIni> {
    let look = || -> anyhow::Result<Option<ChannelIni>> {
        let storage = installed_storage(settings)?;
        let root = storage.look()?;
        let ini = read_channel_ini(&root);
        storage.unmount(root)?;
        Ok(ini)
    };
    look().unwrap_or_else(|error| {
        log(&format!(
            "the installed system cannot be looked at: {error:#}"
        ));
        None
    })
}

fn read_channel_ini(root: &Root) -> Option<ChannelIni> {
    match root.read_file(CHANNEL_INI, MAX_CHANNEL_INI) {
        Ok(bytes) => stage::channel_ini(&bytes?),
        Err(error) => {
            log(&format!("cannot read `{CHANNEL_INI}`: {error}"));
            None
        }
    }
}

/// A tarball that cannot fit. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
#[error("`{name}` has {bytes} of files, the system's file system only {capacity}")]
pub struct NoRoom {
    name: String,
    bytes: Size,
    capacity: Size,
}

//! The journey itself.

use std::fs;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_report::Size;

use crate::compare::{Allowed, compare};
use crate::device::Device;
use crate::images::{self, Scale};
use crate::refusals;
use crate::server::Server;
use crate::table::Table;

/// Runs it below `target`, with the programs of `programs`.
pub fn run(target: &Utf8Path, programs: &Utf8Path, scale: Scale) -> anyhow::Result<()> {
    let (name, key_type, level) = match scale {
        Scale::Minimal => ("minimal", "rsa4096", 2),
        Scale::Small => ("small", "ed25519", 1),
    };
    let [first, second] = images::build(&target.join("demo").join(name), scale)?;
    // A run of its own each time; the images stay.
    let lab = target.join("demo").join(format!("{name}-run"));
    if lab.exists() {
        fs::remove_dir_all(&lab).with_context(|| format!("cannot empty `{lab}`"))?;
    }
    let started = Instant::now();
    let mut table = Table::default();

    say("setting up a server");
    let (server, cost) = Server::set_up(&lab.join("server"), programs, key_type, level)?;
    table.step("server: keys and tree", cost);
    server.make_patches()?;
    let _serving = server.serve()?;
    let trust_root = server.www().join("gpg/archive-master.tar.xz");
    let device = Device::new(&lab.join("device"), programs, &trust_root)?;

    say("publishing image 1");
    let (version, cost) = server.publish(&first)?;
    ensure!(version == "1", "image 1 has version {version}");
    let published = server.payload_bytes()?;
    table.published("server: publish image 1", published, cost);

    say(&format!("installing image 1 on {}", device.describe()));
    device.configure(server.address, "0", false)?;
    let cost = device.update()?;
    table.downloaded("client: full image 1", device.fetched()?, cost);
    table.step("upgrader: install image 1", device.upgrade()?);
    same(&device, &first, "1")?;

    say("publishing image 2");
    let (version, cost) = server.publish(&second)?;
    ensure!(version == "2", "image 2 has version {version}");
    let more = server.payload_bytes()? - published;
    table.published("server: publish image 2", more, cost);
    let checked = server.check_with_others()?;
    println!("gpgv, xz and tar accept all {checked} signed files that are published");

    device.configure(server.address, "1", false)?;
    print!("the client says: {}", device.dry_run()?);
    refuse(&server, &device)?;

    say("updating to image 2");
    device.empty_drop_box()?;
    let cost = device.update()?;
    let delta = device.fetched()?;
    let full = fs::metadata(&second)?.len();
    table.downloaded("client: delta 1 to 2", delta, cost);
    ensure!(
        delta < more,
        "the client took the full image, not the delta"
    );
    // A device whose upgrader applies patches takes the patch instead.
    device.configure(server.address, "1", true)?;
    device.empty_drop_box()?;
    let cost = device.update()?;
    let fetched = device.fetched()?;
    table.downloaded("client: patch 1 to 2", fetched, cost);
    ensure!(fetched < delta, "the client took the delta, not the patch");
    table.step("upgrader: apply patch 1 to 2", device.upgrade()?);
    same(&device, &second, "2")?;

    table.print();
    println!(
        "\nimage 2 is {} unpacked; its delta {}; the update took {}; the whole journey {:.0} s",
        Size(full),
        Size(delta),
        Size(fetched),
        started.elapsed().as_secs_f64()
    );
    drop(device);
    fs::remove_dir_all(&lab).with_context(|| format!("cannot remove `{lab}`"))
}

fn refuse(server: &Server, device: &Device) -> anyhow::Result<()> {
    say("three things that must not hurt");
    println!(
        "tampered payload refused: {}",
        refusals::tampered_payload(server, device)?
    );
    println!(
        "blacklisted key refused: {}",
        refusals::blacklisted_key(server, device)?
    );
    let (sent, fetched) = refusals::truncated_download(server, device)?;
    println!(
        "cut download resumed: {} crossed the network for {} of payloads, signatures and metadata",
        Size(sent),
        Size(fetched)
    );
    ensure!(
        device.installed()? == "1",
        "a refused update changed the device"
    );
    Ok(())
}

/// The device must be what the archive is.
fn same(device: &Device, archive: &Utf8PathBuf, version: &str) -> anyhow::Result<()> {
    let installed = device.installed()?;
    ensure!(
        installed == version,
        "version {installed} is installed, not {version}"
    );
    let allowed = Allowed {
        unprivileged: device.is_unprivileged(),
    };
    let (entries, differences) = device.with_system(|system| compare(archive, system, allowed))?;
    for difference in differences.iter().take(20) {
        eprintln!("{difference}");
    }
    if !differences.is_empty() {
        bail!(
            "{} of {entries} entries differ from `{archive}`",
            differences.len()
        );
    }
    println!("all {entries} entries of image {version} are on the device as in its archive");
    Ok(())
}

fn say(what: &str) {
    println!("\n== {what}");
}

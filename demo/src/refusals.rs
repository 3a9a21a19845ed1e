//! Three things that must not hurt: a tampered payload, an index by a blacklisted key, a download
//! that is cut.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Output;

use anyhow::{Context, ensure};
use camino::Utf8PathBuf;
use system_image_formats::keyring::{KeyringInfo, KeyringType};
use system_image_trust::{Keyring, SecretKey};

use crate::device::Device;
use crate::proxy::Proxy;
use crate::server::{CHANNEL, DEVICE, Server};

/// The first line of a refusal's cause, for the reader of the demo.
fn reason(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let causes: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("caused by: "))
        .collect();
    causes.join(": ")
}

/// Changes one byte of the newest delta on the server: the client must refuse it and leave
/// nothing for the upgrader.
pub fn tampered_payload(server: &Server, device: &Device) -> anyhow::Result<String> {
    let delta = find_delta(server)?;
    let good = fs::read(&delta)?;
    let file = fs::OpenOptions::new().write(true).open(&delta)?;
    let at = good.len() / 2;
    file.write_all_at(&[good[at] ^ 1], at as u64)?;
    device.empty_drop_box()?;
    // Without the filter it would take the full image instead.
    let output = device.try_update(&["--filter", "delta"]);
    fs::write(&delta, &good)?;
    let output = output?;
    ensure!(!output.status.success(), "a tampered payload was accepted");
    ensure!(
        !device.drop_box().join("ubuntu_command").exists(),
        "it reached the upgrader"
    );
    Ok(reason(&output))
}

/// Publishes a blacklist with the key that signed everything: the client must refuse the channels.
pub fn blacklisted_key(server: &Server, device: &Device) -> anyhow::Result<String> {
    let key = |role: KeyringType| -> anyhow::Result<SecretKey> {
        let path = server
            .root
            .join(format!("secret/gpg/keys/{role}/secret-key.asc"));
        Ok(SecretKey::from_armored(&fs::read(path)?)?)
    };
    let archive = Keyring {
        info: KeyringInfo::new(KeyringType::Blacklist),
        certificates: key(KeyringType::ImageSigning)?.certificate().clone(),
    }
    .pack();
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()?
        .as_secs()
        .try_into()?;
    let signature = key(KeyringType::ImageMaster)?.sign(&archive[..], now)?;
    let place = server.www().join("gpg/blacklist.tar.xz");
    let signature_place = format!("{place}.asc");
    fs::write(&place, archive)?;
    fs::write(&signature_place, signature)?;
    let output = device.try_update(&[]);
    fs::remove_file(place)?;
    fs::remove_file(signature_place)?;
    let output = output?;
    ensure!(
        !output.status.success(),
        "an index signed by a blacklisted key was accepted"
    );
    let reason = reason(&output);
    ensure!(
        reason.contains("blacklist"),
        "it was refused for another reason: {reason}"
    );
    Ok(reason)
}

/// Cuts the connection in the middle of the delta: the client must go on where it was. Returns the
/// bytes that crossed the network and those that are there in the end.
pub fn truncated_download(server: &Server, device: &Device) -> anyhow::Result<(u64, u64)> {
    let delta = fs::metadata(find_delta(server)?)?.len();
    let proxy = Proxy::start(server.address, delta / 2)?;
    device.empty_drop_box()?;
    device.configure(proxy.address(), "1", false)?;
    let output = device.try_update(&[]);
    device.configure(server.address, "1", false)?;
    let output = output?;
    ensure!(proxy.has_cut(), "the download was too short to be cut");
    ensure!(
        output.status.success(),
        "the download was not resumed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let fetched = device.fetched()?;
    // What was sent before the cut may be lost in a buffer, but not fetched twice.
    ensure!(
        proxy.sent() < fetched + delta / 2,
        "{} bytes crossed the network for {fetched}",
        proxy.sent()
    );
    Ok((proxy.sent(), fetched))
}

fn find_delta(server: &Server) -> anyhow::Result<Utf8PathBuf> {
    let pool = server.www().join("pool");
    for entry in pool.read_dir_utf8()? {
        let path = entry?.path().to_owned();
        if path
            .file_name()
            .is_some_and(|name| name.contains(".delta-"))
            && path.extension() == Some("xz")
        {
            return Ok(path);
        }
    }
    None.with_context(|| format!("no delta for `{DEVICE}` in `{CHANNEL}`"))
}

//! The `cdimage` family: builds on the disk, one directory each (server spec, section 13.2).
//!
//! The checksums that lie beside the files name the payload and are checked while it is read.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, bail, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_delta_build::{Edits, Form};
use system_image_durable::present;
use system_image_formats::checksum::Sha256;
use system_image_formats::hash::Hashing;
use system_image_report::Progress;

use super::{Job, Produced, digest, item, known, pool_path, store};
use crate::android;
use crate::config::{Cdimage, Import};
use crate::input::{self, shortened};
use crate::payload::canonical;
use crate::rootfs;

/// The name of the file with the checksums.
const SUMS: &str = "SHA256SUMS";

pub(super) fn produce(
    job: Job<'_>,
    kind: Cdimage,
    directory: &Utf8Path,
    series: &str,
    import: Import,
    product: &str,
) -> anyhow::Result<Produced> {
    let names = names(kind, job.device.as_str(), series, product);
    let Some(build) = newest(directory, &names, import)? else {
        return Ok(Produced::NotYet(format!(
            "no build in `{directory}` has {}",
            names.join(" and ")
        )));
    };
    let version = build.place.file_name().unwrap_or_default().to_owned();
    let (generator, key, prefix) = match kind {
        Cdimage::Ubuntu => ("cdimage-ubuntu", "ubuntu", "ubuntu"),
        Cdimage::Custom => ("cdimage-custom", "custom", "custom"),
        Cdimage::DeviceRaw => ("cdimage-device-raw", "raw-device", "device"),
        Cdimage::Device => ("cdimage-device", "device", "device"),
    };
    let hash = match &build.sums[..] {
        [one] => *one,
        several => {
            let text: Vec<_> = several.iter().map(ToString::to_string).collect();
            digest(&text.join("/"))
        }
    };
    let path = pool_path(prefix, &hash)?;
    if let Some(found) = known(job.tree, &path)? {
        return Ok(found);
    }
    let detail = item(key, &version)?;
    let mut more = vec![
        ("version", version.clone().into()),
        ("series", series.into()),
    ];
    if matches!(kind, Cdimage::Device | Cdimage::DeviceRaw) {
        more.push(("device", job.device.as_str().into()));
    }
    let labels: &[(&str, &str)] = match kind {
        Cdimage::Ubuntu => &[("rootfs_path", "rootfs_checksum")],
        Cdimage::Custom => &[("custom_path", "custom_checksum")],
        Cdimage::DeviceRaw => &[("raw_device_path", "raw_device_checksum")],
        Cdimage::Device => &[
            ("boot_path", "boot_checksum"),
            ("recovery_path", "recovery_checksum"),
            ("system_path", "system_checksum"),
        ],
    };
    for ((label, checksum), (file, sum)) in labels.iter().zip(build.files.iter().zip(&build.sums)) {
        more.push((label, file.as_str().into()));
        more.push((checksum, sum.to_string().into()));
    }
    let tar = match (kind, &build.files[..]) {
        (Cdimage::Device, files) => {
            for (file, sum) in files.iter().zip(&build.sums) {
                check(file, *sum)?;
            }
            let [boot, recovery, system] = files else {
                bail!("a device has three files");
            };
            android::device_tarball(job.tree, boot, recovery, system)?
        }
        (Cdimage::Ubuntu, _) => {
            let android = matches!(product, "touch" | "pd");
            let edits = rootfs::edits(product, android);
            unpacked(job, &build, Form::Rootfs, &edits)?
        }
        _ => unpacked(job, &build, Form::Payload, &Edits::default())?,
    };
    store(job.tree, &path, tar, generator, detail, &more)
}

/// The archive of a build in canonical form, if it is what the checksums say.
fn unpacked(job: Job<'_>, build: &Build, form: Form, edits: &Edits) -> anyhow::Result<File> {
    let (Some(place), Some(want)) = (build.files.first(), build.sums.first()) else {
        bail!("a build has a file");
    };
    check(place, *want)?;
    let mut file = File::open(place).with_context(|| format!("cannot read `{place}`"))?;
    let mut progress = input::reading(place, &file)?;
    let stream = input::open(&mut file, &mut progress)?;
    let made = canonical(job.tree, stream, form, edits);
    let (tar, _) = made.with_context(|| format!("`{place}` cannot be published"))?;
    progress.finish();
    Ok(tar)
}

fn check(place: &Utf8Path, want: Sha256) -> anyhow::Result<()> {
    let file = File::open(place).with_context(|| format!("cannot read `{place}`"))?;
    let what = format!("checking {}", place.file_name().unwrap_or("input"));
    let mut progress = Progress::new(shortened(&what), file.metadata()?.len());
    let mut source = Hashing::new(input::Watched {
        inner: file,
        progress: &mut progress,
    });
    let read = std::io::copy(&mut source, &mut std::io::sink());
    read.with_context(|| format!("cannot read `{place}`"))?;
    let (_, found) = source.finish();
    progress.finish();
    ensure!(
        found == want,
        "`{place}` has checksum {found}, its `{SUMS}` says {want}"
    );
    Ok(())
}

/// A build that has all that is needed.
struct Build {
    place: Utf8PathBuf,
    files: Vec<Utf8PathBuf>,
    sums: Vec<Sha256>,
}

/// The last build by name that is complete and passes the filter.
fn newest(directory: &Utf8Path, names: &[String], import: Import) -> anyhow::Result<Option<Build>> {
    let failed = || format!("cannot read the directory `{directory}`");
    let Some(entries) = present(directory.read_dir_utf8()).with_context(failed)? else {
        return Ok(None);
    };
    let mut builds = Vec::new();
    for entry in entries {
        let place = entry.with_context(failed)?.into_path();
        if !matches!(place.file_name(), Some("pending" | "current")) && place.is_dir() {
            builds.push(place);
        }
    }
    builds.sort();
    for place in builds.into_iter().rev() {
        let files: Vec<_> = names.iter().map(|name| place.join(name)).collect();
        let good = import == Import::Any || place.join(".marked_good").exists();
        if !good || !files.iter().all(|file| file.is_file()) {
            continue;
        }
        let Some(mut sums) = present(File::open(place.join(SUMS))).with_context(failed)? else {
            continue;
        };
        let mut text = String::new();
        let read = (&mut sums).take(4 << 20).read_to_string(&mut text);
        read.with_context(|| format!("cannot read `{}`", place.join(SUMS)))?;
        let sums: Option<Vec<_>> = names.iter().map(|name| sum(&text, name)).collect();
        if let Some(sums) = sums {
            return Ok(Some(Build { place, files, sums }));
        }
    }
    Ok(None)
}

/// The first word of the first line that ends with the name.
fn sum(text: &str, name: &str) -> Option<Sha256> {
    let line = text.lines().find(|line| line.trim_end().ends_with(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The files that a build needs for a device, in order.
fn names(kind: Cdimage, device: &str, series: &str, product: &str) -> Vec<String> {
    let x86 = matches!(device, "generic_x86" | "generic_i386");
    let common = match device {
        _ if x86 => "i386",
        "generic_amd64" => "amd64",
        "generic_arm64" => "arm64",
        _ => "",
    };
    let or = |usual: &'static str| if common.is_empty() { usual } else { common };
    let tarball = |arch: &str, end: &str| {
        vec![format!(
            "{series}-preinstalled-{product}-{arch}{end}.tar.gz"
        )]
    };
    match kind {
        Cdimage::Ubuntu => {
            let arch = match device {
                "azure_amd64" | "plano" => "amd64",
                "frieza_arm64" => "arm64",
                _ => or("armhf"),
            };
            tarball(arch, "")
        }
        Cdimage::Custom => {
            let arch = match device {
                "frieza_arm64" => "arm64",
                _ => or("armhf"),
            };
            tarball(arch, ".custom")
        }
        Cdimage::DeviceRaw => {
            let arch = match device {
                "azure_amd64" => "amd64.azure",
                "plano" => "amd64.plano",
                "raspi2_armhf" => "armhf.raspi2",
                _ => or("armhf"),
            };
            tarball(arch, ".device")
        }
        Cdimage::Device => [
            ("boot", "armhf"),
            ("recovery", "armel"),
            ("system", "armel"),
        ]
        .map(|(part, usual)| format!("{series}-preinstalled-{part}-{}+{device}.img", or(usual)))
        .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_the_device() {
        let of = |kind, device| names(kind, device, "xenial", "touch").join(" ");
        assert_eq!(
            of(Cdimage::Ubuntu, "mako"),
            "xenial-preinstalled-touch-armhf.tar.gz"
        );
        assert_eq!(
            of(Cdimage::Ubuntu, "frieza_arm64"),
            "xenial-preinstalled-touch-arm64.tar.gz"
        );
        assert_eq!(
            of(Cdimage::Custom, "plano"),
            "xenial-preinstalled-touch-armhf.custom.tar.gz"
        );
        assert_eq!(
            of(Cdimage::DeviceRaw, "raspi2_armhf"),
            "xenial-preinstalled-touch-armhf.raspi2.device.tar.gz"
        );
        assert_eq!(
            of(Cdimage::Device, "mako"),
            "xenial-preinstalled-boot-armhf+mako.img xenial-preinstalled-recovery-armel+mako.img \
             xenial-preinstalled-system-armel+mako.img"
        );
        assert!(of(Cdimage::Device, "generic_x86").contains("system-i386+generic_x86.img"));
    }

    #[test]
    fn a_checksum_is_the_first_word_of_the_first_line_with_the_name() {
        let one = "0a".repeat(32);
        let text = format!("{one} *x-a.tar.gz\n{} a.tar.gz\n", "0b".repeat(32));
        assert_eq!(sum(&text, "a.tar.gz").unwrap().to_string(), one);
        assert_eq!(sum(&text, "b.tar.gz"), None);
    }
}

//! `server publish`: signs tarballs and makes them visible as an image of a channel.

use camino::Utf8PathBuf;
use clap::{Args, ValueEnum};
use system_image_delta_build::Form;
use system_image_formats::detail::VersionDetail;
use system_image_formats::name::{ChannelName, DeviceName};
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_report::Size;

use super::Context;
use crate::image::Made;
use crate::publish::{Published, Request, publish};

/// Publish tarballs as an image, in full and as deltas
#[derive(Debug, Args)]
pub(super) struct Publish {
    /// Channel to publish on
    channel: ChannelName,
    /// Device to publish for
    device: DeviceName,
    /// Tarballs (.tar or .tar.xz) in the order in which a device applies them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<Utf8PathBuf>,
    /// Number of the image; one more than the newest by default
    #[arg(long, value_name = "N")]
    version: Option<ImageVersion>,
    /// Version that a delta leads from; the newest by default. Can be given several times
    #[arg(long = "base", value_name = "N")]
    bases: Vec<ImageVersion>,
    /// What the tarballs hold; told from the names in them by default
    #[arg(long, value_enum)]
    form: Option<FormArg>,
    /// Percentage of devices that may see the image now
    #[arg(long, default_value = "100", value_name = "PERCENT")]
    phased: Percentage,
    /// An item of the image's version detail. Can be given several times
    #[arg(long = "detail", value_name = "KEY=VALUE")]
    details: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormArg {
    /// Paths as on the wire: `system/…`, `partitions/…`
    Payload,
    /// A root file system: paths from `/`
    Rootfs,
}

impl Publish {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut detail = VersionDetail::default();
        for item in &self.details {
            let (key, value) = item
                .split_once('=')
                .ok_or_else(|| anyhow::anyhow!("`{item}` is not of the form KEY=VALUE"))?;
            detail.push(key, value)?;
        }
        let request = Request {
            channel: self.channel,
            device: self.device,
            files: self.files,
            form: self.form.map(|form| match form {
                FormArg::Payload => Form::Payload,
                FormArg::Rootfs => Form::Rootfs,
            }),
            version: self.version,
            bases: self.bases,
            phased: self.phased,
            detail,
        };
        let version = match context.change(|tree| publish(tree, &request))? {
            Published::New(made) => {
                tell(&made);
                made.version
            }
            Published::Unchanged(version) => {
                eprintln!("nothing changed: version {version} has these files");
                version
            }
        };
        println!("{version}");
        Ok(())
    }
}

/// Tells people what was made.
pub(super) fn tell(made: &Made) {
    eprintln!("full image: {}", Size(made.full));
    for delta in &made.deltas {
        let patched = delta
            .patched
            .map(|bytes| format!(", by patches {}", Size(bytes)));
        let patched = patched.unwrap_or_default();
        eprintln!("delta from {}: {}{patched}", delta.base, Size(delta.bytes));
    }
    for (base, why) in &made.refused {
        eprintln!("warning: no delta from {base}: {why}");
    }
}

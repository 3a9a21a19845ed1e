//! Scratch files, programs and images that the measurements share.

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::process::Command;

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use system_image_delta::{Header, Kind, Limits, Reader};
use system_image_delta_build::{Form, Writer, classify, normalise};
use system_image_demo::measure::{Cost, Step};
use system_image_report::Size;

const BUFFER: usize = 256 << 10;

/// Size of each of the two archives that the original's figure for a delta was taken with.
const REFERENCE_BYTES: u64 = 326_000_000;

/// A scratch directory, removed when this is dropped, and how often to measure.
#[derive(Debug)]
pub(crate) struct Lab {
    scratch: tempfile::TempDir,
    /// Where the built programs are.
    pub(crate) programs: Utf8PathBuf,
    /// Rounds of what takes seconds.
    pub(crate) rounds: usize,
    /// Rounds of what takes milliseconds.
    pub(crate) short_rounds: usize,
}

/// Two images in canonical form.
#[derive(Debug)]
pub(crate) struct Images {
    /// The first one, whole.
    pub(crate) whole: Utf8PathBuf,
    /// Both without some of their members, of [`REFERENCE_BYTES`] each, nearly.
    pub(crate) cut: [Utf8PathBuf; 2],
}

impl Lab {
    pub(crate) fn new(parent: Option<&Utf8Path>, quick: bool) -> anyhow::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("system-image-bench-");
        let scratch = match parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let this = Utf8PathBuf::try_from(std::env::current_exe()?)?;
        let programs = this.parent().context("a program is in a directory")?;
        let (rounds, short_rounds) = if quick { (1, 1) } else { (3, 15) };
        Ok(Self {
            scratch: scratch.context("cannot make a scratch directory")?,
            programs: programs.to_owned(),
            rounds,
            short_rounds,
        })
    }

    /// A path in the scratch directory.
    pub(crate) fn path(&self, name: &str) -> anyhow::Result<Utf8PathBuf> {
        Ok(Utf8PathBuf::try_from(self.scratch.path().join(name))?)
    }

    /// A program of this project.
    pub(crate) fn program(&self, name: &str) -> anyhow::Result<Step> {
        let path = self.programs.join(name);
        ensure!(
            path.exists(),
            "`{path}` is missing; `cargo xtask bench` builds it"
        );
        Step::new(path)
    }

    /// Brings the images into the form that publishing gives them, and cuts them.
    pub(crate) fn images(&self, directory: &Utf8Path) -> anyhow::Result<Images> {
        eprintln!("preparing the images");
        let whole = self.path("v1.tar")?;
        let (second, first_cut, second_cut) = (
            self.path("v2.tar")?,
            self.path("v1-cut.tar")?,
            self.path("v2-cut.tar")?,
        );
        for (place, name) in [(&whole, "v1.tar"), (&second, "v2.tar")] {
            let input = directory.join(name);
            canonical(&input, place).with_context(|| format!("cannot use `{input}`"))?;
        }
        let len = whole.metadata()?.len();
        let kept = Share::of(REFERENCE_BYTES, len);
        cut(&whole, &first_cut, kept)?;
        cut(&second, &second_cut, kept)?;
        std::fs::remove_file(&second)?;
        eprintln!(
            "images: {}, cut to {} and {}",
            Size(len),
            Size(first_cut.metadata()?.len()),
            Size(second_cut.metadata()?.len())
        );
        Ok(Images {
            whole,
            cut: [first_cut, second_cut],
        })
    }
}

/// Writes everything to the disk, so that what came before is not charged to what comes next.
pub(crate) fn settle() -> anyhow::Result<()> {
    let status = Command::new("sync").status().context("cannot run `sync`")?;
    ensure!(status.success(), "`sync` failed: {status}");
    Ok(())
}

/// A script of `sh`, which must succeed. Its processors' seconds are those of all its programs,
/// its memory that of the largest one.
pub(crate) fn shell(script: &str, arguments: &[&str]) -> anyhow::Result<Cost> {
    let script = format!("set -e; {script}");
    let step = Step::new("bash")?.args(["-o", "pipefail", "-c", &script, "sh"]);
    Ok(step.args(arguments).succeed()?.1)
}

fn canonical(input: &Utf8Path, output: &Utf8Path) -> anyhow::Result<()> {
    let open = || File::open(input).map(|file| BufReader::with_capacity(BUFFER, file));
    let form = classify(open()?, Limits::default())?;
    ensure!(form == Form::Rootfs, "it is no root file system");
    let output = BufWriter::with_capacity(BUFFER, File::create(output)?);
    normalise(open()?, form, Limits::default(), output)?;
    Ok(())
}

/// Which names stay in a cut archive: the same ones in each.
#[derive(Clone, Copy, Debug)]
struct Share {
    below: u64,
}

impl Share {
    const STEPS: u64 = 1 << 20;

    fn of(wanted: u64, len: u64) -> Self {
        let below = u128::from(Self::STEPS) * u128::from(wanted) / u128::from(len.max(1));
        Self {
            below: u64::try_from(below).unwrap_or(Self::STEPS),
        }
    }

    /// A hard link stays where its target does; what has no content costs nothing.
    fn keeps(self, header: &Header) -> bool {
        let name = match &header.kind {
            Kind::File { .. } => &header.path,
            Kind::HardLink { target } => target,
            _ => return true,
        };
        // FNV-1a: any hash that is the same everywhere would do.
        let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        (hash >> 32) % Self::STEPS < self.below
    }
}

fn cut(input: &Utf8Path, output: &Utf8Path, kept: Share) -> anyhow::Result<()> {
    let input = BufReader::with_capacity(BUFFER, File::open(input)?);
    let mut reader = Reader::new(input, Limits::default());
    let mut writer = Writer::new(BufWriter::with_capacity(BUFFER, File::create(output)?));
    while let Some(header) = reader.next_header()? {
        if kept.keeps(&header) {
            writer.member(&header, &mut reader)?;
        }
    }
    writer.finish()?;
    Ok(())
}

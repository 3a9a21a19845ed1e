//! What is measured without a program of its own: this program starts itself again with the
//! name of a task, so that its memory is the task's alone.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read};

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use liblzma::bufread::XzDecoder;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use system_image_delta::{Limits, Member, Privileges, Root, Sink, apply};
use system_image_delta_build::{Options, Times};
use system_image_demo::measure::{Cost, Step};
use system_image_fetch::{Algorithm, Fetcher, How, Request, Settings, Size};
use system_image_formats::outline::Outline;
use system_image_formats::version::{ImageVersion, Percentage};
use system_image_planner::{PhaseSource, plan};
use system_image_trust::Verified;

use crate::planning;

const MARK: &str = "--bench-task";

const BUFFER: usize = 128 << 10;

/// What the server's `delta_times` may be.
pub(crate) const EXACT: &str = "exact";
pub(crate) const CONTENT: &str = "content";

/// One thing to do in a copy of this program.
#[derive(Clone, Debug)]
pub(crate) enum Task {
    /// Plan from nothing over an index of so many versions; prints what planning alone cost.
    Plan { versions: u32 },
    /// Write the delta between two canonical archives.
    Delta {
        times: Times,
        base: Utf8PathBuf,
        target: Utf8PathBuf,
        out: Utf8PathBuf,
    },
    /// Apply an archive to an empty directory, everything on the disk.
    Apply {
        archive: Utf8PathBuf,
        root: Utf8PathBuf,
    },
    /// Fetch a file.
    Fetch { url: String, place: Utf8PathBuf },
}

impl Task {
    /// If this process is such a copy: its task.
    pub(crate) fn of_arguments() -> Option<anyhow::Result<Self>> {
        let mut arguments = std::env::args().skip(1);
        if arguments.next()? != MARK {
            return None;
        }
        let arguments: Vec<_> = arguments.collect();
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        Some(match arguments[..] {
            ["plan", versions] => {
                (versions.parse().context("no number")).map(|versions| Self::Plan { versions })
            }
            ["delta", times, base, target, out] => Ok(Self::Delta {
                times: if times == EXACT {
                    Times::Exact
                } else {
                    Times::Ignored
                },
                base: base.into(),
                target: target.into(),
                out: out.into(),
            }),
            ["apply", archive, root] => Ok(Self::Apply {
                archive: archive.into(),
                root: root.into(),
            }),
            ["fetch", url, place] => Ok(Self::Fetch {
                url: url.into(),
                place: place.into(),
            }),
            _ => Err(anyhow::anyhow!("no such task: {arguments:?}")),
        })
    }

    /// Measures it in a copy. Returns what it printed, too.
    pub(crate) fn measure(&self) -> anyhow::Result<(String, Cost)> {
        let versions;
        let arguments = match self {
            Self::Plan { versions: number } => {
                versions = number.to_string();
                vec!["plan", &versions]
            }
            Self::Delta {
                times,
                base,
                target,
                out,
            } => {
                let times = match times {
                    Times::Exact => EXACT,
                    Times::Ignored => CONTENT,
                };
                vec!["delta", times, base.as_str(), target.as_str(), out.as_str()]
            }
            Self::Apply { archive, root } => vec!["apply", archive.as_str(), root.as_str()],
            Self::Fetch { url, place } => vec!["fetch", url, place.as_str()],
        };
        let this = std::env::current_exe()?;
        Step::new(this)?.args([MARK]).args(arguments).succeed()
    }

    /// Does it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Plan { versions } => plan_over(*versions),
            Self::Delta {
                times,
                base,
                target,
                out,
            } => {
                let (base, target) = (File::open(base)?, File::open(target)?);
                let out = BufWriter::with_capacity(BUFFER, File::create(out)?);
                let options = Options {
                    times: *times,
                    ..Options::default()
                };
                let summary = system_image_delta_build::delta(&base, &target, options, out)?;
                println!("{}", summary.bytes);
                Ok(())
            }
            Self::Apply { archive, root } => apply_to(archive, root),
            Self::Fetch { url, place } => fetch(url, place),
        }
    }
}

fn plan_over(versions: u32) -> anyhow::Result<()> {
    let outline = Outline::from(&planning::index(versions, usize::MAX)?);
    let outline = Verified::trust_unsigned_for_testing(outline);
    let request = system_image_planner::Request {
        installed: ImageVersion::NONE,
        filter: None,
        cap: None,
        phase: PhaseSource::Override(Percentage::NONE),
        patch_memory: 0,
    };
    let cpu = || -> anyhow::Result<i64> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        Ok((usage.user_time() + usage.system_time()).num_microseconds())
    };
    let (started, before) = (std::time::Instant::now(), cpu()?);
    let plan = plan(&outline, &request);
    let (seconds, after) = (started.elapsed().as_secs_f64(), cpu()?);
    if let Err(why) = &plan.decision {
        bail!("no plan: {why}");
    }
    let cost = Cost {
        seconds,
        cpu: (after - before) as f64 / 1e6,
        memory: 0,
    };
    println!("{}", serde_json::to_string(&cost)?);
    Ok(())
}

fn apply_to(archive: &Utf8Path, root: &Utf8Path) -> anyhow::Result<()> {
    let root = Root::open(root.as_std_path())?;
    let file = BufReader::with_capacity(BUFFER, File::open(archive)?);
    let input: Box<dyn Read> = if archive.extension() == Some("xz") {
        Box::new(XzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let mut elsewhere = Nowhere;
    apply(
        input,
        Limits::default(),
        &root,
        Privileges::Root,
        &mut elsewhere,
    )?;
    root.sync().context("cannot write to the disk")
}

/// A root file system has nothing for elsewhere.
struct Nowhere;

impl Sink for Nowhere {
    fn elsewhere(
        &mut self,
        member: &Member,
        _: &mut dyn Read,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Err(io::Error::other(format!("{:?}", member.route)).into())
    }
}

fn fetch(url: &str, place: &Utf8Path) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let request = Request {
        url: url.to_owned(),
        destination: place.to_owned(),
        size: Size::AtMost(1 << 40),
        digest: None,
        how: How {
            compute: Some(Algorithm::Sha256),
            ..How::default()
        },
    };
    let fetcher = Fetcher::new(Settings::new("system-image-bench"))?;
    let file = runtime.block_on(fetcher.fetch(&request, &mut |_| {}))?;
    let digest = file.digest.context("no digest was computed")?;
    println!("{digest}");
    Ok(())
}

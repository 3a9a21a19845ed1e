//! `server patch`: the change between any two files, as `docs/formats/patch.md` has it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, IntoInnerError, Write};

use anyhow::Context as _;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Subcommand;
use serde::Serialize;
use system_image_delta::patch::tree::{self, Installed, OtherFile, TreePatch};
use system_image_delta::patch::{self, ApplyError, Header, HeaderError, Identity, Limits};
use system_image_delta::{MemberPath, Root};
use system_image_delta_build::patch::{Effort, Options, Packings, make, make_for_tree};
use system_image_delta_build::{classify, delta, normalise};
use system_image_durable::Staged;
use system_image_report::Size;

use super::Context;

/// Make, apply and look at patches between two files
#[derive(Debug, Subcommand)]
pub(super) enum Patch {
    /// Write the patch that makes one file of another
    Make {
        /// The file that the patch leads from: a tar archive, or anything else
        base: Utf8PathBuf,
        /// The file that it leads to
        target: Utf8PathBuf,
        /// Where the patch goes
        out: Utf8PathBuf,
        /// Most memory that applying it may take
        #[arg(long, value_name = "SIZE", default_value = "84MiB", value_parser = size)]
        max_apply_memory: u64,
        /// Make a larger patch in a fraction of the time
        #[arg(long)]
        fast: bool,
        /// Make it as publishing does, of two archives of a root file system: from the files of the
        /// system that the base leads to, to the delta between both
        #[arg(long)]
        tree: bool,
        /// Write one from another base, too, in less than the time of two
        #[arg(long, num_args = 2, value_names = ["BASE", "OUT"])]
        also: Vec<Utf8PathBuf>,
    },
    /// Make the file that a patch leads to
    Apply {
        /// The file that the patch leads from; for a published one the directory of the system
        base: Utf8PathBuf,
        /// The patch
        patch: Utf8PathBuf,
        /// Where the file goes
        out: Utf8PathBuf,
        /// Most memory that it may take
        #[arg(long, value_name = "SIZE", default_value = "96MiB", value_parser = size)]
        max_memory: u64,
        /// Where the system's partitions are, each as NAME.img: devices, links to them or images
        #[arg(long, value_name = "DIRECTORY")]
        partitions: Option<Utf8PathBuf>,
    },
    /// Tell what a patch leads from and to, and what applying it takes
    Info {
        /// The patch
        patch: Utf8PathBuf,
    },
}

/// What making a patch came to.
#[derive(Debug, Serialize)]
struct Made {
    bytes: u64,
    target_bytes: u64,
    memory: u64,
    /// From other bases.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<Made>,
}

/// What applying a patch came to.
#[derive(Debug, Serialize)]
struct Applied {
    bytes: u64,
    /// Those of them that an earlier attempt left.
    left: u64,
}

/// What a patch says of itself.
#[derive(Debug, Serialize)]
struct Info {
    base: Side,
    /// Of how many files and partitions of a device the base consists.
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<usize>,
    target: Side,
    memory: u64,
    work: u64,
    required: Vec<String>,
    optional: Vec<String>,
}

/// One of the two files.
#[derive(Debug, Serialize)]
struct Side {
    bytes: u64,
    sha256: String,
}

impl From<&Identity> for Side {
    fn from(identity: &Identity) -> Self {
        Self {
            bytes: identity.len,
            sha256: identity.to_string(),
        }
    }
}

impl Patch {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Make {
                base,
                target,
                out,
                max_apply_memory,
                fast,
                tree,
                also,
            } => {
                let packings = Packings::default();
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                let options = Options {
                    memory: max_apply_memory,
                    threads: context.jobs.map_or(threads, usize::from),
                    effort: if fast { Effort::Fast } else { Effort::Default },
                    packings: Some(&packings),
                };
                let from = |base: &Utf8Path, out: &Utf8Path| {
                    make_file([base, &target], out, tree, options, context)
                };
                let mut made = from(&base, &out)?;
                for pair in also.chunks(2) {
                    made.also.push(from(&pair[0], &pair[1])?);
                }
                context.print(&made, |_| {})
            }
            Self::Apply {
                base,
                patch,
                out,
                max_memory,
                partitions,
            } => apply_file(
                (&base, partitions.as_deref()),
                &patch,
                &out,
                max_memory,
                context,
            ),
            Self::Info { patch } => {
                let opened = Opened::new(&patch)?;
                let (files, memory) = match &opened {
                    Opened::Bytes(patch) => (None, patch.header().memory),
                    Opened::Tree(patch) => (Some(patch.files().count()), patch.memory()),
                };
                let header = opened.header().clone();
                let info = Info {
                    base: (&header.base).into(),
                    files,
                    target: (&header.target).into(),
                    memory,
                    work: header.work,
                    required: header.required,
                    optional: header.optional,
                };
                context.print(&info, |info| {
                    println!(
                        "from    {} bytes, SHA-256 {}",
                        info.base.bytes, info.base.sha256
                    );
                    println!(
                        "to      {} bytes, SHA-256 {}",
                        info.target.bytes, info.target.sha256
                    );
                    if let Some(files) = info.files {
                        println!("reads   {files} files and partitions of a device");
                    }
                    println!("memory  {}", Size(info.memory));
                    println!("unpacks {}", Size(info.work));
                    for name in &info.required {
                        println!("needs   {name}");
                    }
                })
            }
        }
    }
}

fn make_file(
    [base, target]: [&Utf8Path; 2],
    out: &Utf8Path,
    of_tree: bool,
    options: Options<'_>,
    context: &Context,
) -> anyhow::Result<Made> {
    let (from, to) = if of_tree {
        let (from, to) = (canonical(base)?, canonical(target)?);
        let mut between = BufWriter::new(tempfile::tempfile().context("no scratch file")?);
        delta(&from, &to, delta::Options::default(), &mut between)
            .with_context(|| format!("no delta from `{base}` to `{target}`"))?;
        (
            from,
            between.into_inner().map_err(IntoInnerError::into_error)?,
        )
    } else {
        (open(base)?, open(target)?)
    };
    let target_bytes = to.metadata().with_context(|| reading(target))?.len();
    let writing = || format!("cannot write `{out}`");
    let mut staged = Staged::create(out, 0o644).with_context(writing)?;
    let mut writer = BufWriter::new(&mut staged);
    let made = if of_tree {
        make_for_tree(&from, &|_| false, &to, options, &mut writer)
    } else {
        make(&from, &to, options, &mut writer)
    };
    let summary = made.with_context(|| format!("no patch from `{base}` to `{target}`"))?;
    writer.flush().with_context(writing)?;
    drop(writer);
    if !context.dry_run {
        staged.commit().with_context(writing)?;
    }
    let made = Made {
        bytes: summary.bytes,
        target_bytes,
        memory: summary.memory,
        also: Vec::new(),
    };
    if !context.json {
        context.say(&format!(
            "{out}: {} for {}, applied in {}",
            Size(made.bytes),
            Size(made.target_bytes),
            Size(made.memory)
        ));
    }
    Ok(made)
}

fn apply_file(
    (base, partitions): (&Utf8Path, Option<&Utf8Path>),
    patch: &Utf8Path,
    out: &Utf8Path,
    memory: u64,
    context: &Context,
) -> anyhow::Result<()> {
    system_image_lean::give_back_at_once();
    let opened = Opened::new(patch)?;
    let writing = || format!("cannot write `{out}`");
    let begin = || {
        if context.dry_run {
            // What an earlier attempt left stays.
            Staged::create(format!("{out}.dry-run"), 0o644)
        } else {
            Staged::resume(out, 0o644)
        }
        .with_context(writing)
    };
    let limits = Limits {
        memory,
        ..Limits::default()
    };
    let (mut staged, applied) = match opened {
        Opened::Bytes(patch) => {
            let base = open(base)?;
            let mut staged = begin()?;
            let applied = patch.apply(&base, staged.file(), limits);
            (staged, applied)
        }
        Opened::Tree(patch) => {
            let system = Root::open(base.as_std_path()).with_context(|| reading(base))?;
            let installed = Laid { system, partitions };
            let mut staged = begin()?;
            let applied = patch.apply(&installed, staged.file(), limits);
            (staged, applied)
        }
    };
    let applied = match applied {
        Ok(applied) => applied,
        Err(error) => {
            // What was made is right, and the next attempt may get further: with another base, or
            // with more room.
            let has_some = staged.file().metadata().is_ok_and(|meta| meta.len() > 0);
            if has_some && !context.dry_run {
                staged.leave();
            }
            return Err(error).with_context(|| format!("cannot apply `{patch}` to `{base}`"));
        }
    };
    if !context.dry_run {
        staged.commit().with_context(writing)?;
    }
    let applied = Applied {
        bytes: applied.bytes,
        left: applied.left,
    };
    context.print(&applied, |applied| {
        let left = match applied.left {
            0 => String::new(),
            left => format!(", {} of them from an earlier attempt", Size(left)),
        };
        context.say(&format!("{out}: {}{left}", Size(applied.bytes)));
    })
}

/// A system, and its partitions in a directory.
struct Laid<'a> {
    system: Root,
    partitions: Option<&'a Utf8Path>,
}

impl Installed for Laid<'_> {
    fn file(&self, path: &MemberPath) -> io::Result<Option<File>> {
        self.system.file(path)
    }

    fn partition(&self, name: &str) -> io::Result<Option<File>> {
        let Some(directory) = self.partitions else {
            return Ok(None);
        };
        match File::open(directory.join(format!("{name}.img"))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }
}

/// The archive of a root file system in the form that publishing gives it.
fn canonical(path: &Utf8Path) -> anyhow::Result<File> {
    let open = || open(path).map(BufReader::new);
    let form = classify(open()?, Default::default()).with_context(|| reading(path))?;
    let mut canonical = BufWriter::new(tempfile::tempfile().context("no scratch file")?);
    normalise(open()?, form, Default::default(), &mut canonical).with_context(|| reading(path))?;
    Ok(canonical.into_inner().map_err(IntoInnerError::into_error)?)
}

fn open(path: &Utf8Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| reading(path))
}

/// A patch of either kind.
enum Opened {
    Bytes(patch::Patch<BufReader<File>>),
    Tree(TreePatch<BufReader<File>>),
}

impl Opened {
    fn new(path: &Utf8Path) -> anyhow::Result<Self> {
        let mut input = BufReader::new(open(path)?);
        let begin = input.fill_buf().with_context(|| reading(path))?;
        if begin.starts_with(&tree::MAGIC) {
            TreePatch::open(input).map(Self::Tree)
        } else {
            patch::Patch::open(input).map(Self::Bytes)
        }
        .with_context(|| reading(path))
    }

    const fn header(&self) -> &Header {
        match self {
            Self::Bytes(patch) => patch.header(),
            Self::Tree(patch) => patch.header(),
        }
    }
}

fn reading(path: &Utf8Path) -> String {
    format!("cannot read `{path}`")
}

/// Parses a size, like `24MiB`.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("it is a number of bytes, or of KiB, MiB or GiB".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "it begins with no number")?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "it is too large".into())
}

/// What the person at the keyboard can do.
pub(super) fn hint(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    if let Some(error) = cause.downcast_ref::<ApplyError>() {
        return match error {
            ApplyError::Memory { .. } => {
                Some("allow more with `--max-memory`, or make it with `--max-apply-memory`")
            }
            ApplyError::OtherBase { .. } => {
                Some("`patch info` tells the SHA-256 of the file that it leads from")
            }
            ApplyError::Feature(_) => Some("a newer program can apply it"),
            _ => None,
        };
    }
    if cause.is::<HeaderError>() {
        return Some("was it downloaded whole, and as binary?");
    }
    let error = cause.downcast_ref::<io::Error>()?.get_ref()?;
    let OtherFile(route) = error.downcast_ref()?;
    route
        .partition()
        .is_some()
        .then_some("`--partitions` tells where the system's partitions are")
}

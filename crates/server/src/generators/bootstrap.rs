//! `bootstrap`: a root file system from a recipe, made by mmdebstrap or debootstrap.
//!
//! Their archive streams into canonical form. With one `SOURCE_DATE_EPOCH` and the same packages the
//! result is the same to the byte, so an unchanged recipe makes no image.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use system_image_delta_build::Form;
use system_image_formats::hash::Hasher;
use system_image_report::Progress;

use super::archive::short;
use super::{Job, Produced, item, known, pool_path, store};
use crate::input::Watched;
use crate::payload::canonical;
use crate::rootfs;

/// Largest recipe, in bytes.
const MAX_RECIPE: u64 = 1 << 20;

/// How a root file system is made: a file in TOML.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Recipe {
    /// The release, e.g. `bookworm`.
    suite: String,
    /// The prefix in the pool.
    #[serde(default = "usual_name")]
    name: String,
    /// Who makes it.
    #[serde(default)]
    tool: Tool,
    /// What is installed beside `packages`.
    #[serde(default = "usual_variant")]
    variant: String,
    /// Lines of `sources.list`, or URLs; the tool's own choice when empty.
    #[serde(default)]
    mirrors: Vec<String>,
    /// Parts of the archive.
    #[serde(default = "usual_components")]
    components: Vec<String>,
    /// The architecture; this machine's by default.
    architecture: Option<String>,
    /// The keyring that the archive is checked with.
    keyring: Option<Utf8PathBuf>,
    /// Packages to install.
    #[serde(default)]
    packages: Vec<String>,
    /// Package files to install.
    #[serde(default)]
    debs: Vec<Utf8PathBuf>,
    /// Files and directories to copy into it.
    #[serde(default)]
    files: Vec<Copied>,
    /// Shell commands run in it, in order.
    #[serde(default)]
    hooks: Vec<String>,
    /// Paths, with shell patterns, that are removed at the end.
    #[serde(default)]
    clean: Vec<String>,
    /// The time of everything that is made, in Unix seconds; `SOURCE_DATE_EPOCH` of the
    /// environment by default.
    epoch: Option<i64>,
    /// The product, which decides on names at the root: `touch`, `pd` or `core`; none are added
    /// when it is not given.
    product: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tool {
    #[default]
    Mmdebstrap,
    Debootstrap,
}

/// Something to copy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Copied {
    /// A file or directory on the server; relative to the recipe.
    from: Utf8PathBuf,
    /// Its absolute path in the root file system.
    to: Utf8PathBuf,
}

fn usual_name() -> String {
    "rootfs".to_owned()
}

fn usual_variant() -> String {
    "minbase".to_owned()
}

fn usual_components() -> Vec<String> {
    vec!["main".to_owned()]
}

pub(super) fn produce(job: Job<'_>, recipe: &Utf8Path) -> anyhow::Result<Produced> {
    let place = job.tree.root().path(recipe);
    let failed = || format!("cannot read the recipe `{place}`");
    let mut text = String::new();
    let file = std::fs::File::open(&place).with_context(failed)?;
    file.take(MAX_RECIPE)
        .read_to_string(&mut text)
        .with_context(failed)?;
    let parsed: Recipe =
        toml::from_str(&text).with_context(|| format!("the recipe `{place}` cannot be used"))?;
    let beside = place.parent().unwrap_or(&place);
    let work = tempfile::tempdir_in(job.tree.root().state())
        .context("cannot make a directory to build in")?;
    let work = Utf8PathBuf::from_path_buf(work.path().to_owned()).map(|path| (work, path));
    let Ok((_work, work)) = work else {
        anyhow::bail!("the state directory's name is not UTF-8");
    };
    let edits = match &parsed.product {
        Some(product) => rootfs::edits(product, matches!(product.as_str(), "touch" | "pd")),
        None => Default::default(),
    };
    let log = job
        .tree
        .root()
        .state()
        .join(format!("bootstrap-{}.log", parsed.name));
    let mut build = match parsed.tool {
        Tool::Mmdebstrap => parsed.mmdebstrap(beside, &log)?,
        Tool::Debootstrap => parsed.debootstrap(beside, &work, &log)?,
    };
    let stream = build.stdout.take().context("its output was asked for")?;
    eprintln!(
        "building {} from `{place}`; its log is `{log}`",
        parsed.name
    );
    let mut progress = Progress::new(format!("building {}", parsed.name), 0);
    let watched = Watched {
        inner: stream,
        progress: &mut progress,
    };
    let made = canonical(job.tree, watched, Form::Rootfs, &edits);
    progress.finish();
    let status = build.wait().context("cannot wait for the build")?;
    ensure!(
        status.success(),
        "the build of `{place}` failed ({status}); its log `{log}` ends with:\n{}",
        tail(&log)
    );
    let (tar, digest) = made.with_context(|| format!("the build of `{place}` is no archive"))?;
    let path = pool_path(&parsed.name, &digest)?;
    if let Some(found) = known(job.tree, &path)? {
        return Ok(found);
    }
    let mut hasher = Hasher::default();
    hasher.update(text.as_bytes());
    let inputs = serde_json::json!({
        "recipe": { "path": place.as_str(), "sha256": hasher.finish().to_string() },
        "suite": parsed.suite,
        "architecture": parsed.architecture,
        "debs": digests(&parsed.debs, beside)?,
        "epoch": parsed.epoch,
    });
    let detail = item(&parsed.name, &short(&digest.to_string()))?;
    store(
        job.tree,
        &path,
        tar,
        "bootstrap",
        detail,
        &[("inputs", inputs)],
    )
}

/// The last lines of a log.
fn tail(log: &Utf8Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// File names with their digests.
fn digests(
    files: &[Utf8PathBuf],
    beside: &Utf8Path,
) -> anyhow::Result<serde_json::Map<String, serde_json::Value>> {
    let mut found = serde_json::Map::new();
    for file in files {
        let place = beside.join(file);
        let mut data =
            std::fs::File::open(&place).with_context(|| format!("cannot read `{place}`"))?;
        let mut hasher = Hasher::default();
        std::io::copy(&mut data, &mut hasher)?;
        found.insert(file.to_string(), hasher.finish().to_string().into());
    }
    Ok(found)
}

impl Recipe {
    /// `mmdebstrap`, which writes the archive to its output.
    fn mmdebstrap(&self, beside: &Utf8Path, log: &Utf8Path) -> anyhow::Result<Child> {
        let mut command = Command::new("mmdebstrap");
        command
            .arg(format!("--variant={}", self.variant))
            .arg(format!("--components={}", self.components.join(",")))
            .arg("--format=tar");
        if let Some(architecture) = &self.architecture {
            command.arg(format!("--architectures={architecture}"));
        }
        if let Some(keyring) = &self.keyring {
            command.arg(format!("--keyring={}", beside.join(keyring)));
        }
        let debs = self.debs.iter().map(|deb| beside.join(deb).into_string());
        let include: Vec<_> = self.packages.iter().cloned().chain(debs).collect();
        if !include.is_empty() {
            command.arg(format!("--include={}", include.join(",")));
        }
        for copied in &self.files {
            let from = beside.join(&copied.from);
            command.arg(format!(
                "--customize-hook={}",
                copy_into(&from, &copied.to, "\"$1\"")?
            ));
        }
        for hook in &self.hooks {
            let quoted = quoted(hook);
            command.arg(format!("--customize-hook=chroot \"$1\" sh -ec {quoted}"));
        }
        for path in &self.clean {
            command.arg(format!("--customize-hook=rm -rf \"$1\"/{}", inside(path)?));
        }
        command.args([self.suite.as_str(), "-"]).args(&self.mirrors);
        self.run(command, log)
    }

    /// `debootstrap` into a directory, and then `tar`, all in one shell.
    fn debootstrap(
        &self,
        beside: &Utf8Path,
        work: &Utf8Path,
        log: &Utf8Path,
    ) -> anyhow::Result<Child> {
        let root = work.join("root");
        let at = quoted(root.as_str());
        let mut script = String::from("set -e\nexec 3>&1 1>&2\ndebootstrap");
        let mut option = |text: String| {
            script.push(' ');
            script.push_str(&quoted(&text));
        };
        option(format!("--variant={}", self.variant));
        option(format!("--components={}", self.components.join(",")));
        if let Some(architecture) = &self.architecture {
            option(format!("--arch={architecture}"));
        }
        if let Some(keyring) = &self.keyring {
            option(format!("--keyring={}", beside.join(keyring)));
        }
        if !self.packages.is_empty() {
            option(format!("--include={}", self.packages.join(",")));
        }
        option(self.suite.clone());
        option(root.to_string());
        ensure!(
            self.mirrors.len() <= 1,
            "debootstrap takes one mirror; `tool = \"mmdebstrap\"` takes several"
        );
        if let Some(mirror) = self.mirrors.first() {
            option(mirror.clone());
        }
        script.push('\n');
        for deb in &self.debs {
            let deb = quoted(beside.join(deb).as_str());
            script += &format!("cp {deb} {at}/tmp/extra.deb\n");
            script += &format!("chroot {at} dpkg --install /tmp/extra.deb\n");
            script += &format!("rm {at}/tmp/extra.deb\n");
        }
        for copied in &self.files {
            script += &copy_into(&beside.join(&copied.from), &copied.to, &at)?;
            script.push('\n');
        }
        for hook in &self.hooks {
            script += &format!("chroot {at} sh -ec {}\n", quoted(hook));
        }
        for path in &self.clean {
            script += &format!("rm -rf {at}/{}\n", inside(path)?);
        }
        if let Some(epoch) = self.epoch() {
            // What was made just now gets the one time, as mmdebstrap does it.
            script += &format!("find {at} -newermt @{epoch} -exec touch -hd @{epoch} {{}} +\n");
        }
        script += &format!(
            "tar --create --sort=name --numeric-owner --xattrs '--xattrs-include=*' \
             --format=pax --directory={at} . >&3\nstatus=$?\nrm -rf --one-file-system {at}\n\
             exit $status\n"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        self.run(command, log)
    }

    fn epoch(&self) -> Option<String> {
        let own = self.epoch.map(|epoch| epoch.to_string());
        own.or_else(|| std::env::var("SOURCE_DATE_EPOCH").ok())
    }

    fn run(&self, mut command: Command, log: &Utf8Path) -> anyhow::Result<Child> {
        let written =
            std::fs::File::create(log).with_context(|| format!("cannot write `{log}`"))?;
        if let Some(epoch) = self.epoch() {
            command.env("SOURCE_DATE_EPOCH", epoch);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(written)
            .spawn()
            .with_context(|| {
                let program = command.get_program().to_string_lossy().into_owned();
                format!("cannot run `{program}`; install it")
            })
    }
}

/// A shell command that copies `from` into the root file system at `root`, a shell word.
fn copy_into(from: &Utf8Path, to: &Utf8Path, root: &str) -> anyhow::Result<String> {
    ensure!(
        from.exists(),
        "there is no `{from}`, which the recipe copies"
    );
    let to = quoted(to.as_str().trim_start_matches('/'));
    let from_word = quoted(from.as_str());
    Ok(if from.is_dir() {
        format!("mkdir -p {root}/{to} && cp -a {from_word}/. {root}/{to}/")
    } else {
        format!("mkdir -p \"$(dirname {root}/{to})\" && cp -a {from_word} {root}/{to}")
    })
}

/// A path with patterns that stays below the root.
fn inside(path: &str) -> anyhow::Result<String> {
    let relative = path.trim_start_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+/*?[]".contains(c);
    ensure!(
        !relative.is_empty() && relative.chars().all(plain) && !relative.contains(".."),
        "`{path}` cannot be cleaned: names and the patterns `*`, `?`, `[…]` only, and no `..`"
    );
    Ok(relative.to_owned())
}

/// One word for a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

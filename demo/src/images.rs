//! Two real Debian root file systems: a release as it was, and the same with its security updates
//! and a few changes of every kind.

use std::fs;
use std::process::Command;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use system_image_report::Size;

use crate::measure::Step;

/// How large the images are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// A minimal system that could boot.
    Minimal,
    /// A few packages, unpacked only: for tests.
    Small,
}

/// One image to build.
struct Recipe {
    name: &'static str,
    /// Suites beside the release.
    updates: &'static [&'static str],
    packages: String,
    /// Day of the build, to which modification times are clamped.
    epoch: &'static str,
    /// Run in the new root.
    hook: &'static str,
}

const SUITE: &str = "bookworm";

/// What changes between the images beside packages: one of each kind of change.
const HOOK_1: &str = r#"
set -eu; cd "$1"
rm -rf var/log/* var/cache/apt/* var/lib/apt/lists/* etc/resolv.conf etc/hostname
mkdir -p etc/demo/dir 'etc/demo/with blank' etc/demo/gone/deep srv/demo
echo 1 > etc/demo/version
echo same > etc/demo/linked; ln etc/demo/linked etc/demo/link
echo x > etc/demo/dir/x; echo y > 'etc/demo/with blank/a file'; echo z > etc/demo/gone/deep/z
ln -s version etc/demo/pointer; mkfifo etc/demo/pipe
head -c 3000000 /dev/zero | tr '\0' a > srv/demo/large
chmod 4755 etc/demo/version
"#;
const HOOK_2: &str = r#"
set -eu; cd "$1"
rm -rf var/log/* var/cache/apt/* var/lib/apt/lists/* etc/resolv.conf etc/hostname
mkdir -p 'etc/demo/with blank' etc/demo/new srv/demo
echo 2 > etc/demo/version
echo other > etc/demo/linked; ln etc/demo/linked etc/demo/link
ln -s new etc/demo/dir; echo y2 > 'etc/demo/with blank/a file'
ln -s linked etc/demo/pointer; mkfifo etc/demo/pipe; chmod 700 etc/demo/new
{ head -c 3000000 /dev/zero | tr '\0' a; echo end; } > srv/demo/large
chmod 755 etc/demo/version
"#;
/// Only root may give a file capabilities that another machine's root honours.
const HOOK_ROOT: &str = r#"setcap cap_net_raw+ep "$1/srv/demo/large""#;

/// Builds both images in `directory`, unless they are there from an earlier run.
pub fn build(directory: &Utf8Path, scale: Scale) -> anyhow::Result<[Utf8PathBuf; 2]> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make `{directory}`"))?;
    let base = match scale {
        Scale::Minimal => "ca-certificates,iproute2,openssh-server,python3-minimal",
        Scale::Small => "base-files,busybox-static,libssl3,tzdata",
    };
    let recipes = [
        Recipe {
            name: "v1",
            updates: &[],
            packages: base.to_owned(),
            epoch: "1783728000",
            hook: HOOK_1,
        },
        Recipe {
            name: "v2",
            updates: &["bookworm-updates", "bookworm-security"],
            packages: format!("{base},nano"),
            epoch: "1795132800",
            hook: HOOK_2,
        },
    ];
    let mut built = Vec::new();
    for recipe in recipes {
        built.push(build_one(directory, scale, &recipe)?);
    }
    Ok(built.try_into().expect("there are two recipes"))
}

fn build_one(directory: &Utf8Path, scale: Scale, recipe: &Recipe) -> anyhow::Result<Utf8PathBuf> {
    let place = directory.join(format!("{}.tar", recipe.name));
    if place.exists() {
        return Ok(place);
    }
    eprintln!("building {place} with mmdebstrap");
    let staged = directory.join(format!("{}.building.tar", recipe.name));
    let variant = match scale {
        Scale::Minimal => "minbase",
        Scale::Small => "extract",
    };
    let mut hook = recipe.hook.to_owned();
    if rustix::process::geteuid().is_root() {
        hook.push_str(HOOK_ROOT);
    }
    let script = directory.join("hook");
    fs::write(&script, hook)?;
    let step = Step::new("mmdebstrap")?
        .args(["--quiet", "--format=tar"])
        .args([
            format!("--variant={variant}"),
            format!("--include={}", recipe.packages),
            format!("--customize-hook=sh '{script}' \"$1\""),
            "--aptopt=Acquire::Languages \"none\"".into(),
        ])
        .args([SUITE, staged.as_str()])
        .env("SOURCE_DATE_EPOCH", recipe.epoch);
    let sources = sources(recipe.updates);
    // Where apt says nothing, mmdebstrap has defaults of its own.
    let step = if sources.is_empty() {
        step
    } else {
        step.args(["-"]).input(sources)
    };
    let (_, cost) = step
        .succeed()
        .with_context(|| format!("cannot build `{place}`"))?;
    fs::rename(&staged, &place)?;
    let size = fs::metadata(&place)?.len();
    eprintln!("{place}: {} in {:.0} s", Size(size), cost.seconds);
    Ok(place)
}

/// Lines for apt: the suites from where this machine's own apt has them.
fn sources(updates: &[&str]) -> String {
    let mut listed = listed();
    if listed.is_empty() && rustix::process::geteuid().is_root() {
        // A machine that has never asked for its lists, or has cleaned them away.
        let _ = Command::new("apt-get")
            .args(["update", "--quiet=2"])
            .status();
        listed = self::listed();
    }
    let find = |suite: &str| {
        let line = listed
            .lines()
            .find_map(|line| line.strip_suffix(suite)?.strip_suffix(' '));
        line.map(str::to_owned)
    };
    let base = find(SUITE);
    let mut lines = String::new();
    for suite in [SUITE].iter().chain(updates) {
        // The updates of a release come from the same place as the release.
        let same_place = || base.clone().filter(|_| !suite.contains("security"));
        if let Some(uri) = find(suite).or_else(same_place) {
            lines += &format!(
                "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {uri} {suite} main\n"
            );
        }
    }
    lines
}

/// Place and suite of what this machine's apt knows, a line each.
fn listed() -> String {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE)",
            "Created-By: Packages",
        ])
        .output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

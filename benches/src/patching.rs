//! Patches between two images, beside what others make for the same update.

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use system_image_demo::measure::Cost;

use crate::contest::{Side, contest};
use crate::lab::{Lab, settle, shell};
use crate::table::Table;

/// One way from an image to the next. Scripts are for `bash`: `$1` is the base, `$2` the target, `$3`
/// where the patch goes, and `$4` a directory of its own.
struct Way {
    name: &'static str,
    /// A program that it needs.
    program: &'static str,
    /// What is there before an update is made.
    prepare: &'static str,
    make: &'static str,
    /// Makes the target again; what is sent counts, not what is made of it.
    apply: &'static str,
}

/// What others have, and how they are told to do their best within minutes.
const PEERS: [Way; 7] = [
    Way {
        name: "zstd -3 --patch-from",
        program: "zstd",
        prepare: "",
        make: "zstd -qf -3 --long=31 --patch-from=\"$1\" \"$2\" -o \"$3\"",
        apply: "zstd -dqf --long=31 --patch-from=\"$1\" \"$3\" -o \"$4/out\"",
    },
    Way {
        name: "zstd -12 --patch-from",
        program: "zstd",
        prepare: "",
        make: "zstd -qf -12 --long=31 --patch-from=\"$1\" \"$2\" -o \"$3\"",
        apply: "zstd -dqf --long=31 --patch-from=\"$1\" \"$3\" -o \"$4/out\"",
    },
    Way {
        name: "xdelta3",
        program: "xdelta3",
        prepare: "",
        make: "xdelta3 -efs \"$1\" \"$2\" \"$3\"",
        apply: "xdelta3 -dfs \"$1\" \"$3\" \"$4/out\"",
    },
    Way {
        name: "xdelta3 -9, lzma, window of 1 GiB",
        program: "xdelta3",
        prepare: "",
        make: "xdelta3 -ef -9 -S lzma -B 1073741824 -W 16777216 -s \"$1\" \"$2\" \"$3\"",
        apply: "xdelta3 -df -B 1073741824 -s \"$1\" \"$3\" \"$4/out\"",
    },
    Way {
        name: "ostree static-delta (bsdiff), and checkout",
        program: "ostree",
        prepare: "ostree init --mode=archive --repo=\"$4/server\" && \
                  ostree init --mode=bare --repo=\"$4/device\" && \
                  ostree commit --repo=\"$4/server\" -b base --tree=tar=\"$1\" > \"$4/base\" && \
                  ostree commit --repo=\"$4/server\" -b target --tree=tar=\"$2\" > \"$4/target\" && \
                  ostree pull-local --repo=\"$4/device\" \"$4/server\" base > \"$4/log\"",
        make: "ostree static-delta generate --repo=\"$4/server\" --from=$(cat \"$4/base\") \
               --to=$(cat \"$4/target\") --inline --min-fallback-size=0 --max-chunk-size=4096 \
               --filename=\"$3\" > \"$4/log\"",
        apply: "ostree static-delta apply-offline --repo=\"$4/device\" \"$3\" && \
                ostree checkout --repo=\"$4/device\" -H --union $(cat \"$4/target\") \"$4/tree\"",
    },
    Way {
        name: "casync, chunks that are new",
        program: "casync",
        prepare: "casync make --store=\"$4/store\" \"$4/base.caibx\" \"$1\" > \"$4/log\"",
        make: "touch \"$4/before\" && sleep 0.01 && \
               casync make --store=\"$4/store\" \"$4/target.caibx\" \"$2\" > \"$4/log\" && \
               find \"$4/store\" -type f -newer \"$4/before\" -exec cat {} + > \"$3\" && \
               cat \"$4/target.caibx\" >> \"$3\"",
        apply: "casync extract --store=\"$4/store\" --seed=\"$1\" \"$4/target.caibx\" \"$4/out\"",
    },
    Way {
        name: "python3 hdiffpatch, lzma2",
        program: "python3 -c 'import hdiffpatch'",
        prepare: "",
        make: "python3 -c 'import sys, hdiffpatch as h; b, t, o = sys.argv[1:]; \
               open(o, \"wb\").write(h.diff(open(b, \"rb\").read(), open(t, \"rb\").read(), \
               compression=h.COMPRESSION_LZMA2))' \"$1\" \"$2\" \"$3\"",
        apply: "python3 -c 'import sys, hdiffpatch as h; b, p, o = sys.argv[1:]; \
                open(o, \"wb\").write(h.apply(open(b, \"rb\").read(), open(p, \"rb\").read()))' \
                \"$1\" \"$3\" \"$4/out\"",
    },
];

/// Measures every update of which both images are there.
pub(crate) fn run(lab: &Lab, directory: &Utf8Path, table: &mut Table) -> anyhow::Result<()> {
    let mut measured = false;
    for (base, target) in [("v1", "v2"), ("v2", "v3"), ("v1", "v4")] {
        for kind in ["tar", "ext4", "squashfs"] {
            let base = directory.join(format!("{base}.{kind}"));
            let target = directory.join(format!("{target}.{kind}"));
            if base.is_file() && target.is_file() {
                measured = true;
                update(lab, &base, &target, table)?;
            }
        }
    }
    anyhow::ensure!(measured, "no two images of an update are in `{directory}`");
    Ok(())
}

fn update(lab: &Lab, base: &Utf8Path, target: &Utf8Path, table: &mut Table) -> anyhow::Result<()> {
    let is_tar = base.extension() == Some("tar");
    let peers: Vec<_> = PEERS
        .iter()
        .filter(|way| is_there(way.program) && (is_tar || way.program != "ostree"))
        .collect();
    let place = |at: usize, name: &str| lab.path(&format!("patch-{at}{name}"));
    let mut scripts = Vec::new();
    for (at, way) in peers.iter().enumerate() {
        let directory = place(at + 1, "")?;
        std::fs::create_dir(&directory)?;
        let arguments =
            [base, target, &place(at + 1, ".patch")?, &directory].map(ToOwned::to_owned);
        script(way.prepare, &arguments).with_context(|| way.name.to_owned())?;
        scripts.push(arguments);
    }
    settle()?;
    let what = |verb: &str| {
        let name = |path: &Utf8Path| path.file_name().unwrap_or_default().to_owned();
        format!("patch from {} to {}: {verb}", name(base), name(target))
    };
    let (sent, out) = (place(0, ".patch")?, place(0, ".out")?);
    let ours = |verb: &'static str, from: &Utf8Path, to: &Utf8Path, out: &Utf8PathBuf| {
        let arguments =
            ["patch", verb, from.as_str(), to.as_str(), out.as_str()].map(str::to_owned);
        move || {
            let step = lab.program("system-image-server")?.args(&arguments);
            Ok(step.succeed()?.1)
        }
    };
    let mut making = vec![Side::new("patch make", ours("make", base, target, &sent))];
    let mut applying = vec![Side::new("patch apply", ours("apply", base, &sent, &out))];
    for (way, arguments) in peers.iter().zip(&scripts) {
        making.push(Side::new(way.name, || script(way.make, arguments)));
        applying.push(Side::new(way.name, || script(way.apply, arguments)));
    }
    let made = contest(&what("made"), 1, &mut making)?;
    let applied = contest(&what("applied"), 1, &mut applying)?;
    drop((making, applying));
    let mut names = Vec::new();
    for at in 0..=peers.len() {
        let bytes = place(at, ".patch")?.metadata()?.len();
        let name = at.checked_sub(1).map_or("ours", |at| peers[at].name);
        names.push(format!("{name}: {bytes} bytes"));
    }
    let names = || names.iter().map(String::as_str);
    table.row(&what("made"), names().zip(&made), None);
    table.row(&what("applied"), names().zip(&applied), None);
    for at in 0..=peers.len() {
        for name in ["", ".patch", ".out"] {
            let path = place(at, name)?;
            if path.is_dir() {
                std::fs::remove_dir_all(&path)?;
            } else if path.exists() {
                std::fs::remove_file(&path)?;
            }
        }
    }
    Ok(())
}

/// Whether a program can be run; what has blanks is a command that must succeed.
fn is_there(program: &str) -> bool {
    let look = if program.contains(' ') {
        program.to_owned()
    } else {
        format!("command -v {program}")
    };
    let is_there = shell(&format!("{look} > /dev/null 2>&1"), &[]).is_ok();
    if !is_there {
        eprintln!("left out, since it is not installed: {program}");
    }
    is_there
}

fn script(text: &str, arguments: &[Utf8PathBuf; 4]) -> anyhow::Result<Cost> {
    let arguments: Vec<_> = arguments.iter().map(|path| path.as_str()).collect();
    shell(if text.is_empty() { "true" } else { text }, &arguments)
}

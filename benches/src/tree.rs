//! The server's commands on a large tree.

use std::fs;

use anyhow::ensure;
use camino::Utf8Path;
use system_image_demo::measure::Cost;
use system_image_demo::server::Server;

use crate::contest::{Side, contest};
use crate::lab::{Lab, settle, shell};
use crate::large_tree::{CHANNELS, DEVICES, Planter, channel, device};
use crate::planning::{image_signing_key, now};
use crate::python;
use crate::table::{Limit, Table};

/// What the server must keep to on a machine of two processors that has nothing else to do.
const LIMIT: Limit = Limit {
    seconds: Some(1.0),
    memory: 100.0,
};

/// The same as `status` has to read, read by what most tools of operators are written in.
const READER: &str = "import json, sys, pathlib\n\
    for path in pathlib.Path(sys.argv[1]).glob('*/*/*/index.json'): json.loads(path.read_bytes())";

pub(crate) fn run(lab: &Lab, table: &mut Table) -> anyhow::Result<()> {
    for key_type in ["ed25519", "rsa2048"] {
        let root = lab.path("tree")?;
        let (server, _) = Server::set_up(&root, &lab.programs, key_type, 1)?;
        eprintln!("planting {CHANNELS} channels of {DEVICES} devices, {key_type} keys");
        let planter = Planter {
            key: image_signing_key(&root)?,
            www: server.www(),
            now: now()?,
        };
        planter.plant()?;
        settle()?;
        commands(lab, &server, key_type, table)?;
        fs::remove_dir_all(root)?;
    }
    Ok(())
}

/// A peer's name and what it does.
type Peer<'a> = (&'a str, &'a dyn Fn() -> anyhow::Result<Cost>);

fn commands(lab: &Lab, server: &Server, key_type: &str, table: &mut Table) -> anyhow::Result<()> {
    let www = server.www();
    let command = |arguments: &[&str]| -> anyhow::Result<Cost> {
        let step = lab.program("system-image-server")?;
        let step = step.args(["--root", server.root.as_str()]);
        Ok(step.args(arguments).succeed()?.1)
    };
    let find = || {
        shell(
            "find \"$1\" -printf '%s %p\\n' > /dev/null",
            &[www.as_str()],
        )
    };
    let python =
        || -> anyhow::Result<Cost> { Ok(python::step(READER, &[www.as_str()])?.succeed()?.1) };
    let listing: Peer = ("find, only listing names and sizes", &find);
    let parsing: Peer = ("python3, only parsing the indexes", &python);
    for (what, peer) in [
        ("status", python::is_there().then_some(parsing)),
        ("verify", Some(listing)),
        ("gc", Some(listing)),
    ] {
        let mut sides = vec![Side::new("ours", || command(&[what]))];
        // Nothing here depends on the keys for them.
        let peer = peer.filter(|_| key_type == "ed25519");
        if let Some((name, run)) = peer {
            sides.push(Side::new(name, run));
        }
        let ours = format!("system-image-server {what}");
        row(
            lab,
            key_type,
            &ours,
            peer.map(|(name, _)| name),
            &mut sides,
            table,
        )?;
    }

    let payload = lab.path("device.tar")?;
    let (channel, device) = (channel(CHANNELS / 2)?, device(DEVICES / 2)?);
    let mut number = 0;
    let publish = || {
        number += 1;
        tiny(lab, &payload, number)?;
        settle()?;
        command(&[
            "publish",
            channel.as_str(),
            device.as_str(),
            payload.as_str(),
        ])
    };
    let mut sides = [Side::new("ours", publish)];
    let ours = "system-image-server publish, a tiny payload";
    row(lab, key_type, ours, None, &mut sides, table)
}

fn row(
    lab: &Lab,
    key_type: &str,
    ours: &str,
    peer: Option<&str>,
    sides: &mut [Side<'_>],
    table: &mut Table,
) -> anyhow::Result<()> {
    let what = format!("tree of {CHANNELS} × {DEVICES} × 30, {key_type} keys");
    let rounds = lab.short_rounds.min(5);
    let costs = contest(&format!("{what}: {ours}"), rounds, sides)?;
    let names = [Some(ours), peer].into_iter().flatten();
    table.row_within(&what, names.zip(&costs), LIMIT);
    Ok(())
}

/// A payload that was never published before.
fn tiny(lab: &Lab, payload: &Utf8Path, number: u32) -> anyhow::Result<()> {
    let tree = lab.path("payload")?;
    fs::create_dir_all(tree.join("system"))?;
    fs::write(tree.join("system/number"), format!("{number}\n"))?;
    let arguments = [tree.as_str(), payload.as_str()];
    shell(
        "tar --create --directory \"$1\" --file \"$2\" system",
        &arguments,
    )?;
    ensure!(payload.exists(), "`tar` wrote nothing");
    Ok(())
}

//! The built-in web server beside nginx, one worker each, asked by `wrk`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use system_image_demo::measure::Cost;
use system_image_demo::server::{CHANNEL, DEVICE, Server};
use system_image_formats::name::TreePath;
use system_image_store::{Directory, Store};

use crate::contest::{Costs, Side, contest};
use crate::lab::Lab;
use crate::nginx::{Nginx, find};
use crate::process;
use crate::table::Table;

/// Programs and the Debian packages that have them.
const NEEDED: [(&str, &str); 2] = [("nginx", "nginx-light"), ("wrk", "wrk")];

const INDEX_BYTES: usize = 4 << 10;
const FILE_BYTES: usize = 64 << 20;

/// What one row asks for.
struct Load {
    what: &'static str,
    path: String,
    /// Send the entity tag of what is already there.
    conditional: bool,
    connections: usize,
    /// What costs are given for.
    requests: f64,
}

/// A server that is asked.
struct Asked {
    name: &'static str,
    address: SocketAddr,
    process: u32,
}

pub(crate) fn run(lab: &Lab, table: &mut Table) -> anyhow::Result<()> {
    for (program, package) in NEEDED {
        ensure!(
            find(program).is_some(),
            "`{program}` is missing: install the Debian package `{package}`, or run \
             `cargo xtask setup` as root"
        );
    }
    let (server, _) = Server::set_up(&lab.path("serving")?, &lab.programs, "ed25519", 0)?;
    let index: TreePath = format!("/{CHANNEL}/{DEVICE}/index.json").parse()?;
    let store = Directory::open(server.www())?;
    let text = format!("{{\"filler\":\"{}\"}}", "x".repeat(INDEX_BYTES - 13));
    ensure!(
        text.len() == INDEX_BYTES,
        "the index has {} bytes",
        text.len()
    );
    store.replace(&index, text.as_bytes(), b"no signature")?;
    fs::create_dir_all(server.www().join("pool"))?;
    let file: Vec<u8> = (0..u32::try_from(FILE_BYTES)?)
        .map(|n| n.to_le_bytes()[(n % 3) as usize])
        .collect();
    fs::write(server.www().join("pool/file.tar.xz"), file)?;

    let serving = server.serve_with(&["--threads", "1"])?;
    let nginx = Nginx::start(&lab.path("nginx")?, &server.www())?;
    let asked = [
        Asked {
            name: "serve",
            address: server.address,
            process: serving.id(),
        },
        Asked {
            name: "nginx",
            address: nginx.address,
            process: nginx.child.id(),
        },
    ];
    let document = |what, conditional| Load {
        what,
        path: index.relative().to_owned(),
        conditional,
        connections: 16,
        requests: 10_000.0,
    };
    for load in [
        document("10,000 requests for an index of 4 KiB", false),
        document("10,000 requests for an index that is the same", true),
        Load {
            what: "16 files of 64 MiB",
            path: "pool/file.tar.xz".to_owned(),
            conditional: false,
            connections: 4,
            requests: 16.0,
        },
    ] {
        let seconds = if lab.rounds > 1 { 4 } else { 1 };
        let mut sides: Vec<_> = asked
            .iter()
            .map(|asked| Side::new(asked.name, || load.ask(asked, seconds)))
            .collect();
        let costs = contest(load.what, lab.rounds, &mut sides)?;
        drop(sides);
        let names: Vec<_> = (asked.iter().zip(&costs))
            .map(|(asked, costs)| load.shown(asked, costs))
            .collect();
        let names = names.iter().map(String::as_str);
        table.row(load.what, names.zip(&costs), None);
    }
    drop((serving, nginx));
    Ok(())
}

impl Load {
    /// Asks for so long, and tells what [`Load::requests`] cost the server.
    fn ask(&self, asked: &Asked, seconds: u32) -> anyhow::Result<Cost> {
        let url = format!("http://{}/{}", asked.address, self.path);
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--connections"])
            .arg(self.connections.to_string())
            .args(["--timeout", "30s", "--duration", &format!("{seconds}s")]);
        if self.conditional {
            let tag = tag(asked.address, &self.path)?;
            wrk.args(["--header", &format!("If-None-Match: {tag}")]);
        }
        let before = process::used(asked.process)?;
        let output = wrk.arg(&url).output().context("cannot run `wrk`")?;
        let after = process::used(asked.process)?;
        let said = String::from_utf8_lossy(&output.stdout);
        let failed = said.contains("Socket errors") || said.contains("Non-2xx");
        ensure!(output.status.success() && !failed, "`wrk` says: {said}");
        // `  135214 requests in 4.00s, 562.60MB read`
        let (count, time) = said
            .lines()
            .find_map(|line| line.trim().split_once(" requests in "))
            .and_then(|(count, rest)| Some((count, rest.split_once("s,")?.0)))
            .with_context(|| format!("`wrk` says: {said}"))?;
        let rounds = count.parse::<f64>()? / self.requests;
        Ok(Cost {
            seconds: time.parse::<f64>()? / rounds,
            cpu: (after.cpu - before.cpu) / rounds,
            memory: after.most,
        })
    }

    fn shown(&self, asked: &Asked, costs: &Costs) -> String {
        let name = asked.name;
        let per_second = self.requests / costs.median().seconds;
        if self.requests < 1000.0 {
            let bytes = per_second * FILE_BYTES as f64 / 1e9;
            format!("{name}, {bytes:.2} GB/s")
        } else {
            format!("{name}, {per_second:.0} requests/s")
        }
    }
}

/// The entity tag of a file.
fn tag(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "HEAD /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("etag")
        {
            return Ok(value.to_owned());
        }
    }
    bail!("`{path}` has no entity tag")
}

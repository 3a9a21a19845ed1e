//! A large file over the loopback.

use std::fs;
use std::io::Write;

use system_image_demo::server::Server;

use crate::contest::{Side, contest};
use crate::lab::{Lab, settle, shell};
use crate::table::Table;
use crate::task::Task;

/// Size of the file in MB.
const MEGABYTES: u32 = 500;

pub(crate) fn run(lab: &Lab, table: &mut Table) -> anyhow::Result<()> {
    let curl = shell("command -v curl > /dev/null", &[]).is_ok();
    let (server, _) = Server::set_up(&lab.path("fetching")?, &lab.programs, "ed25519", 0)?;
    let pool = server.www().join("pool");
    fs::create_dir_all(&pool)?;
    // Not zeros: some file systems store those for nothing.
    let mut file = fs::File::create(pool.join("large"))?;
    let piece: Vec<u8> = (0..1_000_000_u32)
        .map(|n| n.to_le_bytes()[(n % 3) as usize])
        .collect();
    for _ in 0..MEGABYTES {
        file.write_all(&piece)?;
    }
    settle()?;
    let serving = server.serve()?;
    let url = format!("http://{}/pool/large", server.address);
    let place = lab.path("fetched")?;
    let task = Task::Fetch {
        url: url.clone(),
        place: place.clone(),
    };
    let mut sides = vec![Side::new("ours", || {
        let (_, cost) = task.measure()?;
        fs::remove_file(&place)?;
        settle()?;
        Ok(cost)
    })];
    if curl {
        sides.push(Side::new("curl", || {
            let script = "curl --silent --show-error --fail --output \"$2\" \"$1\"; \
                          sync \"$2\"; sha256sum \"$2\"";
            let cost = shell(script, &[&url, place.as_str()])?;
            fs::remove_file(&place)?;
            settle()?;
            Ok(cost)
        }));
    }
    let what = format!("fetching {MEGABYTES} MB over the loopback, with its SHA-256");
    let costs = contest(&what, lab.rounds, &mut sides)?;
    drop(sides);
    let names = ["fetch, synced", "curl, sync, sha256sum"];
    table.row(&what, names.into_iter().zip(&costs), None);
    drop(serving);
    Ok(())
}

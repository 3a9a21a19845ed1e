//! `server serve`: serves the tree over HTTP.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use clap::Args;

use crate::root::Root;
use crate::serve::Server;

/// Serve the tree over HTTP until interrupted
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

impl Serve {
    pub(super) fn run(self, root: &Root) -> anyhow::Result<()> {
        let www = root.www();
        if !www.is_dir() {
            bail!("there is no tree at `{www}`");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let server = Server::bind(&www, self.listen)
                .await
                .with_context(|| format!("cannot listen on {}", self.listen))?;
            println!("serving `{www}` on http://{}", server.address()?);
            tokio::select! {
                never = server.run() => match never {},
                interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait"),
            }
        })
    }
}

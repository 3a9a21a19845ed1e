//! `server serve`: serves the tree over HTTP.

use std::net::SocketAddr;
use std::num::NonZero;
use std::time::Duration;

use anyhow::Context;
use camino::Utf8PathBuf;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::root::Root;
use crate::serve::{CertificateFiles, Control, Listen, LogTarget, Patience, Server, Settings};

/// Serve the tree over HTTP until interrupted
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Address and port, may be repeated; port 0 takes a free one. With a certificate it speaks
    /// TLS, unless `http://` stands before it
    #[arg(
        long,
        value_name = "[SCHEME://]ADDR:PORT",
        default_value = "127.0.0.1:8080"
    )]
    listen: Vec<Listen>,
    /// Certificate and those above it, in PEM; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<Utf8PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<Utf8PathBuf>,
    /// Where to answer `/metrics` and `/healthz`; not for the public
    #[arg(long, value_name = "ADDR:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Log requests to a file, opened again at SIGHUP, or to standard output with `-`
    #[arg(long, value_name = "FILE")]
    access_log: Option<LogTarget>,
    /// Threads that serve; as many as there are processors by default
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// Connections at once; more have to wait
    #[arg(long, value_name = "N", default_value = "1024", value_parser = connections())]
    max_connections: u32,
    /// Connections at once from one address; more are closed
    #[arg(long, value_name = "N", default_value = "128")]
    max_connections_per_address: NonZero<usize>,
    /// Time for a request's head or the TLS handshake
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    head_timeout: Duration,
    /// Time without a request until a connection is closed
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    idle_timeout: Duration,
    /// Time in which a client has to take something of its answer
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    stall_timeout: Duration,
    /// Time for transfers to end after SIGTERM or SIGINT; a second signal ends them at once
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    grace: Duration,
}

impl Serve {
    pub(super) fn run(self, root: &Root) -> anyhow::Result<()> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = self.threads {
            builder.worker_threads(threads.get());
        }
        let runtime = builder.enable_all().build()?;
        // On a thread of the runtime, like all that it does, and not beside it.
        let www = root.www();
        let settings = self.settings();
        let served = runtime.block_on(async move {
            tokio::spawn(async move {
                let server = Server::bind(&www, settings).await?;
                // Before anybody is told that it serves, and may want to stop it.
                let control = signals()?;
                for (scheme, address) in server.addresses()? {
                    println!("serving `{www}` on {scheme}://{address}");
                }
                if let Some(address) = server.metrics_address() {
                    println!("metrics on http://{}/metrics", address?);
                }
                let cut_off = server.run(control).await;
                if cut_off > 0 {
                    eprintln!("{cut_off} connections were cut off");
                }
                anyhow::Ok(())
            })
            .await?
        });
        // Connections that were cut off, and reads from a disk, are not waited for.
        runtime.shutdown_background();
        served
    }

    fn settings(self) -> Settings {
        let pair = self.tls_cert.zip(self.tls_key);
        Settings {
            listen: self.listen,
            certificate: pair.map(|(certificate, key)| CertificateFiles { certificate, key }),
            metrics: self.metrics_listen,
            access_log: self.access_log,
            max_connections: self.max_connections,
            max_per_address: self.max_connections_per_address.get(),
            patience: Patience {
                head: self.head_timeout,
                idle: self.idle_timeout,
                stall: self.stall_timeout,
            },
            grace: self.grace,
        }
    }
}

/// What the process is told from outside.
fn signals() -> anyhow::Result<mpsc::Receiver<Control>> {
    let (sender, receiver) = mpsc::channel(8);
    for (kind, control) in [
        (SignalKind::terminate(), Control::Stop),
        (SignalKind::interrupt(), Control::Stop),
        (SignalKind::hangup(), Control::Reload),
    ] {
        let mut signal = signal(kind).context("cannot wait for signals")?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() && sender.send(control).await.is_ok() {}
        });
    }
    Ok(receiver)
}

fn connections() -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..=1_000_000)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let refused = || format!("`{text}` is no number of seconds such as 30 or 0.5");
    let seconds: f64 = text.parse().map_err(|_| refused())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| refused())?;
    // A year is for ever, and can be added to any time.
    Ok(duration.clamp(Duration::from_millis(10), Duration::from_secs(31_536_000)))
}

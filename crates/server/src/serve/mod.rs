//! Serves the published tree over HTTP: static files with ranges and conditional requests.
//!
//! In: the tree's directory, addresses, limits. Out: its files, a log, metrics. Any other web
//! server serves the same tree as well; `docs/serving.md` has the settings.
//!
//! | module | its part |
//! | --- | --- |
//! | [`listen`], [`tls`] | where and how clients connect |
//! | [`limits`], [`pulse`] | how many may, and how long each may take |
//! | [`connection`], [`wire`] | one connection; its socket, which sends files from the kernel |
//! | [`answer`], [`kind`] | a request's answer and its headers |
//! | [`files`], [`pair`], [`compressed`], [`body`] | the bytes of an answer |
//! | [`log`], [`metrics`], [`status`] | what happened |

mod answer;
mod body;
mod compressed;
mod connection;
mod files;
mod kind;
mod limits;
mod listen;
mod log;
mod metrics;
mod pair;
mod pulse;
mod status;
mod tls;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use self::answer::{Site, Visitor};
use self::compressed::Compressed;
use self::limits::PerAddress;
pub use self::listen::{Listen, NotListen, Scheme};
use self::log::Log;
pub use self::log::LogTarget;
use self::metrics::{Dropped, Metrics};
pub use self::pulse::Patience;
use self::tls::Certificate;
pub use self::tls::{CertificateError, CertificateFiles};
use self::wire::{Heart, Wire};

/// How often the certificate's files are looked at.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(2);

/// How long the last lines of the log may take.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How to serve.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At least one address.
    pub listen: Vec<Listen>,
    /// For TLS.
    pub certificate: Option<CertificateFiles>,
    /// Where monitors ask, without encryption; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where requests are logged; `None` for nowhere.
    pub access_log: Option<LogTarget>,
    /// Connections at once; more wait in the kernel's queue.
    pub max_connections: u32,
    /// Connections at once of one IPv4 address or one /64 of IPv6; more are closed.
    pub max_per_address: usize,
    /// How long a connection may wait.
    pub patience: Patience,
    /// How long transfers may take to end when the server stops.
    pub grace: Duration,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is nothing to serve.
    #[error("there is no tree at `{www}`")]
    NoTree {
        /// Where it should be.
        www: Utf8PathBuf,
    },
    /// An address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// TLS was asked for without a certificate.
    #[error("{address} is to speak TLS, and there is no certificate")]
    NoCertificate {
        /// The address.
        address: SocketAddr,
    },
    /// The certificate cannot be used.
    #[error("cannot speak TLS")]
    Certificate(#[source] CertificateError),
    /// The TLS library refuses its settings.
    #[error("cannot speak TLS")]
    Tls(#[source] rustls::Error),
    /// The log cannot be opened.
    #[error("cannot open the access log")]
    Log(#[source] io::Error),
}

impl ServeError {
    /// One line for the person at the keyboard, printed after `hint:`.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoTree { .. } => Some("make one with `system-image-server --root DIR init`"),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("stop what listens there, or give another port")
            }
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("ports below 1024 need CAP_NET_BIND_SERVICE; see docs/serving.md")
            }
            Self::NoCertificate { .. } => Some("give `--tls-cert` and `--tls-key`"),
            Self::Certificate(error) => Some(error.hint()),
            Self::Listen { .. } | Self::Tls(_) | Self::Log(_) => None,
        }
    }
}

/// What a running server can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Open the log again and read the certificate again.
    Reload,
    /// Finish what is under way, take nothing new; the second time: end at once.
    Stop,
}

/// A server that has its ports.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Port>,
    metrics: Option<TcpListener>,
    certificate: Option<Arc<Certificate>>,
    site: Arc<Site>,
    settings: Settings,
}

#[derive(Debug)]
struct Port {
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

/// What every accepted connection needs.
#[derive(Clone)]
struct Guests {
    site: Arc<Site>,
    slots: Arc<Semaphore>,
    places: PerAddress,
    patience: Patience,
    stop: watch::Receiver<bool>,
}

impl Server {
    /// Binds all addresses; port 0 takes any free one. Needs tokio's runtime.
    pub async fn bind(www: &Utf8Path, settings: Settings) -> Result<Self, ServeError> {
        if !www.is_dir() {
            return Err(ServeError::NoTree { www: www.into() });
        }
        limits::raise_descriptors();
        let certificate = (settings.certificate.clone().map(Certificate::load))
            .transpose()
            .map_err(ServeError::Certificate)?;
        let config = match &certificate {
            Some(certificate) => Some(Arc::new(certificate.config().map_err(ServeError::Tls)?)),
            None => None,
        };
        let mut listeners = Vec::new();
        for Listen { scheme, address } in &settings.listen {
            let tls = match scheme {
                Some(Scheme::Http) => None,
                Some(Scheme::Https) if config.is_none() => {
                    return Err(ServeError::NoCertificate { address: *address });
                }
                Some(Scheme::Https) | None => config.clone(),
            };
            let listener = bind(*address).await?;
            listeners.push(Port { listener, tls });
        }
        let metrics = match settings.metrics {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let log = (settings.access_log.clone().map(Log::open))
            .transpose()
            .map_err(ServeError::Log)?;
        let site = Arc::new(Site {
            www: www.to_owned(),
            compressed: Compressed::default(),
            metrics: Metrics::default(),
            log,
        });
        Ok(Self {
            listeners,
            metrics,
            certificate,
            site,
            settings,
        })
    }

    /// Where it listens, in the order of the settings.
    pub fn addresses(&self) -> io::Result<Vec<(Scheme, SocketAddr)>> {
        let address = |port: &Port| {
            let scheme = port.tls.as_ref().map_or(Scheme::Http, |_| Scheme::Https);
            Ok((scheme, port.listener.local_addr()?))
        };
        self.listeners.iter().map(address).collect()
    }

    /// Where monitors ask.
    pub fn metrics_address(&self) -> Option<io::Result<SocketAddr>> {
        self.metrics.as_ref().map(TcpListener::local_addr)
    }

    /// Serves until it is told to stop. Returns how many connections were cut off.
    pub async fn run(self, mut control: mpsc::Receiver<Control>) -> usize {
        let all = self.settings.max_connections;
        let (stop, stopping) = watch::channel(false);
        let guests = Guests {
            site: Arc::clone(&self.site),
            slots: Arc::new(Semaphore::new(all as usize)),
            places: PerAddress::new(self.settings.max_per_address),
            patience: self.settings.patience,
            stop: stopping.clone(),
        };
        let mut ports = JoinSet::new();
        for port in self.listeners {
            ports.spawn(port.welcome(guests.clone()));
        }
        if let Some(listener) = self.metrics {
            tokio::spawn(status::run(listener, Arc::clone(&self.site), stopping));
        }
        let mut look = interval(CERTIFICATE_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = look.tick() => refresh(self.certificate.as_deref()),
                order = control.recv() => match order {
                    Some(Control::Reload) => {
                        refresh(self.certificate.as_deref());
                        if let Some(log) = &self.site.log {
                            log.reopen();
                        }
                    }
                    Some(Control::Stop) | None => break,
                },
            }
        }
        // Nobody listening is no fault: then there is nothing to stop.
        let _ = stop.send(true);
        // The ports are closed with the tasks that have them.
        ports.shutdown().await;
        let end = Instant::now() + self.settings.grace;
        loop {
            tokio::select! {
                _ = guests.slots.acquire_many(all) => break,
                () = sleep_until(end) => break,
                order = control.recv() => if order != Some(Control::Reload) { break },
            }
        }
        if let Some(log) = &self.site.log {
            log.flush(LAST_LINES);
        }
        all as usize - guests.slots.available_permits()
    }
}

impl Port {
    /// Accepts connections until the future is dropped.
    async fn welcome(self, guests: Guests) {
        loop {
            let slot = slot(&guests.slots).await;
            let (socket, peer) = accept(&self.listener).await;
            guests.site.metrics.accepted();
            let open = Open(Arc::clone(&guests.site));
            let Some(place) = guests.places.enter(peer.ip()) else {
                guests.site.metrics.dropped(Dropped::PerAddress);
                continue;
            };
            let (guests, tls) = (guests.clone(), self.tls.clone());
            tokio::spawn(async move {
                if let Some(why) = guests.attend(socket, peer, tls).await {
                    guests.site.metrics.dropped(why);
                }
                drop((open, place, slot));
            });
        }
    }
}

impl Guests {
    /// Serves one connection to its end.
    async fn attend(
        &self,
        socket: TcpStream,
        peer: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
    ) -> Option<Dropped> {
        // An answer's last packet must not wait for the client's acknowledgement.
        let _ = socket.set_nodelay(true);
        let heart = Heart::new();
        let wire = Wire::new(socket, heart.clone());
        let holes = tls.is_none().then(|| wire.holes());
        let address = peer.ip().to_canonical();
        let visitor = Arc::new(Visitor::new(Arc::clone(&self.site), address, holes));
        let answer = move |request| Arc::clone(&visitor).answer(request);
        let (patience, stop) = (&self.patience, self.stop.clone());
        let overdue = match tls {
            None => connection::serve(wire, heart, patience, stop, answer).await,
            Some(config) => match handshake(config, wire, patience.head).await {
                Some(stream) => {
                    *heart.lock() = pulse::Pulse::new(std::time::Instant::now());
                    connection::serve(stream, heart, patience, stop, answer).await
                }
                None => return Some(Dropped::Handshake),
            },
        };
        overdue.map(Dropped::Overdue)
    }
}

/// `None` if the two do not agree on TLS, or not in time.
async fn handshake(
    config: Arc<ServerConfig>,
    wire: Wire,
    time: Duration,
) -> Option<TlsStream<Wire>> {
    let agreed = timeout(time, TlsAcceptor::from(config).accept(wire)).await;
    agreed.ok()?.ok()
}

/// A connection that is counted as open until this is dropped.
struct Open(Arc<Site>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.closed();
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ServeError::Listen { address, source })
}

async fn slot(slots: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let slot = Arc::clone(slots).acquire_owned().await;
    slot.expect("it is never closed")
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // Out of descriptors, or the peer is gone already: others must still be served.
            Err(error) => {
                eprintln!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn refresh(certificate: Option<&Certificate>) {
    match certificate.and_then(Certificate::refresh) {
        None => {}
        Some(Ok(())) => eprintln!("the new certificate is in use"),
        Some(Err(error)) => {
            let error = anyhow::Error::new(error).context("the old certificate stays in use");
            eprint!("{}", system_image_report::describe(&error, None));
        }
    }
}

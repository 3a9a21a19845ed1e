//! What monitors ask, on a port of its own: `/metrics` and `/healthz`.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::answer::Site;
use super::connection;
use super::files::Directory;
use super::pulse::Patience;
use super::wire::{Heart, Wire};

/// Monitors at once.
const MAX_CONNECTIONS: usize = 32;

const PATIENCE: Patience = Patience {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(120),
    stall: Duration::from_secs(10),
};

/// Answers until the future is dropped, also while the server stops: that is then its health.
pub(super) async fn run(listener: TcpListener, site: Arc<Site>, stopping: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Never sent: a monitor's connections end with the program.
    let (never, stop) = watch::channel(false);
    loop {
        let slot = super::slot(&slots).await;
        let (socket, _) = super::accept(&listener).await;
        let (site, stop, stopping) = (Arc::clone(&site), stop.clone(), stopping.clone());
        let never = never.clone();
        tokio::spawn(async move {
            let heart = Heart::new();
            let wire = Wire::new(socket, heart.clone());
            connection::serve(wire, heart, &PATIENCE, stop, |request| {
                let path = request.uri().path().to_owned();
                let (site, stopping) = (Arc::clone(&site), *stopping.borrow());
                async move { respond(&path, &site, stopping).await }
            })
            .await;
            drop((slot, never));
        });
    }
}

async fn respond(path: &str, site: &Site, stopping: bool) -> Response<String> {
    let (status, kind, text) = match path {
        "/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            (StatusCode::OK, kind, site.metrics.text())
        }
        "/healthz" => match health(site, stopping).await {
            Ok(()) => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", why + "\n"),
        },
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain",
            "there are /metrics and /healthz\n".to_owned(),
        ),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Healthy is who can serve the file that every client asks for first.
async fn health(site: &Site, stopping: bool) -> Result<(), String> {
    if stopping {
        return Err("stopping".to_owned());
    }
    let open = async {
        let tree = Directory::open(&site.www)?;
        tree.file("channels.json").await
    };
    match open.await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("cannot serve channels.json: {error}")),
    }
}

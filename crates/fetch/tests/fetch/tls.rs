//! HTTPS: certificates that are trusted by themselves, and HTTP/2.

use std::convert::Infallible;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use system_image_fetch::{FetchError, Fetched, Fetcher, Request, Settings, Trouble};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::*;

/// A key and what it signs, made by OpenSSL.
struct Identity {
    place: Place,
}

impl Identity {
    /// A certificate as `openssl req -x509` makes it with more arguments.
    fn new(arguments: &[&str]) -> Self {
        let place = Place::new();
        let made = Command::new("openssl")
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split(' '))
            .args(["-keyout", place.path("key").as_str()])
            .args(["-out", place.path("certificate").as_str()])
            .args(arguments)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        Self { place }
    }

    /// The same key with a certificate whose time is over.
    fn expired(arguments: &[&str]) -> Self {
        let new = Self::new(arguments);
        let (key, certificate) = (new.place.path("key"), new.place.path("certificate"));
        let made = Command::new("openssl")
            .args(["x509", "-days", "-1", "-in", certificate.as_str()])
            .args(["-signkey", key.as_str(), "-out", certificate.as_str()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        new
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.place.path("certificate")).unwrap()
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::from_pem_file(self.place.path("key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config).into()
    }
}

/// Serves `body` to everyone, whatever is asked for, and fetches it once.
fn fetch_from(
    identity: &Identity,
    trusted: &[CertificateDer<'static>],
    host: &str,
    body: &[u8],
) -> Result<Fetched, FetchError> {
    let place = Place::new();
    let mut settings = Settings::new("Tester/1");
    settings.self_signed = trusted.to_vec();
    settings.patience.attempts = 1;
    let fetcher = Fetcher::new(settings).unwrap();
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(serve(listener, identity.acceptor(), body.to_vec()));
        let request = Request {
            url: format!("https://{host}:{port}/file"),
            destination: place.path("file"),
            ..place.request(
                &system_image_testkit::http::Server::start(|_| unreachable!()),
                body,
            )
        };
        let result = fetcher.fetch(&request, &mut |_| {}).await?;
        assert_eq!(fs::read(&result.path).unwrap(), body);
        Ok(result)
    })
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, body: Vec<u8>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, body) = (acceptor.clone(), body.clone());
        tokio::spawn(async move {
            let stream = acceptor.accept(stream).await.ok()?;
            let service = service_fn(|request: hyper::Request<Incoming>| {
                let answer = hyper::Response::builder()
                    // HTTP/2 is what both can do.
                    .status(match request.version() {
                        hyper::Version::HTTP_2 => 200,
                        _ => 505,
                    })
                    .body(reqwest::Body::from(body.clone()));
                async { Ok::<_, Infallible>(answer.unwrap()) }
            });
            auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok()
        });
    }
}

const ADDRESS: &str = "subjectAltName=IP:127.0.0.1";

#[test]
fn a_certificate_is_trusted_by_itself_only_where_nothing_but_its_issuer_is_wrong() {
    let subject = ["-subj", "/CN=test"];
    let usual = [&subject[..], &["-addext", ADDRESS]].concat();
    let host = [
        &usual[..],
        &["-addext", "basicConstraints=critical,CA:FALSE"],
    ]
    .concat();
    let elsewhere = [&subject[..], &["-addext", "subjectAltName=DNS:elsewhere"]].concat();
    let by_hand = ["-subj", "/O=Somebody/CN=localhost"];
    for (what, identity, name, want) in [
        (
            "as openssl makes it",
            Identity::new(&usual),
            "127.0.0.1",
            None,
        ),
        ("not an authority", Identity::new(&host), "127.0.0.1", None),
        (
            "without another name",
            Identity::new(&by_hand),
            "localhost",
            None,
        ),
        (
            "without this name",
            Identity::new(&by_hand),
            "127.0.0.1",
            Some(Trouble::Untrusted),
        ),
        (
            "for another host",
            Identity::new(&elsewhere),
            "127.0.0.1",
            Some(Trouble::Untrusted),
        ),
        (
            "when it is over",
            Identity::expired(&usual),
            "127.0.0.1",
            Some(Trouble::Untrusted),
        ),
        (
            "not an authority, when it is over",
            Identity::expired(&host),
            "127.0.0.1",
            Some(Trouble::Untrusted),
        ),
    ] {
        let fetched = fetch_from(&identity, &[identity.certificate()], name, b"some");
        match want {
            None => drop(fetched.unwrap_or_else(|error| panic!("{what}: {error:?}"))),
            Some(want) => assert_eq!(trouble(fetched), want, "{what}"),
        }
    }
}

#[test]
fn a_certificate_that_nobody_named_is_not_trusted() {
    let arguments = ["-subj", "/CN=test", "-addext", ADDRESS];
    let (shown, named) = (Identity::new(&arguments), Identity::new(&arguments));
    for trusted in [vec![], vec![named.certificate()]] {
        let refused = fetch_from(&shown, &trusted, "127.0.0.1", b"some");
        assert_eq!(trouble(refused), Trouble::Untrusted);
    }
}

#[test]
fn a_long_file_comes_over_http_2() {
    let identity = Identity::new(&["-subj", "/CN=test", "-addext", ADDRESS]);
    let body = content(5 << 20, 1);
    let fetched = fetch_from(&identity, &[identity.certificate()], "127.0.0.1", &body);
    assert_eq!(fetched.unwrap().transferred, 5 << 20);
}

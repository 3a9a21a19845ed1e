//! Where the server listens: `ADDR:PORT`, or the same with `http://` or `https://` before it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// How clients speak to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without encryption.
    Http,
    /// With TLS.
    Https,
}

/// An address to listen on; port 0 takes a free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `None` if it was not said: then TLS is spoken if there is a certificate.
    pub scheme: Option<Scheme>,
    /// Address and port.
    pub address: SocketAddr,
}

/// A text that is no [`Listen`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected ADDR:PORT such as `0.0.0.0:80` or `[::]:80`, or `https://ADDR:PORT`")]
pub struct NotListen;

impl FromStr for Listen {
    type Err = NotListen;

    fn from_str(text: &str) -> Result<Self, NotListen> {
        let (scheme, address) = match text.split_once("://") {
            Some(("http", address)) => (Some(Scheme::Http), address),
            Some(("https", address)) => (Some(Scheme::Https), address),
            Some(_) => return Err(NotListen),
            None => (None, text),
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let address = address.parse().map_err(|_| NotListen)?;
        Ok(Self { scheme, address })
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_may_be_said() {
        for (text, scheme) in [
            ("127.0.0.1:80", None),
            ("http://127.0.0.1:80", Some(Scheme::Http)),
            ("https://127.0.0.1:80/", Some(Scheme::Https)),
        ] {
            let address = SocketAddr::from(([127, 0, 0, 1], 80));
            assert_eq!(text.parse(), Ok(Listen { scheme, address }), "{text}");
        }
        for text in ["", "80", "localhost:80", "ftp://127.0.0.1:80", "https://"] {
            assert_eq!(text.parse::<Listen>(), Err(NotListen), "{text}");
        }
    }
}

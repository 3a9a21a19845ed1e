//! Says where a redirect leads, and what may be sent there.
//!
//! In: an answer's status and `Location`. Out: the next address, or why there is none.

use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, PROXY_AUTHORIZATION};
use reqwest::{StatusCode, Url};

/// What only the server that it is meant for may see.
const SECRETS: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// The way of one request from server to server.
#[derive(Debug)]
pub(crate) struct Trail {
    visited: Vec<Url>,
    max: usize,
}

/// Why a redirect is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It has been there before.
    Loop,
    /// There have been too many.
    TooMany,
    /// The target is not an address.
    Nonsense,
    /// The target is an address of another kind.
    Scheme(Url),
}

impl Trail {
    /// A way that begins at `url` and has at most `max` redirects.
    pub(crate) fn new(url: Url, max: usize) -> Self {
        Self {
            visited: vec![url],
            max,
        }
    }

    /// Where the way is now.
    pub(crate) fn here(&self) -> &Url {
        self.visited.last().expect("it begins somewhere")
    }

    /// Goes on to where an answer leads, and takes from `headers` what may not be seen there.
    /// `false` if it is not a redirect.
    pub(crate) fn follow(
        &mut self,
        status: StatusCode,
        location: Option<&[u8]>,
        headers: &mut HeaderMap,
    ) -> Result<bool, Refused> {
        let (301 | 302 | 303 | 307 | 308, Some(location)) = (status.as_u16(), location) else {
            return Ok(false);
        };
        let location = std::str::from_utf8(location).map_err(|_| Refused::Nonsense)?;
        let mut target = self.here().join(location).map_err(|_| Refused::Nonsense)?;
        if !matches!(target.scheme(), "http" | "https") {
            return Err(Refused::Scheme(target));
        }
        // It says where in the file to look, which is nothing to a server.
        target.set_fragment(None);
        if self.visited.contains(&target) {
            return Err(Refused::Loop);
        }
        if self.visited.len() > self.max {
            return Err(Refused::TooMany);
        }
        if !may_see_secrets(self.here(), &target) {
            for secret in SECRETS {
                headers.remove(secret);
            }
        }
        self.visited.push(target);
        Ok(true)
    }
}

/// Whether both are one server, and the second is not reached less safely.
fn may_see_secrets(from: &Url, to: &Url) -> bool {
    let usual = |url: &Url| url.port().is_none();
    let upgraded = from.scheme() == "http" && to.scheme() == "https" && usual(from) && usual(to);
    from.host() == to.host() && (from.origin() == to.origin() || upgraded)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn follow(from: &str, status: u16, to: &str) -> Result<Option<String>, Refused> {
        let mut trail = Trail::new(url(from), 5);
        let status = StatusCode::from_u16(status).unwrap();
        let followed = trail.follow(status, Some(to.as_bytes()), &mut HeaderMap::new())?;
        Ok(followed.then(|| trail.here().to_string()))
    }

    #[test]
    fn a_target_is_resolved_against_the_address_that_redirects() {
        for (to, want) in [
            ("http://other/y", "http://other/y"),
            ("//other/y", "http://other/y"),
            ("/y", "http://h:1/y"),
            ("y", "http://h:1/a/y"),
            ("../y?z", "http://h:1/y?z"),
            ("?z", "http://h:1/a/x?z"),
            ("/y#part", "http://h:1/y"),
            ("/y ä", "http://h:1/y%20%C3%A4"),
        ] {
            let got = follow("http://h:1/a/x?q", 302, to).unwrap();
            assert_eq!(got.as_deref(), Some(want), "{to}");
        }
    }

    #[test]
    fn only_five_kinds_of_answers_redirect() {
        for status in [301, 302, 303, 307, 308] {
            assert!(follow("http://h/", status, "/y").unwrap().is_some());
        }
        for status in [200, 201, 300, 304, 305, 404] {
            assert_eq!(follow("http://h/", status, "/y"), Ok(None), "{status}");
        }
        let mut trail = Trail::new(url("http://h/"), 5);
        let lost = trail.follow(StatusCode::FOUND, None, &mut HeaderMap::new());
        assert_eq!(lost, Ok(false));
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for (to, want) in [
            ("/x", Refused::Loop),
            ("", Refused::Loop),
            ("#here", Refused::Loop),
            ("http://[", Refused::Nonsense),
            ("ftp://h/", Refused::Scheme(url("ftp://h/"))),
            (
                "file:///etc/passwd",
                Refused::Scheme(url("file:///etc/passwd")),
            ),
        ] {
            assert_eq!(follow("http://h/x", 302, to), Err(want), "{to}");
        }
    }

    #[test]
    fn a_circle_is_noticed_and_a_long_way_ended() {
        let found = StatusCode::FOUND;
        let mut trail = Trail::new(url("http://h/0"), 3);
        let mut go = |to: &str| trail.follow(found, Some(to.as_bytes()), &mut HeaderMap::new());
        assert_eq!(
            (go("/1"), go("/2"), go("/3")),
            (Ok(true), Ok(true), Ok(true))
        );
        assert_eq!(
            (go("/1"), go("/4")),
            (Err(Refused::Loop), Err(Refused::TooMany))
        );
    }

    #[test]
    fn secrets_are_for_the_server_that_they_are_meant_for() {
        for (from, to, kept) in [
            ("https://h/a", "/b", true),
            ("http://h/a", "https://h/b", true),
            ("http://h:80/a", "http://h/b", true),
            ("https://h/a", "http://h/b", false),
            ("https://h/a", "https://other/b", false),
            ("https://h/a", "https://h:444/b", false),
            ("http://h:8080/a", "https://h/b", false),
            ("https://h/a", "https://h.other/b", false),
        ] {
            let mut headers = HeaderMap::new();
            for secret in SECRETS {
                headers.insert(secret, HeaderValue::from_static("secret"));
            }
            let mut trail = Trail::new(url(from), 5);
            let followed = trail.follow(StatusCode::FOUND, Some(to.as_bytes()), &mut headers);
            assert_eq!(followed, Ok(true));
            assert_eq!(headers.len(), if kept { 3 } else { 0 }, "{from} {to}");
        }
    }
}

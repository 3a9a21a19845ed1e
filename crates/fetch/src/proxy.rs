//! Whether an address is reached through a proxy, so that its errors can be told as the proxy's.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;

use crate::client::Settings;

#[derive(Debug)]
pub(crate) enum Proxies {
    /// One for everything.
    Everything,
    /// Those of the environment, by the same rules as the client's.
    Environment(Box<Matcher>),
}

impl Proxies {
    pub(crate) fn new(settings: &Settings) -> Self {
        match settings.proxy {
            Some(_) => Self::Everything,
            None => Self::Environment(Box::new(Matcher::from_env())),
        }
    }

    pub(crate) fn serve(&self, url: &Url) -> bool {
        match self {
            Self::Everything => true,
            Self::Environment(matcher) => {
                let uri = url.as_str().parse();
                uri.is_ok_and(|uri| matcher.intercept(&uri).is_some())
            }
        }
    }
}

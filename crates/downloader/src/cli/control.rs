//! Commands that steer: `start`, `pause`, `resume`, `cancel`, `collect`, `throttle`, `mobile-data`.

use std::str::FromStr;

use anyhow::{Context as _, bail};

use super::service::Service;

/// Which downloads.
#[derive(Debug, clap::Args)]
struct Ids {
    /// Their ids, or the beginnings of them, as `list` shows
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Ids {
    async fn tell(&self, service: &Service, method: &'static str) -> anyhow::Result<()> {
        for id in &self.ids {
            let shown = service.find(id).await?;
            service.download(&shown, method, &()).await?;
        }
        Ok(())
    }
}

macro_rules! command {
    ($name:ident, $method:literal, $about:literal) => {
        #[doc = $about]
        #[derive(Debug, clap::Args)]
        pub(super) struct $name {
            #[command(flatten)]
            which: Ids,
        }

        impl $name {
            pub(super) async fn run(self, service: &Service) -> anyhow::Result<()> {
                self.which.tell(service, $method).await
            }
        }
    };
}

command!(
    Start,
    "start",
    "Start downloads that were added with --idle"
);
command!(Pause, "pause", "Let downloads stand still");
command!(Resume, "resume", "Let paused downloads go on");
command!(
    Cancel,
    "cancel",
    "Give downloads up and delete what they have brought"
);
command!(
    Collect,
    "collected",
    "Take note of complete downloads: their files stay, the downloads go"
);

/// Limit the speed of a download, or of all of them
#[derive(Debug, clap::Args)]
pub(super) struct Throttle {
    /// Most bytes per second, e.g. `500k` or `2M`; 0 for no limit
    rate: Rate,
    /// Of this download; of all together, those of the future too, if none is named
    id: Option<String>,
}

impl Throttle {
    pub(super) async fn run(self, service: &Service) -> anyhow::Result<()> {
        let Rate(rate) = self.rate;
        match self.id {
            None => service.manager("setDefaultThrottle", &rate).await,
            Some(id) => {
                let shown = service.find(&id).await?;
                service.download(&shown, "setThrottle", &rate).await
            }
        }
    }
}

/// Bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate(pub(super) u64);

impl FromStr for Rate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (digits, unit) = match text.char_indices().last() {
            Some((at, 'k' | 'K')) => (&text[..at], 1_000),
            Some((at, 'M')) => (&text[..at], 1_000_000),
            Some((at, 'G')) => (&text[..at], 1_000_000_000),
            _ => (text, 1),
        };
        let number: u64 = digits
            .parse()
            .context("write bytes per second, e.g. 500k or 2M")?;
        match number.checked_mul(unit) {
            Some(rate) => Ok(Self(rate)),
            None => bail!("no network is that fast"),
        }
    }
}

/// Allow or refuse mobile data for a download, or for all of them
#[derive(Debug, clap::Args)]
pub(super) struct MobileData {
    /// Whether it may be used
    allowed: Allowed,
    /// By this download; by all, those of the future too, if none is named
    id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Allowed {
    Yes,
    No,
}

impl MobileData {
    pub(super) async fn run(self, service: &Service) -> anyhow::Result<()> {
        let allowed = self.allowed == Allowed::Yes;
        match self.id {
            None => service.manager("allowGSMDownload", &allowed).await,
            Some(id) => {
                let shown = service.find(&id).await?;
                service.download(&shown, "allowGSMDownload", &allowed).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_has_a_decimal_unit() {
        for (text, want) in [
            ("0", Some(0)),
            ("500k", Some(500_000)),
            ("2M", Some(2_000_000)),
            ("1G", Some(1_000_000_000)),
            ("k", None),
            ("", None),
            ("-1", None),
            ("99999999999G", None),
        ] {
            let got = text.parse::<Rate>().ok();
            assert_eq!(got, want.map(Rate), "{text}");
        }
    }
}

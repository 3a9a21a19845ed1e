//! How the daemon is started (specification, section 17): one dash, any order, and what is unknown is
//! ignored, because activation files and test-suites of others start it.

use camino::Utf8PathBuf;

/// What the daemon was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// No exit when there is nothing to do.
    pub disable_timeout: bool,
    /// Callers may end it.
    pub stoppable: bool,
    /// Certificates to accept although nobody vouches for them: files, or a pattern of names.
    pub self_signed_certs: Option<String>,
    /// Where the log goes, besides standard error.
    pub log_dir: Option<Utf8PathBuf>,
    /// Our own: where the database and downloads without a place go, instead of the usual ones.
    pub state_dir: Option<Utf8PathBuf>,
}

impl Options {
    /// Reads arguments.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Self {
        let mut options = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let name = argument.trim_start_matches('-');
            if name.len() == argument.len() {
                continue;
            }
            match name {
                "disable-timeout" => options.disable_timeout = true,
                "stoppable" => options.stoppable = true,
                "self-signed-certs" => options.self_signed_certs = arguments.next(),
                "log-dir" => options.log_dir = arguments.next().map(Utf8PathBuf::from),
                "state-dir" => options.state_dir = arguments.next().map(Utf8PathBuf::from),
                _ => {}
            }
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_unknown_arguments_do_not_matter() {
        let all = "-stoppable x -log-dir /l -what --self-signed-certs /c/*.pem -disable-timeout";
        let options = Options::parse(all.split(' ').map(str::to_owned));
        let want = Options {
            disable_timeout: true,
            stoppable: true,
            self_signed_certs: Some("/c/*.pem".into()),
            log_dir: Some("/l".into()),
            state_dir: None,
        };
        assert_eq!(options, want);
        let nothing: [String; 0] = [];
        assert_eq!(Options::parse(nothing), Options::default());
    }
}

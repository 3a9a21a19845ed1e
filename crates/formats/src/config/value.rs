//! The kinds of values that only a configuration has: intervals, log levels, hook names (client
//! spec, section 3.2).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use camino::Utf8PathBuf;

/// A length of time, written `1h`, `90m`, `1d12h`, `1.5h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(Duration);

impl Interval {
    /// The length of time.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// In whole seconds.
    pub const fn as_secs(self) -> u64 {
        self.0.as_secs()
    }
}

/// The text is no interval.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an interval is numbers with the units w, d, h, m, s in that order, e.g. `1d12h`")]
pub struct IntervalError;

const UNITS: [(char, f64); 5] = [
    ('w', 604_800.0),
    ('d', 86_400.0),
    ('h', 3600.0),
    ('m', 60.0),
    ('s', 1.0),
];

impl FromStr for Interval {
    type Err = IntervalError;

    fn from_str(text: &str) -> Result<Self, IntervalError> {
        let mut rest = text.trim();
        let mut units = UNITS.iter();
        let mut seconds = 0.0;
        if rest.is_empty() {
            return Err(IntervalError);
        }
        while !rest.is_empty() {
            let at = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .ok_or(IntervalError)?;
            let number: f64 = rest[..at].parse().map_err(|_| IntervalError)?;
            let unit = rest[at..].chars().next().ok_or(IntervalError)?;
            // Taken from where the last unit stood, so none comes twice or out of order.
            let (_, factor) = units.find(|(name, _)| *name == unit).ok_or(IntervalError)?;
            seconds += number * factor;
            rest = &rest[at + unit.len_utf8()..];
        }
        Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|_| IntervalError)
    }
}

/// A length of time after which to give up: an [`Interval`] longer than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(Duration);

impl Timeout {
    /// The length of time.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

/// The text is no timeout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeoutError {
    /// It is no interval.
    #[error(transparent)]
    Interval(#[from] IntervalError),
    /// It is none at all.
    #[error("a timeout is longer than nothing")]
    Nothing,
}

impl FromStr for Timeout {
    type Err = TimeoutError;

    fn from_str(text: &str) -> Result<Self, TimeoutError> {
        match text.parse::<Interval>()?.duration() {
            Duration::ZERO => Err(TimeoutError::Nothing),
            duration => Ok(Self(duration)),
        }
    }
}

/// How important a log record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the configuration's")]
pub enum LogLevel {
    NotSet,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

/// The levels of the main and of the bus loggers, written `main` or `main:dbus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevels {
    /// The program's own records.
    pub main: LogLevel,
    /// The records of the bus; `error` unless given.
    pub dbus: LogLevel,
}

/// The text names no log level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("log levels are debug, info, warning, error and critical, written `main` or `main:dbus`")]
pub struct LogLevelError;

impl FromStr for LogLevel {
    type Err = LogLevelError;

    fn from_str(text: &str) -> Result<Self, LogLevelError> {
        Ok(match text.trim().to_ascii_lowercase().as_str() {
            "notset" => Self::NotSet,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" | "warning" => Self::Warning,
            "error" => Self::Error,
            "critical" | "fatal" => Self::Critical,
            _ => return Err(LogLevelError),
        })
    }
}

impl FromStr for LogLevels {
    type Err = LogLevelError;

    fn from_str(text: &str) -> Result<Self, LogLevelError> {
        match text.split_once(':') {
            Some((main, dbus)) => Ok(Self {
                main: main.parse()?,
                dbus: dbus.parse()?,
            }),
            None => Ok(Self {
                main: text.parse()?,
                dbus: LogLevel::Error,
            }),
        }
    }
}

/// What brings the files of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Downloader {
    /// The download manager if there is one on the system bus, else the engine of the client.
    Auto,
    /// The engine of the client.
    BuiltIn,
    /// The download manager; the engine of the client only where that one cannot be used.
    Manager,
}

/// The text names no downloader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a downloader is `auto`, `built-in` or `manager`")]
pub struct DownloaderError;

impl FromStr for Downloader {
    type Err = DownloaderError;

    fn from_str(text: &str) -> Result<Self, DownloaderError> {
        Ok(match text.trim() {
            "auto" => Self::Auto,
            "built-in" => Self::BuiltIn,
            "manager" => Self::Manager,
            _ => return Err(DownloaderError),
        })
    }
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct YesNo(pub bool);

/// The text is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is `yes` or `no`")]
pub struct YesNoError;

impl FromStr for YesNo {
    type Err = YesNoError;

    fn from_str(text: &str) -> Result<Self, YesNoError> {
        match text.trim() {
            "yes" => Ok(Self(true)),
            "no" => Ok(Self(false)),
            _ => Err(YesNoError),
        }
    }
}

/// A part of each day in local time, written `02:00-05:00`; it may go past midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Minute of the day with which it begins.
    from: u16,
    /// Minute of the day before which it ends.
    to: u16,
}

/// The text is no part of a day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a part of the day is two different times with a `-` between them, e.g. `02:00-05:00`")]
pub struct WindowError;

impl Window {
    /// Whether a time of the day is in it.
    pub fn contains(self, hour: u8, minute: u8) -> bool {
        let now = u16::from(hour) * 60 + u16::from(minute);
        if self.from < self.to {
            (self.from..self.to).contains(&now)
        } else {
            now >= self.from || now < self.to
        }
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        let time = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            let number = |text: &str, max| {
                let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
                let number = text.parse::<u16>().ok()?;
                (digits && number <= max).then_some(number)
            };
            let minutes = number(hour, 24)? * 60 + number(minute, 59)?;
            (minutes <= 24 * 60).then_some(minutes)
        };
        let (from, to) = text.split_once('-').ok_or(WindowError)?;
        match (time(from), time(to)) {
            (Some(from), Some(to)) if from != to && from < 24 * 60 => Ok(Self { from, to }),
            _ => Err(WindowError),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        let (hours, minutes) = ((from / 60, to / 60), (from % 60, to % 60));
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            hours.0, minutes.0, hours.1, minutes.1
        )
    }
}

/// A replaceable part, named as the original names its classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookName {
    /// `systemimage.device.SystemProperty`: asks the system for the device's name.
    SystemProperty,
    /// `systemimage.scores.WeightedScorer`: the score of client spec, section 11.
    WeightedScorer,
    /// `systemimage.apply.Reboot`: reboots into recovery.
    Reboot,
    /// `systemimage.apply.Noop`: does nothing.
    Noop,
    /// A program of the integrator's, by its absolute path.
    Program(Utf8PathBuf),
    /// Another dotted name, refused only when it is used.
    Other(Box<str>),
}

impl HookName {
    /// The default of `device`.
    pub const SYSTEM_PROPERTY: &str = "systemimage.device.SystemProperty";
    /// The default of `scorer`.
    pub const WEIGHTED_SCORER: &str = "systemimage.scores.WeightedScorer";
    /// The default of `apply`.
    pub const REBOOT: &str = "systemimage.apply.Reboot";
    /// The hook that does nothing.
    pub const NOOP: &str = "systemimage.apply.Noop";
}

impl fmt::Display for HookName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SystemProperty => Self::SYSTEM_PROPERTY,
            Self::WeightedScorer => Self::WEIGHTED_SCORER,
            Self::Reboot => Self::REBOOT,
            Self::Noop => Self::NOOP,
            Self::Program(path) => path.as_str(),
            Self::Other(name) => name,
        })
    }
}

/// The text is no dotted name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hook is a dotted name, e.g. `systemimage.apply.Reboot`, or the path of a program")]
pub struct HookNameError;

impl FromStr for HookName {
    type Err = HookNameError;

    fn from_str(text: &str) -> Result<Self, HookNameError> {
        Ok(match text.trim() {
            Self::SYSTEM_PROPERTY => Self::SystemProperty,
            Self::WEIGHTED_SCORER => Self::WeightedScorer,
            Self::REBOOT => Self::Reboot,
            Self::NOOP => Self::Noop,
            path if path.starts_with('/') => Self::Program(path.into()),
            other if other.contains('.') => Self::Other(other.into()),
            _ => return Err(HookNameError),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_day_may_go_past_midnight() {
        let cases = [
            ("02:00-05:00", (2, 0), true),
            ("02:00-05:00", (4, 59), true),
            ("02:00-05:00", (5, 0), false),
            ("02:00-05:00", (1, 59), false),
            (" 23:30 - 04:00 ", (23, 30), true),
            ("23:30-04:00", (0, 0), true),
            ("23:30-04:00", (4, 0), false),
            ("23:30-04:00", (12, 0), false),
            ("00:00-24:00", (23, 59), true),
            ("22:00-00:00", (23, 0), true),
            ("22:00-00:00", (0, 0), false),
        ];
        for (text, (hour, minute), inside) in cases {
            let window: Window = text.parse().unwrap();
            assert_eq!(
                window.contains(hour, minute),
                inside,
                "{text} {hour}:{minute}"
            );
        }
        assert_eq!(
            "23:30-04:05".parse::<Window>().unwrap().to_string(),
            "23:30-04:05"
        );
        for text in [
            "",
            "2",
            "2:00-05:00",
            "02:00",
            "02:00-02:00",
            "25:00-01:00",
            "24:30-01:00",
            "24:00-01:00",
            "02:60-03:00",
            "+2:00-03:00",
        ] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }

    #[test]
    fn intervals_are_read_as_the_original_reads_them() {
        for (text, seconds) in [
            ("1h", 3600),
            ("90m", 5400),
            ("1d12h", 129_600),
            ("1.5h", 5400),
            ("2w", 1_209_600),
        ] {
            assert_eq!(
                text.parse::<Interval>().map(Interval::as_secs),
                Ok(seconds),
                "{text}"
            );
        }
        for text in ["", "10", "30m1h", "1h1h", "1H", "h", "1..5h", "-1h", "1é"] {
            assert_eq!(text.parse::<Interval>(), Err(IntervalError), "{text}");
        }
    }

    #[test]
    fn the_second_log_level_is_error_unless_given() {
        let levels = |text: &str| text.parse::<LogLevels>().map(|l| (l.main, l.dbus)).ok();
        assert_eq!(levels("INFO"), Some((LogLevel::Info, LogLevel::Error)));
        assert_eq!(
            levels("debug:warn"),
            Some((LogLevel::Debug, LogLevel::Warning))
        );
        assert_eq!(levels("debug:"), None);
    }
}

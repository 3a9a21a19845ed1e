//! Who calls, and what it may do (specification, section 12).

/// The bus's answer about a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub user: u32,
    /// The application that it is confined to be, by `AppArmor`.
    pub confined: Option<String>,
}

const ROOT: u32 = 0;

impl Caller {
    /// From the user and the `LinuxSecurityLabel` of `GetConnectionCredentials`. Where `AppArmor` is
    /// not in force, a label is somebody else's and confines nobody.
    pub fn new(user: u32, label: Option<&[u8]>, apparmor: bool) -> Self {
        let confined = label.filter(|_| apparmor).and_then(application);
        Self { user, confined }
    }

    /// Whether it may call this service at all, which runs as `daemon`: root and the same user may.
    pub fn is_welcome(&self, daemon: u32) -> bool {
        self.user == ROOT || self.user == daemon
    }

    /// Whether it may see and steer a download of an application that is confined, or not.
    ///
    /// The policy of a confined application says the same by paths; where the bus does not mediate,
    /// this is all there is.
    pub fn may_steer(&self, confined: Option<&str>) -> bool {
        match &self.confined {
            None => true,
            Some(label) => confined == Some(label),
        }
    }

    /// Whether a process of the user `daemon` may read files and run commands in its name: only
    /// where it could do the same itself.
    pub fn is_equal_to(&self, daemon: u32) -> bool {
        self.confined.is_none() && self.user == daemon
    }
}

/// The application of a label: `unconfined` and nothing are none; a NUL at the end and a mode like
/// ` (enforce)` do not belong to it.
fn application(label: &[u8]) -> Option<String> {
    let label = label.strip_suffix(b"\0").unwrap_or(label);
    let text = String::from_utf8_lossy(label);
    let text = match text.rsplit_once(" (") {
        Some((name, mode)) if mode.ends_with(')') => name,
        _ => &text,
    };
    (!matches!(text, "" | "unconfined")).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_the_application_that_it_confines() {
        for (label, want) in [
            (&b"unconfined\0"[..], None),
            (b"", None),
            (b"\0", None),
            (
                b"com.example.app_app_1.0 (enforce)\0",
                Some("com.example.app_app_1.0"),
            ),
            (b"/usr/bin/foo (complain)", Some("/usr/bin/foo")),
            (b"a (b", Some("a (b")),
        ] {
            let caller = Caller::new(7, Some(label), true);
            assert_eq!(caller.confined.as_deref(), want);
            assert_eq!(Caller::new(7, Some(label), false).confined, None);
        }
        assert_eq!(Caller::new(7, None, true).confined, None);
    }

    #[test]
    fn each_application_steers_its_own_and_who_is_not_confined_all() {
        let free = Caller::new(7, None, true);
        let one = Caller::new(7, Some(b"one"), true);
        for (caller, owner, want) in [
            (&free, None, true),
            (&free, Some("one"), true),
            (&one, Some("one"), true),
            (&one, Some("other"), false),
            (&one, None, false),
        ] {
            assert_eq!(caller.may_steer(owner), want, "{caller:?} {owner:?}");
        }
    }

    #[test]
    fn root_and_the_same_user_are_welcome() {
        for (user, daemon, welcome, equal) in [
            (0, 0, true, true),
            (0, 7, true, false),
            (7, 7, true, true),
            (7, 0, false, false),
            (7, 8, false, false),
        ] {
            let caller = Caller::new(user, None, true);
            assert_eq!(caller.is_welcome(daemon), welcome, "{user} {daemon}");
            assert_eq!(caller.is_equal_to(daemon), equal, "{user} {daemon}");
        }
    }
}

//! May the caller of a method change the device?
//!
//! Root may. Anybody else may if polkit says so. Where there is no polkit, which decides that on
//! most systems, the person at the screen may: the user of the active session of the first seat.

use std::collections::HashMap;
use std::time::Duration;

use zbus::Connection;
use zbus::{ObjectPath, OwnedObjectPath, Variant};

use crate::call::{CallError, Remote};
use crate::presence;

const POLKIT: &str = "org.freedesktop.PolicyKit1";
const LOGIND: &str = "org.freedesktop.login1";

/// How long polkit may take when it need not ask a person.
const PATIENCE: Duration = Duration::from_secs(25);

/// The same when it may: somebody must notice, read and type.
const PATIENCE_WITH_PEOPLE: Duration = Duration::from_secs(300);

/// Whether the person at the screen may be asked for a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interaction {
    /// The caller said so in its message, and can wait.
    Allowed,
    /// No.
    Never,
}

/// Why somebody may not do something.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// The bus does not say who the caller is.
    #[error("nobody knows which user `{caller}` is")]
    Nobody {
        /// Its name on the bus.
        caller: String,
        /// What went wrong.
        source: CallError,
    },
    /// The system's policy says no.
    #[error("polkit does not allow user {user} to do `{action}`")]
    Policy {
        /// The caller's user.
        user: u32,
        /// The action.
        action: String,
    },
    /// The system's policy wants a password, and nobody may be asked for it now.
    #[error("polkit wants user {user} to authenticate for `{action}`")]
    Authentication {
        /// The caller's user.
        user: u32,
        /// The action.
        action: String,
    },
    /// Polkit is there but gives no answer.
    #[error("polkit does not say whether user {user} may do `{action}`")]
    Unsaid {
        /// The caller's user.
        user: u32,
        /// The action.
        action: String,
        /// What went wrong.
        source: CallError,
    },
    /// There is no polkit, and it is not the person at the screen.
    #[error("user {user} is neither root nor the user at the screen")]
    Elsewhere {
        /// The caller's user.
        user: u32,
    },
}

impl Denied {
    /// What a person can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Nobody { .. } => None,
            Self::Policy { .. } | Self::Elsewhere { .. } => Some("run this as root"),
            Self::Authentication { .. } => {
                Some("run this as root, or where a password can be asked for")
            }
            Self::Unsaid { .. } => Some("check that polkit runs and that its policy is installed"),
        }
    }
}

/// What polkit says.
#[derive(Debug)]
enum Policy {
    /// There is none on this system.
    Absent,
    Allowed,
    Refused,
    /// Yes, with a password.
    Challenge,
    Unsaid(CallError),
}

/// Says whether the sender of a message may do `action`, an action of a polkit policy.
///
/// `caller` is the sender's unique name, from the message's header. Whatever cannot be found out
/// counts against the caller.
pub async fn authorize(
    connection: &Connection,
    caller: &str,
    action: &str,
    interaction: Interaction,
) -> Result<(), Denied> {
    let bus = Remote::bus(connection);
    let user: u32 = match bus.call("GetConnectionUnixUser", &caller).await {
        Ok(user) => user,
        Err(source) => {
            let caller = caller.to_owned();
            return Err(Denied::Nobody { caller, source });
        }
    };
    if user == ROOT {
        return Ok(());
    }
    let policy = policy(connection, caller, action, interaction).await;
    let console = match policy {
        Policy::Absent => console(connection).await,
        _ => None,
    };
    decide(user, policy, console, action)
}

const ROOT: u32 = 0;

fn decide(user: u32, policy: Policy, console: Option<u32>, action: &str) -> Result<(), Denied> {
    let action = action.to_owned();
    match policy {
        _ if user == ROOT => Ok(()),
        Policy::Allowed => Ok(()),
        Policy::Refused => Err(Denied::Policy { user, action }),
        Policy::Challenge => Err(Denied::Authentication { user, action }),
        Policy::Unsaid(source) => Err(Denied::Unsaid {
            user,
            action,
            source,
        }),
        Policy::Absent if console == Some(user) => Ok(()),
        Policy::Absent => Err(Denied::Elsewhere { user }),
    }
}

async fn policy(
    connection: &Connection,
    caller: &str,
    action: &str,
    interaction: Interaction,
) -> Policy {
    match presence::reachable(connection, POLKIT).await {
        Ok(true) => {}
        Ok(false) => return Policy::Absent,
        Err(error) => return Policy::Unsaid(error),
    }
    let asked = ask(connection, caller, action, interaction).await;
    match asked {
        Ok((true, _)) => Policy::Allowed,
        Ok((false, true)) => Policy::Challenge,
        Ok((false, false)) => Policy::Refused,
        Err(error) => Policy::Unsaid(error),
    }
}

/// Whether polkit allows it, and whether it would after a password.
async fn ask(
    connection: &Connection,
    caller: &str,
    action: &str,
    interaction: Interaction,
) -> Result<(bool, bool), CallError> {
    type Answer = (bool, bool, HashMap<String, String>);
    const METHOD: &str = "CheckAuthorization";
    let authority = Remote {
        connection,
        service: POLKIT,
        path: "/org/freedesktop/PolicyKit1/Authority",
        interface: "org.freedesktop.PolicyKit1.Authority",
    };
    let (flags, patience) = match interaction {
        Interaction::Allowed => (1_u32, PATIENCE_WITH_PEOPLE),
        Interaction::Never => (0, PATIENCE),
    };
    let subject = HashMap::from([("name", Variant::from(caller))]);
    let details: HashMap<&str, &str> = HashMap::new();
    // The last is a name to cancel the question by; a caller that goes away cancels it too.
    let body = (("system-bus-name", subject), action, details, flags, "");
    let answer = authority.send(METHOD, &body, patience).await?;
    let ((allowed, challenge, _),): (Answer,) = authority.read(METHOD, &answer)?;
    Ok((allowed, challenge))
}

/// The user of the active session of the first seat; none if nobody is logged in there, or there is
/// no logind.
async fn console(connection: &Connection) -> Option<u32> {
    if !presence::runs(connection, LOGIND).await.ok()? {
        return None;
    }
    let manager = Remote {
        connection,
        service: LOGIND,
        path: "/org/freedesktop/login1",
        interface: "org.freedesktop.login1.Manager",
    };
    let seat: OwnedObjectPath = manager.call("GetSeat", &"seat0").await.ok()?;
    let seat = Remote {
        path: &seat,
        interface: "org.freedesktop.login1.Seat",
        ..manager
    };
    let (_, session): (String, ObjectPath<'_>) =
        seat.properties().await.ok()?.get("ActiveSession")?;
    let session = Remote {
        path: &session,
        interface: "org.freedesktop.login1.Session",
        ..manager
    };
    let session = session.properties().await.ok()?;
    // A screen that asks for a name and a password is not a person.
    let class: String = session.get("Class")?;
    let person = class == "user" && session.get("Active")? && !session.get("Remote")?;
    let (user, _): (u32, ObjectPath<'_>) = session.get("User")?;
    person.then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent() -> CallError {
        CallError::Silent {
            service: POLKIT.into(),
            method: "CheckAuthorization",
        }
    }

    #[test]
    fn root_polkit_and_the_person_at_the_screen_decide_in_this_order() {
        type Said = fn() -> Policy;
        const DENIED: [&str; 4] = [
            "polkit does not allow user 1000 to do `a.b`",
            "polkit wants user 1000 to authenticate for `a.b`",
            "polkit does not say whether user 1000 may do `a.b`",
            "user 1000 is neither root nor the user at the screen",
        ];
        let cases: [(u32, Said, Option<u32>, Option<&str>); 11] = [
            (0, || Policy::Absent, None, None),
            (0, || Policy::Refused, None, None),
            (0, || Policy::Unsaid(silent()), None, None),
            (1000, || Policy::Allowed, None, None),
            (1000, || Policy::Refused, Some(1000), Some(DENIED[0])),
            (1000, || Policy::Challenge, Some(1000), Some(DENIED[1])),
            (
                1000,
                || Policy::Unsaid(silent()),
                Some(1000),
                Some(DENIED[2]),
            ),
            (1000, || Policy::Absent, Some(1000), None),
            (1000, || Policy::Absent, Some(0), Some(DENIED[3])),
            (1000, || Policy::Absent, Some(1001), Some(DENIED[3])),
            (1000, || Policy::Absent, None, Some(DENIED[3])),
        ];
        for (user, policy, console, denied) in cases {
            let got = decide(user, policy(), console, "a.b").map_err(|denied| denied.to_string());
            let got = got.err();
            assert_eq!(got.as_deref(), denied, "{user} {:?} {console:?}", policy());
        }
    }
}

//! Errors in the words that callers of the original know (client spec, sections 15.4 and 15.5): the
//! text of an error, and for downloads the name of its class in front.

use std::error::Error;

use system_image_fetch::{FetchError, Trouble};
use system_image_trust::{ChainError, VerifyError};

use crate::session::Missing;
use crate::transfer::Canceled;
use crate::update::NoRoom;

/// The text of a failed check; empty for one that was canceled.
pub(super) fn text(error: &anyhow::Error) -> String {
    if error.is::<Canceled>() {
        return String::new();
    }
    let known = error.chain().find_map(|cause| {
        let fetch = cause.downcast_ref::<FetchError>().map(ToString::to_string);
        fetch.or_else(|| cause.downcast_ref::<Missing>().map(Missing::as_transfer))
    });
    known.unwrap_or_else(|| format!("{error:#}"))
}

/// The reason of a failed download.
pub(super) fn reason(error: &anyhow::Error) -> String {
    match error.chain().find_map(class) {
        Some("Canceled") => "Canceled".to_owned(),
        Some("TimeoutError") => "TimeoutError".to_owned(),
        Some(class) => format!("{class}: {}", text(error)),
        None => format!("UpdateError: {}", text(error)),
    }
}

fn class(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = cause.downcast_ref::<FetchError>() {
        return Some(match error {
            FetchError::Transfer {
                trouble: Trouble::Stalled,
                ..
            } => "TimeoutError",
            FetchError::Full { .. } | FetchError::Disk { .. } | FetchError::Temporary { .. } => {
                "OSError"
            }
            _ => "FileNotFoundError",
        });
    }
    if cause.is::<Canceled>() {
        Some("Canceled")
    } else if cause.is::<Missing>() {
        Some("FileNotFoundError")
    } else if cause.is::<VerifyError>()
        || matches!(cause.downcast_ref(), Some(ChainError::Signature { .. }))
    {
        Some("SignatureError")
    } else if cause.is::<NoRoom>() {
        Some("OSError")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn errors_are_told_as_the_original_tells_them() {
        let absent = || FetchError::Absent {
            url: "http://host/pool/x.tar.xz".into(),
            status: 404,
        };
        let told = "The requested URL returned error: 404: http://host/pool/x.tar.xz";
        let error = anyhow!(absent()).context("cannot download the update");
        assert_eq!(text(&error), told);
        assert_eq!(reason(&error), format!("FileNotFoundError: {told}"));
        assert_eq!(reason(&Canceled.into()), "Canceled");
        assert_eq!(text(&Canceled.into()), "");
        let error = Err::<(), _>(anyhow!("why")).context("what").unwrap_err();
        assert_eq!(text(&error), "what: why");
        assert_eq!(reason(&error), "UpdateError: what: why");
    }
}

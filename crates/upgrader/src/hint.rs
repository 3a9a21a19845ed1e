//! What the person at the keyboard can do about an error, whichever layer it came from.

use system_image_delta::ApplyError;
use system_image_trust::{ChainError, VerifyError};

use crate::config::ConfigError;
use crate::drop_box::DropBoxError;
use crate::plan::PlanError;
use crate::run::NoRoom;
use crate::system::SystemError;

/// The first hint that the error or one of its causes has.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let fixed = if let Some(error) = cause.downcast_ref::<PlanError>() {
            error.hint()
        } else if let Some(error) = cause.downcast_ref::<SystemError>() {
            error.hint()
        } else if let Some(error) = cause.downcast_ref::<ApplyError>() {
            error.hint()
        } else if let Some(error) = cause.downcast_ref::<VerifyError>() {
            error.hint()
        } else if cause.is::<NoRoom>() {
            Some("the image is too large for this device")
        } else if cause.is::<ConfigError>() {
            Some("the settings and their meaning are in `docs/upgrader.md`")
        } else if let Some(DropBoxError::Read { .. }) = cause.downcast_ref() {
            Some("the client must download the update again")
        } else {
            None
        };
        let own = || {
            cause
                .downcast_ref::<ChainError>()
                .and_then(ChainError::hint)
        };
        fixed.map(str::to_owned).or_else(own)
    })
}

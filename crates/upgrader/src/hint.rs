//! What the person at the keyboard can do about an error, whichever layer it came from.

use std::error::Error;

use system_image_delta::{ApplyError, patch};
use system_image_trust::{ChainError, VerifyError};

use crate::config::ConfigError;
use crate::deploy::DeployError;
use crate::drop_box::DropBoxError;
use crate::partition::PartitionError;
use crate::plan::PlanError;
use crate::prepare::NoRoom;
use crate::run::GaveUp;
use crate::stage::StageError;
use crate::storage::SystemError;
use crate::version::VersionError;

/// The first hint that the error or one of its causes has.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        let own = || {
            let chain = cause.downcast_ref::<ChainError>();
            chain.and_then(ChainError::hint)
        };
        fixed(cause).map(str::to_owned).or_else(own)
    })
}

/// The client remembers that a patch failed.
fn patch_hint(error: &patch::ApplyError) -> Option<&'static str> {
    Some(match error {
        patch::ApplyError::Memory { .. } => {
            "set `patch_memory` of the client to what `[limits] patch_memory_mib` allows"
        }
        patch::ApplyError::OtherBase { .. } | patch::ApplyError::Base(_) => {
            "the installed system was changed; the client's next update comes without patches"
        }
        _ => return None,
    })
}

fn fixed(cause: &(dyn Error + 'static)) -> Option<&'static str> {
    /// Hints of an error, if it is of that type.
    fn of<E: Error + 'static>(
        cause: &(dyn Error + 'static),
        hint: impl Fn(&E) -> Option<&'static str>,
    ) -> Option<&'static str> {
        cause.downcast_ref::<E>().and_then(hint)
    }
    of(cause, PlanError::hint)
        .or_else(|| of(cause, SystemError::hint))
        .or_else(|| of(cause, DeployError::hint))
        .or_else(|| of(cause, ApplyError::hint))
        .or_else(|| of(cause, VerifyError::hint))
        .or_else(|| of(cause, PartitionError::hint))
        .or_else(|| of(cause, VersionError::hint))
        .or_else(|| of(cause, |_: &NoRoom| Some("the image is too large for this device")))
        .or_else(|| of(cause, StageError::hint))
        .or_else(|| of(cause, patch_hint))
        .or_else(|| {
            of(cause, |error: &GaveUp| {
                Some(if error.whole {
                    "have the client download the update again"
                } else {
                    "install a full image: the client's command file with `format system` in the drop box"
                })
            })
        })
        .or_else(|| {
            of(cause, |_: &ConfigError| {
                Some("the settings and their meaning are in `docs/upgrader.md`")
            })
        })
        .or_else(|| {
            of(cause, |error: &DropBoxError| {
                matches!(error, DropBoxError::Read { .. })
                    .then_some("the client must download the update again")
            })
        })
}

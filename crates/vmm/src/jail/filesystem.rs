//! A view of the file system in which nothing is left to open.

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus};

use super::{Missing, libc_process};

/// Makes the root directory an empty one, and has Landlock refuse every path as well. Either
/// suffices. The first fails without a file system mounted at `/proc`, or without the right to
/// change the root; the second fails on kernels without Landlock.
pub(super) fn close() -> Result<(), Missing> {
    // Landlock first: it needs no privilege, and refuses no change of the root.
    let landlock = landlock_everything();
    let chroot = libc_process::enter_empty_root();
    match (chroot, landlock) {
        (Err(chroot), Err(landlock)) => Err(Missing::Filesystem { chroot, landlock }),
        (Err(error), Ok(())) => {
            tracing::info!(%error, "no empty root directory: Landlock alone closes the file system");
            Ok(())
        }
        (Ok(()), Err(error)) => {
            tracing::info!(error, "no Landlock: the empty root directory alone closes the file system");
            Ok(())
        }
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// Handles every access that Landlock knows and allows none.
fn landlock_everything() -> Result<(), String> {
    let restrict = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V5))?
            .create()?
            .restrict_self()
    };
    match restrict() {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => {
            Err("the kernel does not have it enabled".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

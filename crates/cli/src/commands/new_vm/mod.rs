//! A VM that `plimsoll run` and `plimsoll create` define: of a definition, or of a disk image.
//!
//! `base.rs` finds the image and keeps one copy of it where the daemon takes base images from,
//! `disk.rs` makes the VM's own disk, which goes again if the VM is refused, and `from_image.rs`
//! makes the definition.

mod base;
mod disk;
mod from_image;

use std::path::PathBuf;

use anyhow::Result;
use plimsoll_protocol::Place;
use plimsoll_protocol::definition::VmDefinition;
use plimsoll_protocol::status::VmStatus;

use self::from_image::FromImage;
use crate::client::Client;
use crate::context::Context;
use crate::definition_file;

/// For the help of both commands.
pub(super) const IMAGE_HELP: &str = "\
With --image no definition is needed. The VM boots what the image's boot loader would boot, and what it changes goes to a disk of its own: NAME.qcow2 in the daemon's directory of disks (/var/lib/plimsoll/disks), which plimsoll rm leaves. The image itself is never written. One that does not lie in the daemon's image_directory (/var/lib/plimsoll/images) is copied there first, once for all VMs. Both directories are root's, and so the command is. The VM has no network without --tap. plimsoll inspect and edit show and change what it became.";

/// What a new VM is.
#[derive(Debug, clap::Args)]
pub(super) struct NewVm {
    /// The VM's definition; "-": the standard input
    #[arg(value_name = "DEF.toml", required_unless_present = "image")]
    definition: Option<PathBuf>,
    #[command(flatten)]
    image: FromImage,
    /// Resource pool that it is in, instead of the definition's; "/": the host itself
    #[arg(long, value_name = "POOL")]
    pool: Option<Place>,
}

impl NewVm {
    /// Defines the VM by `define`, and returns its status; `None`: its definition is only printed.
    ///
    /// # Errors
    /// What is wrong with what was given, or the daemon's refusal. No disk is left then.
    pub(super) fn define(
        &self,
        context: &Context,
        define: impl FnOnce(&Client, &VmDefinition) -> Result<VmStatus>,
    ) -> Result<Option<VmStatus>> {
        let Some(path) = &self.definition else {
            return self.image.define(self.pool.as_ref(), context, define);
        };
        let mut definition = definition_file::read(path)?;
        if let Some(pool) = &self.pool {
            definition.pool = pool.clone();
        }
        define(&context.client, &definition).map(Some)
    }
}

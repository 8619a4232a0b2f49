use std::sync::{Arc, Mutex};

use plimsoll_image::{FileStorage, Image};
use plimsoll_protocol::control::ExitReason;
use plimsoll_sys::lock;

/// The images that a guest writes. Where the data of what it wrote without a flush lies is known in
/// memory only, so they are saved before the VMM ends. Clones are the same images.
#[derive(Clone, Default)]
pub struct WrittenImages {
    /// Empty once they have been saved.
    images: Arc<Mutex<Vec<Named>>>,
}

/// An image, with the name of its device.
type Named = (String, Arc<Image<FileStorage>>);

impl WrittenImages {
    /// These images, each with the name of its device.
    pub fn new(images: Vec<Named>) -> Self {
        Self { images: Arc::new(Mutex::new(images)) }
    }

    /// Saves the images, the first time that it is called. Returns the VM's `reason` to end, with
    /// what could not be saved.
    #[must_use]
    pub fn saved(&self, reason: ExitReason) -> ExitReason {
        // Another thread that ends the VM waits until they are saved.
        let mut images = lock(&self.images);
        let failed = |(name, image): Named| image.flush().err().map(|error| format!("{name}: {error}"));
        let failed: Vec<String> = images.drain(..).filter_map(failed).collect();
        if failed.is_empty() {
            return reason;
        }
        let text =
            format!("what its guest wrote last could not be saved to its image ({})", failed.join("; "));
        match reason {
            ExitReason::Shutdown => ExitReason::Failed(format!("the guest has shut down, but {text}")),
            ExitReason::Crashed(how) => ExitReason::Crashed(format!("{how}; {text}")),
            ExitReason::Failed(what) => ExitReason::Failed(format!("{what}; {text}")),
        }
    }
}

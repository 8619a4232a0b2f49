use std::sync::{Arc, Mutex};

use plimsoll_image::{FileStorage, Image};
use plimsoll_protocol::control::ExitReason;
use plimsoll_sys::lock;

/// The images that a guest writes. Where the data of what it wrote without a flush lies is known in
/// memory only, so they are saved before the VMM ends. Clones are the same images.
#[derive(Clone, Default)]
pub struct WrittenImages {
    /// By the names of their devices.
    images: Arc<Vec<(String, Arc<Image<FileStorage>>)>>,
    is_over: Arc<Mutex<bool>>,
}

impl WrittenImages {
    /// These images, each with the name of its device.
    pub fn new(images: Vec<(String, Arc<Image<FileStorage>>)>) -> Self {
        Self { images: Arc::new(images), is_over: Arc::default() }
    }

    /// Saves the images, the first time that it is called. Returns the VM's `reason` to end, with
    /// what could not be saved.
    #[must_use]
    pub fn saved(&self, reason: ExitReason) -> ExitReason {
        // Another thread that ends the VM waits until they are saved.
        let mut is_over = lock(&self.is_over);
        if std::mem::replace(&mut *is_over, true) {
            return reason;
        }
        let failed = |(name, image): &(String, Arc<Image<FileStorage>>)| {
            image.flush().err().map(|error| format!("{name}: {error}"))
        };
        let failed: Vec<String> = self.images.iter().filter_map(failed).collect();
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

use anyhow::Result;
use serde::Serialize;

use crate::context::Context;
use crate::exit::{AlreadyReported, Status, status_of};
use crate::output::{ReaderGone, complain};

/// What comes of a command for each of its VMs: printed as it comes, one line a VM. A VM that fails
/// holds up no other.
pub(crate) struct Batch<'a> {
    context: &'a Context,
    plural: bool,
    first: Option<Status>,
}

impl<'a> Batch<'a> {
    /// A batch of one VM, or of several.
    pub(crate) fn new(context: &'a Context, plural: bool) -> Self {
        Self { context, plural, first: None }
    }

    /// Prints what came of one VM: its facts, or why it failed.
    ///
    /// # Errors
    /// The rest is in vain: the output cannot be written, or the daemon does not answer.
    pub(crate) fn tell<T: Serialize>(
        &mut self,
        outcome: Result<T>,
        text: impl FnOnce(&T) -> String,
    ) -> Result<()> {
        let output = &self.context.output;
        match outcome {
            Ok(facts) if self.plural => output.fact_line(&facts, text),
            Ok(facts) => output.facts(&facts, text),
            Err(error) if error.is::<ReaderGone>() || status_of(&error) == Status::NoDaemon => Err(error),
            Err(error) => {
                complain(&error, output.is_json());
                self.first.get_or_insert(status_of(&error));
                Ok(())
            }
        }
    }

    /// # Errors
    /// [`AlreadyReported`], with the status of the first VM that failed.
    pub(crate) fn end(self) -> Result<()> {
        self.first.map_or(Ok(()), |status| Err(anyhow::Error::new(AlreadyReported(status))))
    }
}

use crate::client::Client;
use crate::output::Output;

/// What every command works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) output: Output,
}

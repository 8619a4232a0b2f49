mod fetch;
mod send;

use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail};
use plimsoll_protocol::VmName;
use plimsoll_protocol::agent::{CommandEnd, Execute, OutputStream};

use crate::context::Context;
use crate::exit::{Status, failed};
use crate::guest::{Input, connect, execute};

const HELP: &str = "\
One of both is in a guest, VM:PATH with an absolute path. A file is there whole or not at all, whatever fails on the way. It belongs to the user that copies it, root in the guest, and its mode is that of a new file. A destination that is a directory gets a file of the source's name. Only a regular file is replaced: a device, a pipe or a directory of that name is an error. A symbolic link to a file, or to nothing, is replaced itself; the file that it points to stays as it is.

The VM needs [vsock] in its definition, and plimsoll-agent in the guest; a copy to the guest also sh and the programs of coreutils or busybox.

Examples:
  plimsoll cp site.tar web1:/srv/site.tar
  plimsoll cp web1:/var/log/syslog .";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Cp {
    /// The file to copy: FILE, or VM:FILE in a guest
    #[arg(value_name = "[VM:]FILE")]
    from: End,
    /// Where to: a file or a directory
    #[arg(value_name = "[VM:]PATH")]
    to: End,
}

/// A path here or in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Here(PathBuf),
    Guest(VmName, String),
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // As with scp: a slash before the colon makes it a path.
        match text.split_once(':').filter(|(vm, _)| !vm.contains('/')) {
            Some((vm, path)) if path.starts_with('/') => {
                Ok(Self::Guest(vm.parse().map_err(|e| format!("{e}"))?, path.to_owned()))
            }
            Some((_, path)) => Err(format!("{path:?}: write an absolute path of the guest, or ./{text}")),
            None => Ok(Self::Here(text.into())),
        }
    }
}

impl Cp {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        match (&self.from, &self.to) {
            (End::Here(from), End::Guest(vm, to)) => send::send(from, vm, to, context),
            (End::Guest(vm, from), End::Here(to)) => fetch::fetch(vm, from, to, context),
            _ => Err(failed(Status::Invalid, "name one file here, and one in a guest as VM:PATH")),
        }
    }
}

/// Runs a command in a guest that writes what `write` is given. What it says on its standard error
/// becomes the error.
fn run(
    vm: &VmName,
    words: &[&str],
    input: Input<impl Read + Send + 'static>,
    mut write: impl FnMut(&[u8]) -> Result<()>,
    context: &Context,
) -> Result<()> {
    /// Longest text of an error.
    const MAX_ERROR: usize = 1000;
    let stream = connect(&context.client.vm(vm)?, context)?;
    let command = words.iter().map(|word| (*word).to_owned()).collect();
    let mut said = Vec::new();
    let end = execute(&stream, Execute { command, directory: None }, input, |stream, bytes| match stream {
        OutputStream::Out => write(bytes),
        OutputStream::Error => {
            said.extend(bytes.iter().take(MAX_ERROR.saturating_sub(said.len())));
            Ok(())
        }
    })?;
    match end {
        CommandEnd::Exited(0) => Ok(()),
        _ if said.is_empty() => bail!("the guest could not copy it ({end:?})"),
        _ => bail!("{}", String::from_utf8_lossy(&said).trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_in_a_guest_where_a_name_and_a_colon_stand_before_its_path() {
        let guest = End::Guest("web1".parse().unwrap(), "/a:b".to_owned());
        assert_eq!("web1:/a:b".parse(), Ok(guest));
        assert_eq!("./web1:/a".parse(), Ok(End::Here("./web1:/a".into())));
        assert_eq!("a".parse(), Ok(End::Here("a".into())));
        assert!("web1:a".parse::<End>().unwrap_err().contains("absolute"));
        assert!(".x:/a".parse::<End>().is_err());
    }
}

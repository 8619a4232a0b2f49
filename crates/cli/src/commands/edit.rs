use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};
use plimsoll_protocol::VmName;
use plimsoll_protocol::status::{Power, VmStatus};

use crate::context::Context;
use crate::definition_file;
use crate::exit::{Status, failed, status_of};

/// The editor of a system on which nobody has chosen one.
const EDITOR: &str = "vi";

const HELP: &str = "\
Opens the definition in $VISUAL, $EDITOR or vi. What is saved is checked as a whole before anything changes; on an error nothing does, and the text is kept in a file that the error names. While the VM is on, only what plimsoll set changes can be changed.

Examples:
  plimsoll edit web1
  EDITOR='sed -i s/512MiB/1GiB/' plimsoll edit web1";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Edit {
    /// Name of the VM
    #[arg(value_name = "VM")]
    name: VmName,
}

impl Edit {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let name = &self.name;
        let (before, tag) = context.client.tagged_definition(name)?;
        let text = before.to_toml()?;
        let file = tempfile::Builder::new().prefix(&format!("{name}-")).suffix(".toml").tempfile();
        let file = file.context("making a file to edit")?;
        std::fs::write(&file, &text).with_context(|| format!("writing {}", file.path().display()))?;
        edit(file.path())?;
        let edited = std::fs::read(&file).with_context(|| format!("reading {}", file.path().display()))?;
        if edited == text.as_bytes() {
            context.output.remark(&format!("{name} is as it was: nothing was edited"));
            return Ok(());
        }
        match self.put(&edited, tag.as_deref(), context) {
            Ok(vm) => context.output.facts(&vm, sentence),
            Err(error) => {
                let (status, path) = (status_of(&error), file.into_temp_path().keep()?);
                let kept = format!("{error:#}; nothing is changed, the text is in {}", path.display());
                Err(failed(status, kept))
            }
        }
    }

    fn put(&self, edited: &[u8], tag: Option<&str>, context: &Context) -> Result<VmStatus> {
        let name = &self.name;
        let here = std::env::current_dir().context("looking for the current directory")?;
        let definition = definition_file::parse(edited, &here).map_err(|e| failed(Status::Invalid, e))?;
        if definition.name != *name {
            let text = format!("it names VM {}: plimsoll rename changes names", definition.name);
            return Err(failed(Status::Invalid, text));
        }
        // Nobody holds the definition while a person edits it: the daemon refuses what is too late.
        context.client.redefine(&definition, tag)
    }
}

fn edit(path: &Path) -> Result<()> {
    let chosen = ["VISUAL", "EDITOR"].iter().filter_map(|name| std::env::var(name).ok());
    let editor = chosen.into_iter().find(|editor| !editor.trim().is_empty());
    let editor = editor.unwrap_or_else(|| EDITOR.to_owned());
    // As git does: the variable may hold options, too.
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(path).status();
    match status.with_context(|| format!("starting the editor {editor}"))? {
        status if status.success() => Ok(()),
        status => Err(anyhow!("the editor {editor} failed ({status}): nothing is changed")),
    }
}

fn sentence(vm: &VmStatus) -> String {
    let now = if vm.power == Power::Off { "" } else { ", in effect now" };
    format!("{} is defined anew{now}", vm.name)
}

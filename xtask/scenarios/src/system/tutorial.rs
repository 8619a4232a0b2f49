//! The tutorial of the book, step by step, as its reader does it. Guests are models, which boot no
//! disk: in place of what a reader types at a guest's console, each uses memory and frees it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use plimsoll_book::tutorial::{self, Step};
use plimsoll_lab::workspace::note;
use plimsoll_operate::Stage;
use plimsoll_protocol::status::{Power, VmStatus};
use plimsoll_units::Bytes;
use toml::{Table, Value};

use crate::guests::Guests;

/// What a guest uses for a while: all guests together more than the tutorial's budget.
const USED: Bytes = Bytes::mib(400);

/// How long a guest may take for that, and the host to take the memory back.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn run(_: Guests) -> Result<()> {
    let steps = tutorial::steps()?;
    let configuration = steps.iter().find_map(|step| match step {
        Step::Configure(table) => Some(table),
        _ => None,
    });
    let budget = configuration.and_then(|table| table.get("budget")?.as_str());
    let budget: Bytes = budget.context("the tutorial sets no budget")?.parse()?;
    let stage = Stage::open(budget)?;
    let result = walk(&stage, &steps);
    stage.explained(result)
}

fn walk(stage: &Stage, steps: &[Step]) -> Result<()> {
    // In place of the image that the reader downloads.
    type_in(stage, &["image", "create", "debian-12-genericcloud-amd64.qcow2", "8MiB"])?;
    let mut used = Bytes::ZERO;
    let mut typed = 0;
    for step in steps {
        match step {
            Step::Configure(_) => {}
            Step::Define(table) => save(stage, table)?,
            Step::Type(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let ["plimsoll", arguments @ ..] = words.as_slice() else { continue };
                typed += 1;
                if let ["console", name] = arguments {
                    use_memory(stage, name)?;
                    used = used + USED;
                    continue;
                }
                let said = type_in(stage, arguments)?;
                expect(stage, arguments, &said)?;
            }
        }
    }
    let budget = stage.host()?.budget;
    ensure!(used > budget, "guests used {used} in turn, which is no more than the budget {budget}");
    ensure!(stage.vms()?.is_empty(), "the tutorial leaves VMs behind");
    ensure!(typed > 15, "the tutorial has only {typed} commands of plimsoll");
    Ok(())
}

/// Saves a definition, whose guest is a model.
fn save(stage: &Stage, definition: &Table) -> Result<()> {
    let mut definition = definition.clone();
    for key in ["disk", "net", "cloud_init"] {
        definition.remove(key);
    }
    let parts = ["uid", "filesystem", "seccomp", "cgroup"].map(Value::from).to_vec();
    definition.insert("boot".to_owned(), Table::from_iter([("model".to_owned(), Value::from(true))]).into());
    definition
        .insert("jail".to_owned(), Table::from_iter([("allow_missing".to_owned(), parts.into())]).into());
    let name = definition.get("name").and_then(Value::as_str).context("a definition without a name")?;
    fs::write(stage.path().join(format!("{name}.toml")), toml::to_string(&definition)?)?;
    Ok(())
}

/// Runs `plimsoll` with `arguments` where the definitions are, and returns what it prints.
fn type_in(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let line = format!("plimsoll {}", arguments.join(" "));
    note(&line);
    // On a terminal it would go on.
    let once: &[&str] = if arguments == ["top"] { &["--once"] } else { &[] };
    let mut command = stage.command(&[arguments, once].concat())?;
    let output = command.current_dir(stage.path()).output().with_context(|| line.clone())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let why = String::from_utf8_lossy(&output.stderr);
    // A host that cannot run guests' kernels runs models.
    let judges_the_host = arguments == ["doctor"] && output.status.code() == Some(1);
    ensure!(output.status.success() || judges_the_host, "{line}: {}", why.trim());
    note(&said);
    Ok(said)
}

/// What a command that the text speaks of must have shown or done.
fn expect(stage: &Stage, arguments: &[&str], said: &str) -> Result<()> {
    match arguments {
        ["ps" | "top" | "explain"] => {
            let running: Vec<VmStatus> =
                stage.vms()?.into_iter().filter(|vm| vm.power == Power::On).collect();
            for vm in running {
                ensure!(
                    said.contains(vm.name.as_str()),
                    "plimsoll {} does not name {}",
                    arguments[0],
                    vm.name
                );
            }
        }
        ["set", name, "--shares", shares] => {
            let vm = stage.vm(name)?;
            ensure!(vm.shares.to_string() == **shares, "{name} has shares {}", vm.shares);
        }
        ["set" | "explain" | "show" | "inspect" | "logs", ..] => {
            ensure!(!said.trim().is_empty(), "plimsoll {} printed nothing", arguments[0]);
        }
        ["run", ..] => ensure!(stage.vms()?.iter().any(|vm| vm.power == Power::On), "nothing runs"),
        ["stop", names @ ..] => {
            for name in names {
                ensure!(stage.vm(name)?.power == Power::Off, "{name} is not off");
            }
        }
        ["doctor" | "image" | "events" | "history" | "rm" | "restart" | "version", ..] => {}
        other => bail!("the tutorial has plimsoll {}: say in this scenario what follows", other.join(" ")),
    }
    Ok(())
}

/// The guest uses memory, and frees it; the host gets it back.
fn use_memory(stage: &Stage, name: &str) -> Result<()> {
    note(&format!("{name} uses {USED}"));
    let mut guest = stage.toucher(name)?;
    guest.ask(&format!("touch {} 1", USED.0), TIMEOUT)?;
    guest.verify_all(TIMEOUT)?;
    ensure!(stage.vm(name)?.grant >= USED, "{name} uses {USED} and was granted {}", stage.vm(name)?.grant);
    guest.ask("free", TIMEOUT)?;
    stage.wait(&format!("{name} has given back what it freed"), TIMEOUT, |stage| {
        Ok((stage.vm(name)?.grant < USED).then_some(()))
    })
}

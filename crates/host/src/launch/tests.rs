use std::path::Path;

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::sync::mpsc;

use super::*;
use crate::config::Config;
use crate::core::RunId;
use crate::forks::apart;
use crate::incoming::Incoming;

/// The VMM of the daemon's tests, which cargo builds with them: it is an example.
fn fake_vmm() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let vmm = tests.parent().and_then(Path::parent).unwrap().join("examples/fake_vmm");
    assert!(vmm.exists(), "{} is not there: build it with cargo build --examples", vmm.display());
    vmm
}

fn site(directory: &Path) -> Site {
    let (config, paths) = (Config::default(), Paths::below(directory));
    for directory in [paths.runs(), paths.logs()] {
        std::fs::create_dir(directory).unwrap();
    }
    Site {
        paths,
        vmm: fake_vmm(),
        agent: PathBuf::from("/nonexistent"),
        log: "info".to_owned(),
        sampling: config.sampling(),
        cgroups: Err("a test makes no groups".to_owned()),
        swap: None,
        rules: config.rules(),
    }
}

/// A plan for the VM `name`, a model guest.
fn plan(name: &str) -> Plan {
    let text = format!(
        "name = '{name}'\nsize = '64MiB'\n[boot]\nmodel = true\n[jail]\nallow_missing = ['uid', 'cgroup']\n"
    );
    let definition = VmDefinition::from_toml(&text, Path::new("/")).unwrap();
    Plan {
        definition,
        grant: Pages(256),
        uid: None,
        cid: None,
        started: Timestamp::UNIX_EPOCH,
        images: vec![],
    }
}

#[test]
fn a_vm_that_was_just_booted_is_found_by_the_next_daemon() {
    let _apart = apart();
    let directory = tempfile::tempdir().unwrap();
    let (site, plan) = (site(directory.path()), plan("booted"));
    let launched = launch(&site, &plan).unwrap();
    let (process, pid) = (Process::of_child(&launched.child).unwrap(), Pid::from_child(&launched.child));
    // The daemon ends with this in its inbox.
    let (sender, inbox) = mpsc::channel(1);
    sender.try_send(Incoming::Launched(RunId(1), Ok(Box::new(launched)))).unwrap();
    drop((sender, inbox));
    assert!(!process.is_gone());
    let name = &plan.definition.name;
    let look = look(name, &site.paths.run_of(name));
    process.kill();
    let Look::There(there) = look else { panic!("{look:?}") };
    assert_eq!(there.process.unwrap().pid(), process.pid());
    waitpid(Some(pid), WaitOptions::empty()).unwrap();
}

#[test]
fn nothing_is_left_of_a_vm_that_did_not_come_up() {
    let _apart = apart();
    let directory = tempfile::tempdir().unwrap();
    let (site, plan) = (site(directory.path()), plan("mute"));
    launch(&site, &plan).unwrap_err();
    assert!(!site.paths.run_of(&plan.definition.name).exists());
}

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// The unit, which starts the program where [`PROGRAM`] is.
const UNIT: &str = include_str!("../plimsoll-agent.service");
const UNIT_FILE: &str = "/etc/systemd/system/plimsoll-agent.service";
/// Where the program stays.
const PROGRAM: &str = "/usr/local/sbin/plimsoll-agent";

/// The service's name, which is also the last part of its control group's path.
const SERVICE: &str = "plimsoll-agent.service";
/// A restart after this many seconds: `plimsoll exec web1 -- plimsoll-agent install` runs within
/// the service, whose restart ends it. By then its end has been told.
const DELAY: &str = "--on-active=2";
/// Else systemd's timers may be a minute late.
const ON_TIME: &str = "--timer-property=AccuracySec=100ms";

const RELOAD: &[&str] = &["systemctl", "daemon-reload"];
const ENABLE: &[&str] = &["systemctl", "enable", SERVICE];
const RESTART: &[&str] = &["systemctl", "restart", SERVICE];
const RESTART_LATER: &[&str] =
    &["systemd-run", "--quiet", "--collect", DELAY, ON_TIME, "systemctl", "restart", SERVICE];

/// Installs this program as a service that starts with the guest, and starts it now.
///
/// # Errors
/// What failed, on what.
pub(crate) fn install() -> Result<(), String> {
    let own = std::env::current_exe().map_err(|e| format!("the path of this program: {e}"))?;
    if own != Path::new(PROGRAM) {
        replace(&own).map_err(|e| format!("{PROGRAM}: {e}"))?;
    }
    fs::write(UNIT_FILE, UNIT).map_err(|e| format!("{UNIT_FILE}: {e}"))?;
    // Where it cannot be read there are no control groups, and no service that this runs in.
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let is_within = is_within_service(&groups);
    for words in steps(is_within) {
        let (program, arguments) = words.split_first().expect("each step has a program");
        let status = Command::new(program).args(arguments).status();
        let status = status.map_err(|e| format!("{program} cannot be run: {e}"))?;
        if !status.success() {
            return Err(format!("{}: {status}", words.join(" ")));
        }
    }
    if is_within {
        eprintln!("plimsoll-agent: installed; the service restarts in 2 s");
    }
    Ok(())
}

/// Whether a process with this `/proc/PID/cgroup` runs in the service.
fn is_within_service(groups: &str) -> bool {
    groups.lines().any(|line| line.split('/').any(|part| part == SERVICE))
}

/// The programs that make systemd run the service, with their arguments. `is_within`: they run in
/// it themselves.
fn steps(is_within: bool) -> [&'static [&'static str]; 3] {
    [RELOAD, ENABLE, if is_within { RESTART_LATER } else { RESTART }]
}

/// Puts the program in its place, also where it runs there.
fn replace(own: &Path) -> io::Result<()> {
    let new = format!("{PROGRAM}.new");
    fs::copy(own, &new)?;
    fs::rename(new, PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_by_the_service_itself_restarts_it_later() {
        for (groups, is_within) in [
            ("0::/system.slice/plimsoll-agent.service\n", true),
            ("12:pids:/x\n1:name=systemd:/system.slice/plimsoll-agent.service/sub\n0::/\n", true),
            ("0::/user.slice/user-0.slice/session-1.scope\n", false),
            ("0::/system.slice/plimsoll-agent.service.d\n", false),
            ("", false),
        ] {
            assert_eq!(is_within_service(groups), is_within, "{groups:?}");
            let steps = steps(is_within);
            assert_eq!(steps.contains(&RESTART), !is_within);
            assert!(steps[2].ends_with(RESTART));
            assert_eq!(steps[2].contains(&DELAY), is_within);
        }
        assert!(UNIT_FILE.ends_with(&format!("/{SERVICE}")));
    }

    #[test]
    fn the_unit_starts_the_program_where_it_is_installed() {
        assert!(UNIT.lines().any(|line| line == format!("ExecStart={PROGRAM}")));
    }
}

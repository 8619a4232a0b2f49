use std::collections::BTreeSet;

use super::*;

/// What `Cargo.toml` has for cargo-deb: source, destination and mode of each file.
fn assets() -> Vec<[String; 3]> {
    let manifest: toml::Table = include_str!("../Cargo.toml").parse().unwrap();
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().unwrap();
    let words = |asset: &toml::Value| {
        let words: Vec<String> =
            asset.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect();
        <[String; 3]>::try_from(words).unwrap()
    };
    assets.iter().map(words).collect()
}

/// Where files are installed, as absolute paths.
fn installed() -> BTreeSet<String> {
    let path = |[source, destination, _]: [String; 3]| {
        let name = source.rsplit('/').next().unwrap().to_owned();
        format!("/{destination}{name}")
    };
    assets().into_iter().map(path).collect()
}

fn files_below(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { [path].into() }).collect()
}

#[test]
fn every_file_for_the_package_is_in_it_and_programs_alone_can_be_run() {
    let here = workspace::root().join("xtask/package");
    let mut listed = BTreeSet::new();
    for [source, destination, mode] in assets() {
        let program = source.starts_with("target/release/");
        assert_eq!(mode, if program { "755" } else { "644" }, "{source}");
        assert!(destination.ends_with('/') && !destination.starts_with('/'), "{destination}");
        if !program && !source.ends_with('*') {
            listed.insert(here.join(&source).canonicalize().unwrap());
        }
    }
    // The maintainer scripts have a key of their own.
    let packaging = workspace::root().join("packaging");
    let mut wanted = files_below(&packaging);
    wanted.retain(|path| !path.starts_with(packaging.join("debian")));
    assert_eq!(wanted.difference(&listed).collect::<Vec<_>>(), Vec::<&PathBuf>::new());
}

#[test]
fn what_units_and_settings_name_is_installed_there() {
    let installed = installed();
    let units = workspace::root().join("packaging/systemd");
    let mut programs = 0;
    for unit in files_below(&units) {
        let text = fs::read_to_string(&unit).unwrap();
        let commands = text.lines().filter_map(|line| line.strip_prefix("Exec")?.split_once('='));
        for program in commands.filter_map(|(_, command)| command.trim_start_matches('-').split(' ').next()) {
            assert!(program.starts_with("/bin/") || installed.contains(program), "{program}");
            programs += 1;
        }
        for named in
            text.split_whitespace().filter(|word| word.starts_with("plimsoll") && word.ends_with(".service"))
        {
            assert!(units.join(named).is_file(), "{named}");
        }
    }
    assert!(programs >= 5, "{programs}");
    // What the daemon looks for by default.
    assert!(installed.contains("/usr/libexec/plimsoll-vmm"));
    assert!(installed.contains("/usr/libexec/plimsoll-agent"));
    assert!(installed.contains("/etc/plimsoll/plimsolld.toml"));
}

/// The values of `key` in a unit, word by word.
fn words(unit: &str, key: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace::root().join("packaging/systemd").join(unit)).unwrap();
    let values = text.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn guests_are_shut_down_with_the_host_whatever_became_of_their_starts() {
    let (stop, start) = ("plimsoll-guests.service", "plimsoll-autostart.service");
    // It is active from boot on, as nothing in it can fail or wait.
    assert_eq!(words(stop, "ExecStart"), ["/bin/true"]);
    assert!(words(stop, "Wants").contains(&start.to_owned()));
    assert!(words(stop, "Requires").is_empty() && words(start, "Requires").is_empty());
    // A shutdown of the host first ends starts that are under way.
    assert!(words(start, "After").contains(&stop.to_owned()));
    assert!(!words(stop, "After").contains(&start.to_owned()));
    // So does a stop without one, and a start after it starts guests again.
    assert_eq!(words(start, "PartOf"), [stop]);
    for unit in [stop, start] {
        assert!(words(unit, "After").contains(&"plimsolld.service".to_owned()), "{unit}");
    }
    // The command tells what is left before systemd ends it, and its line is valid.
    let command = words(stop, "ExecStop");
    let seconds = |word: &String| word.strip_suffix('s').unwrap().parse::<u32>().unwrap();
    let time = command.iter().skip_while(|word| *word != "--timeout").nth(1).map(seconds).unwrap();
    let most = seconds(&words(stop, "TimeoutStopSec")[0]);
    assert!(time < most && time >= most - 30, "{time} of {most}");
    for command in [command, words(start, "ExecStart")] {
        plimsoll_cli::command().try_get_matches_from(&command).unwrap();
    }
}

#[test]
fn an_upgrade_has_guests_shut_down_with_the_host_and_starts_none() {
    let script = fs::read_to_string(workspace::root().join("packaging/debian/postinst")).unwrap();
    let (_, upgrade) =
        script.split_once("elif systemctl --quiet is-enabled plimsoll-guests.service").unwrap();
    let (commands, _) = upgrade.split_once("\n\tfi\n").unwrap();
    let lines = commands.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let starts: Vec<&str> = lines.filter(|line| line.contains(" start ")).collect();
    // With what the unit wants, its start would start guests.
    let wanted = "systemctl --no-block --job-mode=ignore-dependencies start plimsoll-guests.service || true";
    assert_eq!(starts, [wanted]);
}

#[test]
fn guests_start_when_udev_has_set_kvm_up() {
    for key in ["Wants", "After"] {
        assert!(words("plimsoll-autostart.service", key).contains(&"dev-kvm.device".to_owned()), "{key}");
    }
    // systemd has units of those devices only that have its tag.
    let rules = include_str!("../../../packaging/udev/60-plimsoll.rules");
    let rule = rules.lines().find(|line| line.starts_with("KERNEL==\"kvm\"")).unwrap();
    assert!(rule.contains("TAG+=\"systemd\""), "{rule}");
}

#[test]
fn every_command_has_a_page_and_completions_and_pages_keep_lines_of_examples() {
    let directory = tempfile::tempdir().unwrap();
    generate(directory.path()).unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    for (command, section) in programs() {
        for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            let page = read(&format!("man{section}/{}-{}.{section}", command.get_name(), below.get_name()));
            assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{page}");
        }
        let bash = read(&format!("bash/{}", command.get_name()));
        command
            .get_subcommands()
            .filter(|c| !c.is_hide_set())
            .for_each(|c| assert!(bash.contains(c.get_name())));
    }
    let page = read("man1/plimsoll.1");
    let (_, notes) = page.split_once(".SH NOTES\n.nf\n").unwrap();
    assert!(notes.lines().any(|line| line.trim() == "Examples:"), "{notes}");
    assert!(read("man8/plimsolld.8").contains("print\\-config"));
    let configuration = read("man5/plimsolld.toml.5");
    assert!(configuration.contains("idle_tax = 0.75"), "{configuration}");
    assert!(read("zsh/_plimsoll").contains("explain") && read("fish/plimsoll.fish").contains("explain"));
    // A file of an earlier run is gone.
    fs::write(directory.path().join("man1/old.1"), "").unwrap();
    generate(directory.path()).unwrap();
    assert!(!directory.path().join("man1/old.1").exists());
}

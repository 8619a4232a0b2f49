use super::*;

fn error(text: &str) -> String {
    let checked = Config::parse(text).and_then(|c| c.check());
    format!("{:#}", checked.unwrap_err())
}

#[test]
fn every_error_names_key_and_value_in_one_line() {
    let vmm = "vmm = '/bin/true'\n";
    for (text, part) in [
        ("colour = 1\n", "colour"),
        ("budget = '1MB'\n", "1MB"),
        ("budget = '1MiB'\n", "budget 1MiB"),
        ("budget = '256MiB'\nmin_free = '128MiB'\n", "min_free 128MiB"),
        ("idle_tax = 1.0\n", "idle_tax 1"),
        ("idle_tax = nan\n", "idle_tax NaN"),
        ("idle_tax = -0.1\n", "idle_tax -0.1"),
        ("min_free = -1\n", "-1 is not a size"),
        ("budget = '99999999999999TiB'\n", "99999999999999TiB"),
        ("thresholds = 'loose'\n", "loose"),
        ("thresholds = 'fixed'\nmin_free = '1MiB'\n", "min_free 1MiB"),
        ("[swap]\nsize = '8GB'\n", "8GB"),
        ("[swap]\ncolour = 1\n", "colour"),
        ("[swap]\nsize = 0\n", "enabled = false"),
        ("[swap]\nsize = 8\n", "swap.size 8B: that is less than a page: did you mean 8MiB?"),
        ("min_free = 64\n", "min_free 64B: that is less than a page: did you mean 64MiB?"),
        ("largest_store = 51\n", "largest_store 51"),
        ("eager_sharing = 'yes'\n", "boolean"),
        ("largest_balloon = 0\n", "largest_balloon 0"),
        ("sample_pages = 0\n", "sample_pages 0"),
        ("sample_pages = 1001\n", "sample_pages 1001"),
        ("sample_period = 0\n", "sample_period 0"),
        ("sample_period = 3601\n", "sample_period 3601"),
        ("largest_balloon = 96\n", "largest_balloon 96"),
        ("largest_balloon = -1\n", "-1"),
        ("state_directory = 'here'\n", "state_directory here"),
        ("swap_directory = '/nowhere'\n", "swap_directory /nowhere"),
        ("uid_base = 0\n", "uid_base 0"),
        ("log = 'loud,=='\n", "log"),
        ("socket_group = 'no such'\n", "socket_group no such: there is no such group"),
        ("[tcp]\nlisten = 'x'\ntoken_file = '/t'\n", "line"),
        (
            "[tcp]\nlisten = '0.0.0.0:1'\ntoken_file = '/t'\n",
            "tcp.listen 0.0.0.0:1: without TLS only a loopback",
        ),
        ("[tcp]\nlisten = '0.0.0.0:1'\ntoken_file = '/t'\nkey = '/k'\n", "belong together"),
        (
            "[tcp]\nlisten = '0.0.0.0:1'\ntoken_file = '/t'\nkey = '/nowhere'\ncertificate = '/c'\n",
            "tcp.key /nowhere: No such file",
        ),
        ("[tcp]\nlisten = '[::]:1'\ntoken_file = '/t'\n", "tcp.listen [::]:1"),
        ("[tcp]\nlisten = '[::ffff:127.0.0.1]:1'\ntoken_file = '/nowhere'\n", "token_file /nowhere"),
        ("[tcp]\nlisten = '127.0.0.1:1'\ntoken_file = '/nowhere'\n", "token_file /nowhere"),
    ] {
        let error = error(&format!("{vmm}{text}"));
        assert!(error.contains(part), "{part}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(error("vmm = '/nowhere/vmm'\n").contains("/nowhere/vmm"));
    // Earlier versions took as long a directory as 57 bytes: VMs may run in one.
    let run_directory = |length: usize| format!("run_directory = '/{}'\n{vmm}", "r".repeat(length - 1));
    Config::parse(&run_directory(57)).and_then(|c| c.check()).unwrap();
    assert!(error(&run_directory(58)).contains("run_directory"));
}

#[test]
fn an_error_names_its_line() {
    for (text, line) in [
        ("colour = 1\n", "line 1:"),
        ("\n\nlog = 'info'\ncolour = 1\n", "line 4:"),
        ("log = 'info'\n# more\nbudget = '1MB'\n", "line 3:"),
        ("log = 'info'\n[swap]\n\nsize = '8GB'\n", "line 4:"),
        ("log = 'info'\nlog\n", "line 2:"),
    ] {
        let error = error(text);
        assert!(error.starts_with(line), "{line} {error}");
    }
}

#[test]
fn thresholds_are_esxis_the_papers_or_the_operators() {
    let clear =
        |text: &str| Config::parse(text).unwrap().thresholds().of(Bytes::mib(1000)).clear.bytes().0 >> 20;
    let settings = ["", "thresholds = 'fixed'\n", "min_free = '10MiB'\n"];
    assert_eq!(settings.map(clear), [60, 60, 10]);
    let soft =
        |text: &str| Config::parse(text).unwrap().thresholds().of(Bytes::mib(1000)).soft.bytes().0 >> 20;
    assert_eq!(settings.map(soft), [38, 40, 6]);
}

#[test]
fn vms_swap_unless_that_is_switched_off() {
    let choice = |text: &str| Config::parse(text).unwrap().swap_choice();
    let at = |directory: &str| SwapSite { directory: directory.into(), encrypt: true, allow_memory: false };
    assert_eq!(choice("swap_directory = '/d'\n[swap]\nenabled = false\n"), SwapChoice::Off);
    assert_eq!(choice(""), SwapChoice::Default(at("/var/lib/plimsoll/swap")));
    assert_eq!(choice("swap_directory = '/d'\n"), SwapChoice::Named(at("/d")));
    assert_eq!(choice("state_directory = '/s'\n[swap]\n"), SwapChoice::Named(at("/s/swap")));
    let clear = SwapSite { encrypt: false, ..at("/d") };
    assert_eq!(choice("swap_directory = '/d'\nswap.encrypt = false\n"), SwapChoice::Named(clear));
    let most = |text: &str| Config::parse(text).unwrap().most_swap();
    assert_eq!(most("[swap]\nsize = '1GiB'\n"), Some(Bytes::mib(1024)));
    assert_eq!(most("[swap]\nsize = '1GiB'\nenabled = false\n"), None);
    assert_eq!(most("swap_directory = '/d'\n"), None);
}

/// The annotated file that packages install.
const EXAMPLE: &str = include_str!("../../../../packaging/plimsolld.toml");

/// The key or section in a line that shows a setting behind a `#`.
fn shown(line: &str) -> Option<&str> {
    line.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
}

#[test]
fn the_example_sets_nothing_and_shows_every_key_with_its_default() {
    assert_eq!(Config::parse(EXAMPLE).unwrap().table().unwrap(), Config::default().table().unwrap());
    let settings: String = EXAMPLE.lines().filter_map(shown).map(|line| format!("{line}\n")).collect();
    let example = Config::parse(&settings).unwrap();
    assert_eq!(keys(&example), keys(&Config::parse(FULL).unwrap()));
    let default = Config {
        socket: Some(Config::default().socket()),
        image_directory: Some(Config::default().image_directory()),
        vmm: Some(INSTALLED_VMM.into()),
        swap: Some(Swap::default()),
        ..Config::default()
    };
    let (mut example, default) = (example.table().unwrap(), default.table().unwrap());
    if let Some(toml::Value::Table(swap)) = example.get_mut("swap") {
        swap.remove("size");
    }
    for (key, value) in &default {
        assert_eq!(example.get(key), Some(value), "{key}");
    }
    // What has no default value is an example, and the text above says so.
    for key in ["min_free =", "swap_directory =", "socket_group =", "size =", "[tcp]"] {
        let (before, _) = EXAMPLE.split_once(&format!("\n#{key}")).unwrap();
        assert!(before.ends_with("An example:"), "{key}");
    }
    assert_eq!(Path::new(plimsoll_protocol::api::DEFAULT_SOCKET), Config::default().socket());
}

/// Every key is set.
const FULL: &str = "budget = '1537MiB'\nmin_free = '64MiB'\nsocket_group = '7'\nswap_directory = '/'\nimage_directory = '/i'\nvmm = '/bin/true'\n\
    socket = '/s'\n[swap]\nsize = '8GiB'\n[tcp]\nlisten = '127.0.0.1:1'\ntoken_file = '/t'\nview_token_file = '/v'\n\
    certificate = '/c'\nkey = '/k'\n";

/// All keys that are set, those of sections as `section.key`.
fn keys(config: &Config) -> Vec<String> {
    let of = |(key, value): (&String, &toml::Value)| match value.as_table() {
        Some(section) => section.keys().map(|inner| format!("{key}.{inner}")).collect(),
        None => vec![key.clone()],
    };
    config.table().unwrap().iter().flat_map(of).collect()
}

#[test]
fn the_configuration_in_effect_means_the_same() {
    for text in ["", "budget = '96MiB'\nidle_tax = 0.5\n", "[swap]\nenabled = false\n", FULL] {
        let config = Config::parse(text).unwrap();
        let effective = config.effective().unwrap();
        let again = Config::parse(&effective).unwrap();
        assert_eq!(again.effective().unwrap(), effective);
        assert_eq!((again.swap_choice(), again.most_swap()), (config.swap_choice(), config.most_swap()));
        assert_eq!((again.budget, again.min_free), (config.budget, config.min_free));
        assert_eq!((again.socket(), again.tcp.is_some()), (config.socket(), config.tcp.is_some()));
    }
}

#[test]
fn the_configuration_in_effect_names_every_key() {
    let keys = keys(&Config::parse(FULL).unwrap());
    assert!(keys.len() > 20 && keys.contains(&"tcp.key".to_owned()), "{keys:?}");
    let text = Config::parse("").unwrap().effective().unwrap();
    for key in keys.iter().filter(|key| !key.starts_with("tcp.")) {
        let named = [format!("{key} ="), format!("# {key}:")].iter().any(|name| text.contains(name));
        assert!(named, "{key}: {text}");
    }
    let text = Config::parse(FULL).unwrap().effective().unwrap();
    let effective: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(effective, Config::parse(FULL).unwrap().table().unwrap());
}

#[test]
fn what_holds_until_the_daemon_is_restarted_stays() {
    let (before, new) = (Config::parse("").unwrap(), Config::parse(FULL).unwrap());
    let (kept, before, new) =
        (new.clone().with_daemon_of(&before).table().unwrap(), before.table().unwrap(), new.table().unwrap());
    for key in ["socket", "socket_group", "uid_base", "tcp", "state_directory", "run_directory"] {
        assert_eq!(kept.get(key), before.get(key), "{key}");
    }
    for key in ["budget", "min_free", "swap_directory", "swap", "vmm"] {
        assert_eq!(kept.get(key), new.get(key), "{key}");
    }
}

#[test]
fn an_error_of_a_value_names_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plimsolld.toml");
    for (text, part) in [
        ("vmm = '/bin/true'\n\nidle_tax = 1.5\n", "plimsolld.toml: line 3: idle_tax 1.5: "),
        ("vmm = '/bin/true'\n[swap]\nsize = 0\n", "plimsolld.toml: line 3: swap.size 0: "),
        (
            "vmm = '/bin/true'\n[tcp]\nlisten = '0.0.0.0:1'\ntoken_file = '/t'\n",
            "plimsolld.toml: line 3: tcp.listen 0.0.0.0:1: ",
        ),
        ("vmm = '/nowhere'\n", "plimsolld.toml: line 1: vmm /nowhere: there is no such program"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = format!("{:#}", Config::read(Some(&file)).unwrap_err());
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_token_that_others_can_read_or_guess_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "0123456789abcdef\n").unwrap();
    let listen = "127.0.0.1:1".parse().unwrap();
    let tcp =
        Tcp { listen, token_file: token_file.clone(), view_token_file: None, certificate: None, key: None };
    let config = Config { tcp: Some(tcp), ..Config::default() };
    let mode = |m| std::fs::set_permissions(&token_file, PermissionsExt::from_mode(m)).unwrap();
    mode(0o644);
    assert!(format!("{:#}", config.tokens().unwrap_err()).contains("chmod"));
    mode(0o600);
    assert_eq!(config.tokens().unwrap().unwrap().all, "0123456789abcdef");
    let mut both = config.clone();
    both.tcp.as_mut().unwrap().view_token_file = Some(token_file.clone());
    assert!(format!("{:#}", both.tokens().unwrap_err()).contains("permits everything"));
    std::fs::write(&token_file, "short").unwrap();
    assert!(config.tokens().is_err());
}

mod devices;

use std::collections::BTreeSet;
use std::path::Path;

use plimsoll_units::Bytes;
use proptest::prelude::*;
use toml::Value;

use super::*;
use crate::change::VmChange;
use crate::{OrNone, Shares, VmName};

const GOOD: &str = "name = 'a'\nsize = '256MiB'\n[boot]\nkernel = 'vmlinuz'\n";

const DISK: &str = "name = 'a'\nsize = '256MiB'\n[boot]\nfrom = 'disk'\n";

fn error(text: &str) -> String {
    VmDefinition::from_toml(text, Path::new("/d")).unwrap_err().to_string()
}

#[test]
fn defaults_are_those_of_the_manual() {
    let vm = VmDefinition::from_toml(GOOD, Path::new("/d")).unwrap();
    assert_eq!(vm.limit(), Bytes::mib(256));
    assert_eq!(vm.shares.resolve(vm.size), 2560);
    assert_eq!(vm.boot.kernel.as_deref(), Some(Path::new("/d/vmlinuz")));
    assert!(vm.balloon.deflate_on_oom && vm.balloon.free_page_reporting);
}

#[test]
fn the_manual_is_a_definition() {
    let manual: String = include_str!("../mod.rs")
        .lines()
        .skip_while(|line| *line != "//! ```toml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//!")))
        .collect();
    let vm = VmDefinition::from_toml(&manual, Path::new("/")).unwrap();
    assert!(vm.cpu.nested && vm.disks[0].read_only && !vm.balloon.deflate_on_oom);
    assert_eq!(vm.jail.allow_missing, [JailPart::Cgroup]);
}

#[test]
fn every_error_names_the_field_and_fits_a_line() {
    let cases = [
        (format!("colour = 1\n{GOOD}"), "line 1: unknown field `colour`"),
        (GOOD.replace("size", "sise"), "line 2: unknown field `sise`"),
        (GOOD.replace("256MiB", "255KiB"), "255KiB"),
        (GOOD.replace("256MiB", "257MiB1"), "257MiB1"),
        (GOOD.replace("256MiB", "33MiB"), "line 2: size 33MiB"),
        (GOOD.replace("256MiB", "256MB"), "line 2: size: \"256MB\" is not a size"),
        (format!("vcpus = 9\n{GOOD}"), "vcpus 9"),
        (format!("vcpus = 0\n{GOOD}"), "vcpus 0"),
        (format!("reservation = '257MiB'\n{GOOD}"), "reservation 257MiB"),
        (format!("reservation = '128MiB'\nlimit = '64MiB'\n{GOOD}"), "limit 64MiB"),
        (format!("shares = 0\n{GOOD}"), "shares \"0\""),
        (format!("shares = 'lots'\n{GOOD}"), "lots"),
        (GOOD.replace("kernel = 'vmlinuz'", ""), "boot.kernel"),
        (format!("{GOOD}model = true\n"), "model"),
        (format!("{GOOD}from = 'disk'\n"), "line 4: boot.kernel /d/vmlinuz: with boot.from = \"disk\""),
        (format!("{DISK}initrd = 'i'\n[[disk]]\npath = 'd'\n"), "boot.initrd /d/i: with boot.from"),
        (
            format!("{DISK}cmdline = 'x'\n[[disk]]\npath = 'd'\n"),
            "line 5: boot.cmdline with boot.from: it comes from the disk",
        ),
        (DISK.to_owned(), "the VM has no disk: add a [[disk]]"),
        (format!("{DISK}model = true\n[[disk]]\npath = 'd'\n"), "line 4: boot.from with boot.model: a model"),
        (format!("{DISK}append = '\u{e4}'\n[[disk]]\npath = 'd'\n"), "line 5: boot.append with"),
        (format!("{GOOD}append = 'x'\n"), "line 5: boot.append without boot.from"),
        (DISK.replace("disk", "cdrom"), "expected `disk`"),
        (
            format!("{GOOD}cmdline = '{}'\n", "x".repeat(2048)),
            "line 5: boot.cmdline of 2048 bytes: at most 2047",
        ),
        (format!("{GOOD}cmdline = 'ü'\n"), "line 5: boot.cmdline with 'ü': only printable ASCII"),
        (
            format!("reservation = 64\n{GOOD}"),
            "line 1: reservation 64B: that is less than a page: did you mean 64MiB?",
        ),
        (format!("{GOOD}[[net]]\n\ntap = ''\n"), "line 7: net.tap"),
        (format!("{GOOD}[[disk]]\npath = 'd'\niops = 9\n"), "iops 9"),
        (format!("{GOOD}[[disk]]\npath = 'd'\nbandwidth = '1023KiB'\n"), "bandwidth 1023KiB"),
        (format!("{GOOD}[[disk]]\npath = 'd'\ncache = 'both'\n"), "expected `none` or `host`"),
        (format!("{GOOD}[[disk]]\npath = 'd'\nformat = 'vmdk'\n"), "expected `raw` or `qcow2`"),
        (format!("{GOOD}["), "line 5: "),
        (format!("{GOOD}[[disk]]\npath = \"a\\nb\"\niops = 1\n"), "path \"/d/a\\nb\""),
        (GOOD.replace("vmlinuz", "\\u007f").replace('\'', "\""), "control characters"),
        (format!("{GOOD}[[net]]\ntap = 't'\nmac = '01:00:00:00:00:00'\n"), "mac"),
        (GOOD.replace("'a'", "'../a'"), "../a"),
        (format!("pool = 'a/b'\n{GOOD}"), "a/b"),
        (format!("{GOOD}[memory]\nsharing = 'a/b'\n"), "a/b"),
        (format!("tax = 1.0\n{GOOD}"), "tax 1"),
        (format!("tax = nan\n{GOOD}"), "tax NaN"),
        (format!("tax = -0.5\n{GOOD}"), "tax -0.5"),
        (format!("{GOOD}[cloud_init]\nuser_data = 'u'\npackages = ['a']\n"), "cloud_init.user_data excludes"),
        (format!("{GOOD}[cloud_init]\nmeta_data = 'm'\nhostname = 'a'\n"), "cloud_init.meta_data excludes"),
        (format!("{GOOD}[cloud_init]\nuser_data = \"a\\nb\"\n"), "control characters"),
        (format!("{GOOD}[cloud_init]\nhostname = 'a_b'\n"), "cloud_init.hostname \"a_b\""),
        (format!("{GOOD}[cloud_init]\nhostname = 'a..b'\n"), "cloud_init.hostname"),
        (format!("{GOOD}[cloud_init]\ninstance_id = \"a\\nb\"\n"), "cloud_init.instance_id"),
        (format!("{GOOD}[cloud_init]\npassword_hash = 'secret'\n"), "cloud_init.password_hash of 6 bytes"),
        (format!("{GOOD}[cloud_init]\npackages = ['-y']\n"), "cloud_init.packages with \"-y\""),
        (
            format!("{GOOD}[cloud_init]\npackages = {:?}\n", vec!["a"; 65]),
            "cloud_init.packages: 65 are too many",
        ),
        (format!("{GOOD}[cloud_init]\nssh_authorized_keys = ['a']\n"), "ssh_authorized_keys with \"a\""),
        (format!("{GOOD}[cloud_init]\nssh_authorized_keys = [\"a b\\nc d\"]\n"), "in one line"),
        (
            format!(
                "{GOOD}[cloud_init]\nssh_authorized_keys = {:?}\n",
                vec![format!("a {}", "x".repeat(1022)); 33]
            ),
            "at most 32KiB",
        ),
        (
            format!("{GOOD}[cloud_init]\n{}", "[[disk]]\npath = 'd'\n".repeat(8)),
            "9 disks, with that of cloud_init",
        ),
        (
            format!("{GOOD}[vsock]\n{}", "[[disk]]\npath = 'd'\n".repeat(8)),
            "8 disks: at most 7 are allowed with bus = \"mmio\" and vsock",
        ),
        (format!("{GOOD}[vsock]\ncid = 2\n"), "vsock.cid 2: must be 3 to 4294967294"),
        (format!("{GOOD}[vsock]\nconnections = 0\n"), "vsock.connections 0: must be 1 to 1024"),
        (format!("{GOOD}[vsock]\nconnections = 1025\n"), "vsock.connections 1025"),
        (format!("start_order = 1000\n{GOOD}"), "line 1: start_order 1000"),
        (format!("start_delay = '2h'\n{GOOD}"), "line 1: start_delay: \"2h\" is not a delay"),
        (format!("autostart = 1\n{GOOD}"), "autostart"),
    ];
    for (text, part) in cases {
        let error = error(&text);
        assert!(error.contains(part), "{part}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn a_disk_that_is_written_passes_the_hosts_cache_by_unless_it_is_named() {
    let disk = |text: &str| from(&format!("{GOOD}[[disk]]\npath = 'd'\n{text}")).disks.remove(0).cache();
    assert_eq!((disk(""), disk("cache = 'host'")), (Cache::None, Cache::Host));
    assert_eq!(
        (disk("read_only = true"), disk("read_only = true\ncache = 'none'")),
        (Cache::Host, Cache::None)
    );
}

#[test]
fn a_derived_mac_is_stable_unicast_and_local() {
    let vm: VmName = "web1".parse().unwrap();
    let mac = MacAddress::derived(&vm, 0);
    assert_eq!(mac, MacAddress::derived(&vm, 0));
    assert_ne!(mac, MacAddress::derived(&vm, 1));
    assert_eq!(mac.0[0] & 0b11, 0b10);
}

#[test]
fn a_change_keeps_what_it_does_not_name() {
    let text = format!("limit = '128MiB'\nreservation = '64MiB'\ntax = 0.5\n{GOOD}");
    let vm = VmDefinition::from_toml(&text, Path::new("/")).unwrap();
    assert_eq!(vm.changed(&VmChange::default()), vm);
    let change = VmChange {
        shares: Some(Shares::High),
        limit: Some(OrNone::None),
        tax: Some(OrNone::None),
        pool: Some("prod".parse().unwrap()),
        sharing: Some("zero".parse().unwrap()),
        ..VmChange::default()
    };
    let written = vm.changed(&change).to_toml().unwrap();
    let expected = "name = \"a\"\nsize = \"256MiB\"\nreservation = \"64MiB\"\nshares = \"high\"\npool = \"prod\"\n\n\
                    [memory]\nsharing = \"zero\"\n\n[boot]\nkernel = \"/vmlinuz\"\n";
    assert_eq!(written, expected);
}

#[test]
fn a_vm_that_starts_with_the_host_has_a_place_and_a_delay() {
    let vm = from(GOOD);
    assert_eq!((vm.autostart, vm.start_order.0, vm.start_delay.0), (false, 100, 0));
    let change = r#"{"autostart": true, "start_order": 5, "start_delay": "2m"}"#;
    let changed = vm.changed(&serde_json::from_str(change).unwrap());
    let written = changed.to_toml().unwrap();
    assert!(written.contains("\nautostart = true\nstart_order = 5\nstart_delay = 120\n"), "{written}");
    assert_eq!(from(&written), changed);
}

#[test]
fn what_a_change_takes_a_definition_takes() {
    let none = from(&format!("limit = 'none'\ntax = 'none'\n{GOOD}"));
    assert_eq!(none, from(GOOD));
    let json =
        r#"{"name": "a", "size": "256MiB", "limit": null, "tax": null, "boot": {"kernel": "/d/vmlinuz"}}"#;
    assert_eq!(serde_json::from_str::<VmDefinition>(json).unwrap(), from(GOOD));
    let some = from(&format!("limit = '128MiB'\ntax = 0.5\n{GOOD}"));
    assert_eq!(
        (some.limit, some.tax.map(|tax| tax.to_string())),
        (Some(Bytes::mib(128)), Some("0.5".to_owned()))
    );
}

#[test]
fn labels_are_set_and_removed_one_by_one() {
    let vm = from(&format!("{GOOD}[labels]\ntier = 'web'\nteam = 'a'\n"));
    let change: VmChange =
        serde_json::from_str(r#"{"labels": {"tier": "db", "team": null, "env": "x"}}"#).unwrap();
    let changed = vm.changed(&change);
    assert_eq!(changed.labels.to_string(), "env=x,tier=db");
    let written = changed.to_toml().unwrap();
    assert!(
        written.contains("\n[labels]\ntier = \"db\"\nenv = \"x\"\n")
            || written.contains("\n[labels]\nenv = \"x\"\ntier = \"db\"\n"),
        "{written}"
    );
    assert_eq!(VmDefinition::from_toml(&written, Path::new("/")).unwrap(), changed);
    let many: String = (0..=crate::MAX_LABELS).map(|n| format!("k{n} = 'v'\n")).collect();
    assert!(error(&format!("{GOOD}[labels]\n{many}")).starts_with("labels: 33 are too many"));
    assert!(error(&format!("{GOOD}[labels]\n'a b' = 'c'\n")).contains("\"a b\" is not a label's key"));
    assert!(error(&format!("{GOOD}[labels]\na = 'b,c'\n")).contains("\"b,c\" is not a label's value"));
}

#[test]
fn a_record_in_which_defaults_are_written_out_says_the_same() {
    let record = r#"{"name": "a", "size": 268435456, "vcpus": 1, "reservation": 0, "shares": "normal", "boot": {"kernel":
        "/vmlinuz", "cmdline": "console=ttyS0 reboot=acpi panic=-1"}, "disk": [{"path": "/d", "read_only": false}], "balloon":
        {"deflate_on_oom": true, "free_page_reporting": true}, "jail": {"allow_missing": []}}"#;
    let old: VmDefinition = serde_json::from_str(record).unwrap();
    let new = serde_json::to_string(&old).unwrap();
    let expected = r#"{"name":"a","size":268435456,"boot":{"kernel":"/vmlinuz"},"disk":[{"path":"/d"}]}"#;
    assert_eq!(new, expected);
    assert_eq!(serde_json::from_str::<VmDefinition>(&new).unwrap(), old);
}

#[test]
fn numbers_that_toml_cannot_hold_are_refused() {
    let of = |more: &str| {
        let text = format!(r#"{{"name":"a","size":67108864,"boot":{{"model":true}},{more}}}"#);
        serde_json::from_str::<VmDefinition>(&text).unwrap()
    };
    let disk = |key: &str, number: u64| of(&format!(r#""disk":[{{"path":"/d","{key}":{number}}}]"#));
    for number in [u64::MAX, 1 << 63] {
        for (key, definition) in [
            ("iops", disk("iops", number)),
            ("bandwidth", disk("bandwidth", number)),
            ("packets", of(&format!(r#""net":[{{"tap":"t","packets":{number}}}]"#))),
            ("limit", of(&format!(r#""limit":{number}"#))),
        ] {
            assert!(definition.check().unwrap_err().to_string().contains(key), "{key}");
        }
    }
    for good in [disk("iops", 1_000_000_000), disk("bandwidth", 1 << 40), of(r#""limit":1125899906842624"#)] {
        good.check().unwrap();
        assert_eq!(from(&good.to_toml().unwrap()), good);
    }
}

#[test]
fn a_size_is_written_back_to_the_byte() {
    for size in [MAX_SIZE, Bytes::mib(12_346)] {
        let text = GOOD.replace("256MiB", &size.0.to_string());
        let vm = VmDefinition { reservation: Bytes(size.0 - 1), ..from(&text) };
        assert_eq!(from(&vm.to_toml().unwrap()), vm);
    }
    assert!(from(GOOD).to_toml().unwrap().contains("size = \"256MiB\""));
}

#[test]
fn a_balloon_survives_the_wire_and_writes_only_what_is_not_default() {
    for (deflate_on_oom, free_page_reporting) in [(true, true), (true, false), (false, true), (false, false)]
    {
        let balloon = Balloon { deflate_on_oom, free_page_reporting };
        let packet = postcard::to_stdvec(&balloon).unwrap();
        assert_eq!(postcard::from_bytes::<Balloon>(&packet).unwrap(), balloon);
        let json = serde_json::to_string(&balloon).unwrap();
        assert_eq!(serde_json::from_str::<Balloon>(&json).unwrap(), balloon);
        assert_eq!(json.contains("deflate_on_oom"), !deflate_on_oom, "{json}");
    }
}

fn from(text: &str) -> VmDefinition {
    VmDefinition::from_toml(text, Path::new("/d")).unwrap()
}

/// `key = value` with one of `values`, or nothing: the key is left to its default.
fn line(key: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = String> {
    let given = prop::sample::select(values).prop_map(move |value| format!("{key} = {value}\n"));
    prop_oneof![Just(String::new()), given]
}

/// A definition as an operator may write it: any keys may be left out, and some have their default
/// values.
fn definitions() -> impl Strategy<Value = String> {
    let head = (
        line("vcpus", &["1", "2"]),
        line("reservation", &["0", "'64MiB'", "67108864"]),
        line("limit", &["'64MiB'", "'256MiB'", "'1GiB'"]),
        line("shares", &["'low'", "'normal'", "777"]),
        line("pool", &["'/'", "'prod'"]),
        line("tax", &["0", "0.75"]),
    );
    let tables = (
        line("memory.sharing", &["'own'", "'off'", "'prod'"]),
        line("cpu.nested", &["true", "false"]),
        line("balloon.deflate_on_oom", &["true", "false"]),
        line("balloon.free_page_reporting", &["true", "false"]),
        line("jail.allow_missing", &["[]", "['uid', 'cgroup']"]),
        line(
            "cloud_init",
            &["{}", "{ hostname = 'b', packages = ['c', 'd'] }", "{ user_data = 'u', instance_id = '1' }"],
        ),
        line(
            "vsock",
            &[
                "{}",
                "{ cid = 3 }",
                "{ cid = 4294967294, connections = 64 }",
                "{ connections = 1, agent = true }",
            ],
        ),
    );
    let boot = (
        prop::sample::select(
            &["kernel = 'vmlinuz'\n", "kernel = '/k'\nmodel = false\n", "model = true\n"][..],
        ),
        line("initrd", &["'initrd.img'"]),
        line("cmdline", &["'console=ttyS0 reboot=acpi panic=-1'", "'quiet \"a b\"'", "''"]),
    );
    let disk = (
        line("read_only", &["true", "false"]),
        line("iops", &["10", "5000"]),
        line("bandwidth", &["'1MiB'", "'1GiB'"]),
        line("burst", &["'100ms'", "'2s'"]),
        line("cache", &["'none'", "'host'"]),
        line("format", &["'raw'", "'qcow2'"]),
    );
    let disk = disk.prop_map(|(read_only, iops, bandwidth, burst, cache, format)| {
        format!("{read_only}{iops}{bandwidth}{burst}{cache}{format}")
    });
    let disks = prop::collection::vec(disk, 0..3);
    let net = (line("mac", &["'52:54:00:12:34:56'"]), line("packets", &["100"]), line("burst", &["'1m'"]));
    let nets = prop::collection::vec(net.prop_map(|(mac, packets, burst)| mac + &packets + &burst), 0..3);
    (head, tables, boot, disks, nets).prop_map(|(head, tables, boot, disks, nets)| {
        let (vcpus, reservation, limit, shares, pool, tax) = head;
        let (sharing, nested, deflate, reporting, missing, seed, vsock) = tables;
        let (kernel, initrd, cmdline) = boot;
        let disks: String = disks.iter().map(|rest| format!("[[disk]]\npath = 'd'\n{rest}")).collect();
        let nets: String = nets.iter().map(|rest| format!("[[net]]\ntap = 't'\n{rest}")).collect();
        format!(
            "name = 'a'\nsize = '256MiB'\n{vcpus}{reservation}{limit}{shares}{pool}{tax}{sharing}{nested}{deflate}{reporting}\
             {missing}{seed}{vsock}[boot]\n{kernel}{initrd}{cmdline}{disks}{nets}"
        )
    })
}

/// The paths of all keys that have values.
fn keys(path: &str, value: &Value) -> BTreeSet<String> {
    match value {
        Value::Table(table) => {
            table.iter().flat_map(|(key, value)| keys(&format!("{path}.{key}"), value)).collect()
        }
        Value::Array(list) if list.iter().any(Value::is_table) => {
            list.iter().enumerate().flat_map(|(i, value)| keys(&format!("{path}.{i}"), value)).collect()
        }
        _ => BTreeSet::from([path.to_owned()]),
    }
}

proptest! {
    #[test]
    fn a_definition_reads_back_as_it_was_given(text in definitions()) {
        let definition = from(&text);
        let written = definition.to_toml().unwrap();
        // Its paths are absolute by now.
        prop_assert_eq!(&VmDefinition::from_toml(&written, Path::new("/elsewhere")).unwrap(), &definition);
        let json = serde_json::to_string(&definition).unwrap();
        prop_assert_eq!(&serde_json::from_str::<VmDefinition>(&json).unwrap(), &definition);
        let given = keys("", &toml::from_str(&text).unwrap());
        for document in [toml::from_str(&written).unwrap(), serde_json::from_str(&json).unwrap()] {
            let kept = keys("", &document);
            prop_assert!(kept.is_subset(&given), "{:?} were left to their defaults", kept.difference(&given));
        }
    }
}

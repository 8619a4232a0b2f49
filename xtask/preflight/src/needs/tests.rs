use super::*;

fn needs(line: &str, kvm: bool) -> Option<Needs> {
    Needs::of(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>(), kvm)
}

fn lab(line: &str) -> Needs {
    let needs = needs(line, false).unwrap();
    assert!(needs.tools.iter().any(|tool| tool.program == "qemu-system-x86_64"), "{line}");
    assert_eq!(needs.kernels, Version::ALL, "{line}");
    needs
}

#[test]
fn the_demo_needs_the_lab_only_where_kvm_runs_no_guests() {
    assert_eq!(lab("demo --json").memory, Some(("the lab", Size::gib(3))));
    let native = needs("demo", true).unwrap();
    assert_eq!((native.tools, native.userfaultfd), (packages::GUESTS.to_vec(), Userfaultfd::Device));
    assert!(needs("demo --lab", true).unwrap() == lab("demo"));
}

#[test]
fn models_need_nothing_of_debians() {
    let campaign = needs("campaign kill --points 9", false).unwrap();
    assert_eq!(campaign.userfaultfd, Userfaultfd::Device);
    let needs = needs("demo --model", false).unwrap();
    assert!(needs.tools.is_empty() && needs.kernels.is_empty());
    assert_eq!(needs.userfaultfd, Userfaultfd::Device);
}

#[test]
fn the_labs_memory_is_what_was_asked_for() {
    assert_eq!(lab("lab --memory 5GiB -- true").memory.unwrap().1, Size::gib(5));
    assert_eq!(lab("lab --memory=2g -- true").memory.unwrap().1, Size::gib(2));
    // What follows is the lab's command.
    assert_eq!(lab("lab -- tool --memory 9GiB --help").memory.unwrap().1, Size::gib(3));
    assert_eq!(needs("lab --attach -- true", false), None);
}

#[test]
fn figures_need_their_packages_and_simulated_ones_nothing() {
    assert_eq!(lab("paper fig2 --rounds 5").debs, deb::DBENCH);
    assert_eq!(lab("paper --json fig4").debs, deb::DEBIAN);
    assert!(lab("paper fig6").debs.is_empty());
    for line in ["paper fig8", "paper fig7 --simulated", "paper"] {
        assert_eq!(needs(line, false), None, "{line}");
    }
}

#[test]
fn tests_need_what_is_left_of_them() {
    let all = lab("test");
    assert!(all.archives && all.components && all.tools.iter().any(|t| t.program == "mmdebstrap"));
    assert!(!lab("test --only overcommit --matrix").archives);
    for name in DISK_SCENARIOS {
        assert!(lab(&format!("test --only={name}")).archives, "{name}");
    }
    let has_qemu_img = |needs: Needs| needs.tools.iter().any(|tool| tool.program == "qemu-img");
    for name in CLOUD_SCENARIOS {
        let needs = lab(&format!("test --only {name}"));
        assert!(needs.archives && needs.tools.iter().any(|tool| tool.program == "sfdisk"), "{name}");
        assert!(has_qemu_img(needs), "{name}");
    }
    assert!(all.tools.iter().all(|tool| tool.program != "sfdisk") && !has_qemu_img(lab("test --only disk")));
    for line in ["test --no-lab", "test --only unit --only model"] {
        let needs = needs(line, false).unwrap();
        let all = line == "test --no-lab";
        assert!(packages::UNIT.iter().all(|tool| needs.tools.contains(tool)), "{line}");
        assert_eq!(needs.tools.len() == packages::UNIT.len(), !all, "{line}");
        assert!(
            [packages::FUZZ, packages::IMAGES, packages::PACKAGE]
                .concat()
                .iter()
                .all(|t| needs.tools.contains(t) == all)
        );
        assert_eq!(needs.userfaultfd, Userfaultfd::Device, "{line}");
    }
    assert_eq!(needs("test --only doc", false).unwrap().userfaultfd, Userfaultfd::Unused);
    assert!(needs("test --only lint", false).unwrap().components);
    assert_eq!(needs("test --only images", false).unwrap().tools, packages::IMAGES);
    assert_eq!(needs("test --list", false), None);
    for line in ["test", "test --no-lab", "test --only prometheus"] {
        assert_eq!(needs(line, false).unwrap().debs, deb::PROMETHEUS, "{line}");
    }
    assert!(lab("test --only boot").debs.is_empty());
}

#[test]
fn fuzzing_needs_a_compiler_and_no_lab() {
    for line in ["fuzz", "fuzz core --seconds 9", "test --only fuzz"] {
        let needs = needs(line, false).unwrap();
        assert_eq!(needs.tools, packages::FUZZ, "{line}");
        assert!(needs.kernels.is_empty() && needs.userfaultfd == Userfaultfd::Device, "{line}");
    }
    assert_eq!(needs("fuzz --list", false), None);
}

#[test]
fn a_package_needs_a_debian_only_where_it_is_installed() {
    let made = needs("package --revision 2", false).unwrap();
    assert_eq!((made.tools, made.archives), (packages::PACKAGE.to_vec(), false));
    for line in ["test --only package", "test --no-lab"] {
        let checked = needs(line, true).unwrap();
        assert!(checked.archives && checked.tools.iter().any(|tool| tool.program == "debugfs"), "{line}");
    }
}

#[test]
fn setup_needs_everything_but_memory() {
    let setup = lab("setup --refresh");
    assert!(setup.newest && setup.archives && setup.memory.is_none());
    assert!(!lab("setup").newest);
}

#[test]
fn help_and_unknown_commands_need_nothing() {
    for line in ["", "--help", "demo --help", "test -h", "frobnicate", "bench fault", "image -o x"] {
        assert_eq!(needs(line, false), None, "{line}");
    }
}

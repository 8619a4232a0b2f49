use super::*;
use crate::volume::memory::Memory;

const DEBIAN: &str = include_str!("configs/debian.cfg");
const FEDORA: &str = include_str!("configs/fedora.cfg");

/// What `config` boots, among `files`.
fn boots_with(config: &str, files: &[(&str, &str)]) -> Result<Boots, String> {
    let memory = Memory::default().with("/boot/grub/grub.cfg", config);
    let memory = files.iter().fold(memory, |memory, (path, text)| memory.with(path, *text));
    default(&[memory.volume()], 0, "/boot/grub/grub.cfg")
}

fn boots(config: &str) -> Result<Boots, String> {
    boots_with(config, &[])
}

fn env(line: &str) -> Vec<(&'static str, String)> {
    vec![("/boot/grub/grubenv", format!("# GRUB Environment Block\n{line}\n"))]
}

fn debian_with(line: &str, config: &str) -> Boots {
    let env = env(line);
    let files: Vec<(&str, &str)> = env.iter().map(|(path, text)| (*path, text.as_str())).collect();
    boots_with(config, &files).unwrap()
}

#[test]
fn the_default_entry_of_a_debian_is_booted_as_grub_would() {
    let boots = boots(DEBIAN).unwrap();
    assert_eq!(boots.title, "Debian GNU/Linux");
    assert_eq!(boots.kernel, (0, "/boot/vmlinuz-6.1.0-18-cloud-amd64".to_owned()));
    assert_eq!(boots.initrd, [(0, "/boot/initrd.img-6.1.0-18-cloud-amd64".to_owned())]);
    assert_eq!(
        boots.cmdline,
        "BOOT_IMAGE=/boot/vmlinuz-6.1.0-18-cloud-amd64 root=PARTUUID=aa-bb ro console=tty0 console=ttyS0,115200 \
         earlyprintk=ttyS0,115200 consoleblank=0"
    );
}

#[test]
fn a_saved_entry_is_found_by_number_id_and_title_in_submenus_too() {
    let saved = DEBIAN.replace("set default=\"0\"", "set default=\"${saved_entry}\"");
    let uuid = "11111111-2222-3333-4444-555555555555";
    let ids = format!("gnulinux-advanced-{uuid}>gnulinux-6.1.0-17-cloud-amd64-recovery-{uuid}");
    let titles = "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 6.1.0-17-cloud-amd64 (recovery mode)";
    for entry in ["1>1", &ids, titles] {
        let boots = debian_with(&format!("saved_entry={entry}"), &saved);
        assert_eq!(boots.kernel.1, "/boot/vmlinuz-6.1.0-17-cloud-amd64", "{entry}");
        assert_eq!(boots.initrd.len(), 2);
        assert!(boots.cmdline.ends_with(" single \"dyndbg=file x.c +p\""), "{}", boots.cmdline);
    }
    // A submenu's own first entry, and the first where there is no such entry.
    assert!(debian_with("saved_entry=1", &saved).title.contains("with Linux 6.1.0-18"));
    assert_eq!(debian_with("saved_entry=gone", &saved).title, "Debian GNU/Linux");
}

#[test]
fn an_entry_of_one_boot_is_not_booted_for_ever() {
    let boots = debian_with("next_entry=1>1\nsaved_entry=x", DEBIAN);
    assert_eq!(boots.title, "Debian GNU/Linux");
}

#[test]
fn a_fedora_boots_by_its_loader_entries() {
    let entry = "title Fedora Linux (6.8.5)\nversion 6.8.5\nlinux /vmlinuz-6.8.5\ninitrd /initramfs-6.8.5.img $tuned_initrd\n\
                 options $kernelopts rhgb\n";
    let old = entry.replace("6.8.5", "6.7.9");
    let files = [("/loader/entries/m-6.8.5.conf", entry), ("/loader/entries/m-6.7.9.conf", &old)];
    let newest = boots_with(FEDORA, &files).unwrap();
    assert_eq!(newest.kernel, (0, "/vmlinuz-6.8.5".to_owned()));
    assert_eq!(newest.initrd, [(0, "/initramfs-6.8.5.img".to_owned())]);
    assert_eq!(newest.cmdline, "BOOT_IMAGE=(hd0,gpt1)/vmlinuz-6.8.5 root=UUID=fallback ro  rhgb");
    let env =
        ("/boot/grub/grubenv", "# GRUB Environment Block\nsaved_entry=m-6.7.9\nkernelopts=root=UUID=x ro\n");
    let saved = boots_with(FEDORA, &[files[0], files[1], env]).unwrap();
    assert_eq!(saved.cmdline, "BOOT_IMAGE=(hd0,gpt1)/vmlinuz-6.7.9 root=UUID=x ro rhgb");
}

#[test]
fn an_ubuntu_boots_with_its_initrd() {
    let config = "if [ \"${initrdfail}\" = 2 ]; then\n   set initrdfail=\nelif [ \"${initrdfail}\" = 1 ]; then\n   \
                  set next_entry=\"${prev_entry}\"\n   set prev_entry=\n   save_env prev_entry\n   \
                  if [ \"${next_entry}\" ]; then\n      set initrdfail=2\n   fi\nfi\n\
                  menuentry 'Ubuntu' {\n\tif [ \"${initrdfail}\" = 1 ]; then\n\t  linux\t/vmlinuz root=PARTUUID=a ro\n\
                  \t  initrd\t/initrd.img\n\telse\n\t  linux\t/vmlinuz root=PARTUUID=a ro panic=-1\n\tfi\n\tinitrdfail\n}\n";
    let boots = boots(config).unwrap();
    assert_eq!((boots.initrd.len(), boots.cmdline.as_str()), (1, "BOOT_IMAGE=/vmlinuz root=PARTUUID=a ro"));
}

#[test]
fn a_stub_leads_to_the_configuration_that_it_names() {
    let stub = "search.fs_uuid 11111111-2222-3333-4444-555555555555 root hd0,gpt1\n\
                set prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\nmenuentry 'never' { linux /never; }\n";
    let esp = Memory::default().with("/EFI/debian/grub.cfg", stub).with_uuid("ABCD-1234").volume();
    let esp = Volume { device: "hd0,gpt15".to_owned(), ..esp };
    let root = Memory::default().with("/boot/grub/grub.cfg", DEBIAN).volume();
    let boots = default(&[esp, root], 0, "/EFI/debian/grub.cfg").unwrap();
    assert_eq!(boots.kernel, (1, "/boot/vmlinuz-6.1.0-18-cloud-amd64".to_owned()));
    let lost = stub.replace("1111", "2222").replace("menuentry 'never' { linux /never; }", "");
    let esp = Memory::default().with("/EFI/debian/grub.cfg", lost).volume();
    assert_eq!(default(&[esp], 0, "/EFI/debian/grub.cfg").unwrap_err(), "its menu has no entry");
}

#[test]
fn words_are_split_and_quoted_as_in_grub() {
    let config = r#"
set a="one two"   # a comment; with separators { } 'and quotes
set empty=
function show { linux /$1 "${2}" $# $@; }
menuentry "a b" --id=x { show k "$a" $a $empty "$empty" 'l$it' es\ caped \
  last }
"#;
    let boots = boots(config).unwrap();
    assert_eq!(boots.kernel.1, "/k");
    assert_eq!(boots.title, "a b");
    assert_eq!(boots.cmdline, "BOOT_IMAGE=/k \"one two\" k one two one two l$it es caped last");
}

#[test]
fn entries_that_boot_no_linux_say_what_they_do() {
    let chain = "menuentry Windows { chainloader +1 }\n";
    assert_eq!(boots(chain).unwrap_err(), "its default entry \"Windows\" boots no Linux (chainloader +1)");
    assert_eq!(boots("").unwrap_err(), "its menu has no entry");
    let lost = "menuentry a { set root=lvm/debian-root\nlinux /vmlinuz }\n";
    assert!(boots(lost).unwrap_err().contains("/vmlinuz is on lvm/debian-root, which is not there"));
    let error = boots("if true; then\nmenuentry a {\n").unwrap_err();
    assert!(error.starts_with("/boot/grub/grub.cfg cannot be understood: line 3: "), "{error}");
}

#[test]
fn loops_of_every_kind_end() {
    for endless in [
        "function f { f; }\nf\n",
        "source /boot/grub/grub.cfg\n",
        "configfile /boot/grub/grub.cfg\n",
        "menuentry a { configfile /boot/grub/grub.cfg }\n",
        "submenu a { submenu b { submenu c { source /boot/grub/grub.cfg } } }\n",
        "function f { g; g; g; g; g; g; g; g; g }\nfunction g { h; h; h; h; h; h; h; h; h }\nfunction h { f; f; f }\nf\n",
    ] {
        assert!(boots(endless).is_err(), "{endless}");
    }
    let deep = "if true; then ".repeat(10_000);
    assert!(boots(&deep).unwrap_err().contains("too deeply"));
    let braces = "menuentry a { ".repeat(10_000);
    assert!(boots(&braces).is_err());
    let doubling =
        format!("set a=x\n{}menuentry $a {{ linux /k $a $a $a }}\n", "set a=\"$a$a\"\n".repeat(100));
    assert!(boots(&doubling).is_err() || boots(&doubling).unwrap().cmdline.len() < 1 << 20);
    let wide = |n: u32| format!("function f{n} {{ {} }}\n", format!("f{}; ", n + 1).repeat(50));
    let wide: String = (0..5).map(wide).collect();
    assert!(boots(&format!("{wide}function f5 {{ true }}\nf0\n")).unwrap_err().contains("too many commands"));
    let many = format!("{}linux /k\n", "true\n".repeat(60_000));
    assert!(boots(&many).unwrap_err().contains("too many commands"));
}

#[test]
fn loops_and_unknown_commands_are_passed_over() {
    let config = "for x in a b; do\n set default=9\ndone\nwhile true; do sleep 1; done\nfrobnicate --hard\n\
                  if keystatus --shift; then set default=1; fi\nif ! false; then set default=1; fi\n\
                  menuentry a { linux /a }\nmenuentry b { linux /b\n initrd /i }\n";
    assert_eq!(boots(config).unwrap().kernel.1, "/b");
}

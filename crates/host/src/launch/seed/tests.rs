use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;

use plimsoll_protocol::definition::{AGENT_SERIAL, VmDefinition};
use proptest::prelude::*;
use yaml_rust2::{Yaml, YamlLoader};

use super::*;

fn open(path: &Path) -> anyhow::Result<File> {
    Ok(File::open(path)?)
}

fn made(cloud_init: &CloudInit) -> Vec<u8> {
    made_with(cloud_init, false)
}

fn made_with(cloud_init: &CloudInit, agent: bool) -> Vec<u8> {
    let file = make(&"web1".parse().unwrap(), cloud_init, agent, open).unwrap();
    let mut volume = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut volume, 0).unwrap();
    volume
}

/// The files of a volume, as another program would find them.
fn files(mut volume: Vec<u8>) -> BTreeMap<String, Vec<u8>> {
    assert!(volume.len() as u64 <= MAX_SEED.0 && volume.len().is_multiple_of(512));
    let system = FileSystem::new(Cursor::new(&mut volume[..]), FsOptions::new()).unwrap();
    assert_eq!(system.volume_label(), "CIDATA");
    assert_eq!(system.read_volume_label_from_root_dir().unwrap().as_deref(), Some("CIDATA"));
    let read = |entry: io::Result<fatfs::DirEntry<'_, _>>| {
        let entry = entry.unwrap();
        let mut content = Vec::new();
        entry.to_file().read_to_end(&mut content).unwrap();
        (entry.file_name(), content)
    };
    system.root_dir().iter().map(read).collect()
}

fn yaml(content: &[u8]) -> Yaml {
    let mut documents = YamlLoader::load_from_str(std::str::from_utf8(content).unwrap()).unwrap();
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

fn strings(yaml: &Yaml) -> Vec<String> {
    yaml.as_vec().unwrap().iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
}

#[test]
fn short_keys_become_what_cloud_init_reads() {
    let cloud_init = CloudInit {
        hostname: Some("web.example".to_owned()),
        ssh_authorized_keys: vec!["ssh-ed25519 AAAA a@b".to_owned()],
        password_hash: Some("$y$j9T$abc$def".to_owned()),
        packages: vec!["nginx".to_owned(), "1.0".to_owned()],
        ..CloudInit::default()
    };
    let files = files(made(&cloud_init));
    assert_eq!(files.keys().collect::<Vec<_>>(), ["meta-data", "user-data"]);
    assert!(files["user-data"].starts_with(b"#cloud-config\n"));
    let user_data = yaml(&files["user-data"]);
    assert_eq!(user_data["user"]["passwd"].as_str(), Some("$y$j9T$abc$def"));
    assert_eq!(user_data["user"]["lock_passwd"].as_bool(), Some(false));
    assert_eq!(strings(&user_data["ssh_authorized_keys"]), cloud_init.ssh_authorized_keys);
    assert_eq!(strings(&user_data["packages"]), ["nginx", "1.0"], "a version is no number");
    let meta_data = yaml(&files["meta-data"]);
    assert_eq!(meta_data["local-hostname"].as_str(), Some("web.example"));
    assert!(meta_data["instance-id"].as_str().unwrap().starts_with("web1-"));
}

#[test]
fn files_go_to_the_guest_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        Some(path)
    };
    let most = usize::try_from(MAX_SEED_FILE.0).unwrap();
    let program = vec![b'#'; most];
    let mut cloud_init = CloudInit {
        user_data: path("u", &program),
        meta_data: path("m", &program),
        network_config: path("n", &program),
        ..CloudInit::default()
    };
    let files = files(made(&cloud_init));
    assert_eq!(files.keys().collect::<Vec<_>>(), ["meta-data", "network-config", "user-data"]);
    assert!(files.values().all(|content| *content == program));
    cloud_init.user_data = path("u", &vec![0; most + 1]);
    let error = format!("{:#}", make(&"web1".parse().unwrap(), &cloud_init, false, open).unwrap_err());
    assert!(error.contains("/u: it is longer than 128KiB"), "{error}");
}

#[test]
fn the_same_definition_makes_the_same_seed_and_a_changed_one_another_instance() {
    let plain = CloudInit::default();
    assert!(made(&plain) == made(&plain));
    assert!(yaml(&files(made(&plain))["user-data"]).as_hash().is_some_and(|keys| keys.is_empty()));
    let id = |cloud_init: &CloudInit| {
        let files = files(made(cloud_init));
        yaml(&files["meta-data"])["instance-id"].as_str().unwrap().to_owned()
    };
    let with_packages = CloudInit { packages: vec!["nginx".to_owned()], ..CloudInit::default() };
    let with_hostname = CloudInit { hostname: Some("other".to_owned()), ..CloudInit::default() };
    assert_ne!(id(&plain), id(&with_packages));
    assert_ne!(id(&plain), id(&with_hostname));
    let named = |cloud_init: CloudInit| CloudInit { instance_id: Some("one".to_owned()), ..cloud_init };
    assert_eq!((id(&named(plain)), id(&named(with_packages))), ("one".to_owned(), "one".to_owned()));
}

#[test]
fn an_agent_is_installed_from_its_disk_beside_what_the_user_data_says() {
    let plain = CloudInit::default();
    let (without, with) = (files(made(&plain)), files(made_with(&plain, true)));
    assert_eq!(with["user-data"], without["user-data"]);
    assert_ne!(with["meta-data"], without["meta-data"], "it is installed in a guest that has booted before");
    let script = String::from_utf8(with["vendor-data"].clone()).unwrap();
    assert!(script.starts_with("#!/bin/sh\n"));
    assert!(script.contains(&format!("/dev/disk/by-id/virtio-{} ", AGENT_SERIAL)));
    assert!(!without.contains_key("vendor-data"));
}

#[test]
fn nobody_can_change_a_seed() {
    let file = make(&"web1".parse().unwrap(), &CloudInit::default(), false, open).unwrap();
    assert!(file.write_at(&[1], 0).is_err() && file.set_len(0).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_string_becomes_anything_but_itself(texts in prop::collection::vec(any::<String>(), 1..4)) {
        let document = format!("before: 1\ntexts:\n{}after: 2\n", list(&texts));
        let read = yaml(document.as_bytes());
        prop_assert_eq!(strings(&read["texts"]), texts);
        prop_assert_eq!((read["before"].as_i64(), read["after"].as_i64()), (Some(1), Some(2)));
        prop_assert!(document.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)));
    }

    #[test]
    fn the_longest_keys_fit_the_seed(character in prop::char::range(' ', '~'), count in 1..34usize) {
        let key = format!("ssh-ed25519 {}", character.to_string().repeat(1000));
        let text = format!(
            "name = 'a'\nsize = '64MiB'\n[boot]\nmodel = true\n[cloud_init]\nssh_authorized_keys = {:?}\n",
            vec![key; count]
        );
        let definition = VmDefinition::from_toml(&text, Path::new("/"));
        prop_assert_eq!(definition.is_ok(), count <= 32);
        let Ok(definition) = definition else { return Ok(()) };
        let cloud_init = definition.cloud_init.unwrap();
        let files = files(made(&cloud_init));
        prop_assert_eq!(strings(&yaml(&files["user-data"])["ssh_authorized_keys"]), cloud_init.ssh_authorized_keys);
    }
}

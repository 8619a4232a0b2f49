//! The commands that matter for booting Linux.

use super::super::condition;
use super::super::menu::{Action, Item};
use super::{Grub, Place};
use crate::{bls, env_block};

/// Commands that fail here: there is no keyboard, no graphics card, and no second disk.
const FAILING: &[&str] =
    &["false", "keystatus", "hwmatch", "regexp", "cmp", "cpuid", "loadfont", "fwsetup", "cryptomount"];

impl Grub<'_> {
    pub(super) fn command(&mut self, words: &[String], depth: u32) -> Result<(), String> {
        let Some((name, arguments)) = words.split_first() else { return Ok(()) };
        if name == "!" {
            self.command(arguments, depth)?;
            self.succeeded = !self.succeeded;
            return Ok(());
        }
        if let Some(body) = self.functions.get(name).cloned() {
            let words = std::mem::replace(&mut self.words, arguments.to_vec());
            self.run(&body, depth + 1)?;
            self.words = words;
            return Ok(());
        }
        let first = arguments.first().map_or("", String::as_str);
        self.succeeded = match name.as_str() {
            "set" => {
                if let Some((name, value)) = first.split_once('=') {
                    self.set(name, value.to_owned());
                }
                true
            }
            "unset" => {
                self.variables.remove(first);
                true
            }
            "[" | "test" => {
                let closed = arguments.last().is_some_and(|word| word == "]");
                let end = arguments.len() - usize::from(name == "[" && closed);
                condition::holds(&arguments[..end], self)
            }
            "load_env" => self.load_env(arguments),
            "search" | "search.fs_uuid" | "search.fs_label" | "search.file" => self.search(name, arguments),
            "probe" => self.probe(arguments),
            "configfile" | "normal" if !first.is_empty() => self.replace(first, depth)?,
            "source" | "." if self.is_file(first) => {
                self.include(first, depth + 1)?;
                true
            }
            "source" | "." => false,
            "linux" | "linux16" | "linuxefi" => self.linux(arguments),
            "initrd" | "initrd16" | "initrdefi" => self.initrd(arguments),
            "blscfg" => self.blscfg(),
            "chainloader" | "multiboot" | "multiboot2" | "xen_hypervisor" | "kfreebsd" | "reboot"
            | "halt" => {
                self.loaded.other = Some(words.join(" ").chars().take(100).collect());
                true
            }
            _ => match name.split_once('=').filter(|(name, _)| is_name(name)) {
                Some((name, value)) => {
                    self.set(name, value.to_owned());
                    true
                }
                None => !FAILING.contains(&name.as_str()),
            },
        };
        Ok(())
    }

    /// Runs the configuration at `path` in place of the one that runs. It fails where there is
    /// none.
    fn replace(&mut self, path: &str, depth: u32) -> Result<bool, String> {
        if !self.is_file(path) {
            return Ok(false);
        }
        self.menu.clear();
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory).to_owned();
        self.set("config_directory", directory);
        self.set("config_file", path.to_owned());
        self.include(path, depth + 1)?;
        self.replaced = true;
        Ok(true)
    }

    fn load_env(&mut self, arguments: &[String]) -> bool {
        let mut path = format!("{}/grubenv", self.get("prefix"));
        let mut names = Vec::new();
        let mut arguments = arguments.iter();
        while let Some(word) = arguments.next() {
            match word.as_str() {
                "-f" | "--file" => path = arguments.next().cloned().unwrap_or_default(),
                word if word.starts_with('-') => {}
                word => names.push(word),
            }
        }
        let Ok(text) = self.read(&path) else { return false };
        for (name, value) in env_block::read(&text) {
            if names.is_empty() || names.contains(&name.as_str()) {
                self.set(&name, value);
            }
        }
        true
    }

    /// Finds a volume by its UUID, its label or a file on it, and sets a variable to its name.
    fn search(&mut self, name: &str, arguments: &[String]) -> bool {
        let mut kind = name.strip_prefix("search.").unwrap_or("file");
        let (mut variable, mut named) = (None, true);
        let mut words = Vec::new();
        for word in arguments {
            match word.as_str() {
                "--fs-uuid" | "-u" => kind = "fs_uuid",
                "--label" | "-l" | "--fs-label" => kind = "fs_label",
                "--file" | "-f" => kind = "file",
                "--set" | "-s" => (variable, named) = (Some("root"), false),
                word => match word.strip_prefix("--set=") {
                    Some(name) => variable = Some(name),
                    None if word.starts_with('-') => {}
                    None => words.push(word),
                },
            }
        }
        // "search --set root NAME" is the same as "--set=root NAME".
        if words.len() > 1 && !named {
            variable = Some(words.remove(0));
        }
        if name.contains('.') {
            variable = words.get(1).copied();
        }
        let Some(wanted) = words.first().copied() else { return false };
        let found = self.volumes.iter().position(|volume| match kind {
            "fs_uuid" => volume.files.uuid().eq_ignore_ascii_case(wanted),
            "fs_label" => volume.files.label() == wanted,
            _ => volume.file(wanted).is_some() || volume.is_directory(wanted),
        });
        if let (Some(index), Some(variable)) = (found, variable) {
            let (variable, device) = (variable.to_owned(), self.volumes[index].device.clone());
            self.set(&variable, device);
        }
        found.is_some()
    }

    /// Tells the UUID or the label of a device.
    fn probe(&mut self, arguments: &[String]) -> bool {
        let mut variable = None;
        let mut kind = None;
        let mut device = None;
        let mut arguments = arguments.iter();
        while let Some(word) = arguments.next() {
            match word.as_str() {
                "--set" | "-s" => variable = arguments.next().cloned(),
                "--fs-uuid" | "-u" => kind = Some("uuid"),
                "--label" | "-l" => kind = Some("label"),
                word => match word.strip_prefix("--set=") {
                    Some(name) => variable = Some(name.to_owned()),
                    None => device = Some(word),
                },
            }
        }
        let volume = device.and_then(|device| self.device(device)).map(|index| &self.volumes[index]);
        let value = match (kind, volume) {
            (Some("uuid"), Some(volume)) => volume.files.uuid().to_owned(),
            (Some("label"), Some(volume)) => volume.files.label().to_owned(),
            _ => return false,
        };
        if let Some(variable) = variable {
            self.set(&variable, value);
        }
        true
    }

    fn linux(&mut self, arguments: &[String]) -> bool {
        let Some((path, words)) = arguments.split_first() else { return false };
        let Some(place) = self.locate(path) else {
            self.loaded.other = Some(format!("{path} is on {}, which is not there", self.get("root")));
            return false;
        };
        let words = words.iter().map(|word| quoted(word));
        let cmdline =
            std::iter::once(format!("BOOT_IMAGE={path}")).chain(words).collect::<Vec<_>>().join(" ");
        self.loaded.kernel = Some((place, cmdline));
        true
    }

    fn initrd(&mut self, arguments: &[String]) -> bool {
        let places: Option<Vec<Place>> = arguments.iter().map(|path| self.locate(path)).collect();
        let found = places.is_some();
        self.loaded.initrd = places.unwrap_or_default();
        found
    }

    /// Adds the entries of the Boot Loader Specification, where Fedora's GRUB looks for them.
    fn blscfg(&mut self) -> bool {
        let device = ["boot", "root"].into_iter().find_map(|name| self.device(self.get(name)));
        let Some(index) = device else { return false };
        let own = self.get("blsdir").to_owned();
        let directories = [own.as_str(), "/loader/entries", "/boot/loader/entries"];
        for directory in directories.into_iter().filter(|directory| !directory.is_empty()) {
            let entries = bls::read(&self.volumes[index], directory).unwrap_or_default();
            if !entries.is_empty() {
                for entry in entries {
                    let (title, id) = (entry.title.clone(), Some(entry.id.clone()));
                    self.add(Item { title, id, action: Action::Bls(index, entry) });
                }
                return true;
            }
        }
        false
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A word of the kernel's command line, as GRUB hands it on.
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\'', "\\'");
    if word.contains(' ') { format!("\"{escaped}\"") } else { escaped }
}

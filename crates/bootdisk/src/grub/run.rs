mod commands;

use std::collections::BTreeMap;
use std::rc::Rc;

use super::condition::Files;
use super::menu::{self, Action, Item};
use super::script::{self, Block, Piece, Statement, Word};
use crate::bls;
use crate::volume::Volume;

/// Most commands that are run in all. grub-mkconfig's scripts have some hundred.
const MAX_STEPS: u32 = 100_000;
/// Deepest nesting of functions, menus and files.
const MAX_DEPTH: u32 = 16;
/// Most variables and functions.
const MAX_NAMES: usize = 512;
/// Longest value of a variable, and longest command.
const MAX_VALUE: usize = 16 << 10;
/// Most entries of a menu.
const MAX_ITEMS: usize = 1024;
/// Most files that are read.
const MAX_FILES: u32 = 64;

/// What GRUB tells scripts of itself.
const OWN: &[(&str, &str)] = &[
    ("grub_platform", "pc"),
    // Ubuntu's cloud images try to boot without an initrd first, and note in the environment block
    // that they did. Nothing is written here, so that they go on with it at once.
    ("initrdfail", "1"),
    ("grub_cpu", "x86_64"),
    ("feature_all_video_module", "y"),
    ("feature_chainloader_bpb", "y"),
    ("feature_default_font_path", "y"),
    ("feature_menuentry_id", "y"),
    ("feature_menuentry_options", "y"),
    ("feature_nativedisk_cmd", "y"),
    ("feature_ntldr", "y"),
    ("feature_platform_search_hint", "y"),
    ("feature_timeout_style", "y"),
    ("feature_200_final", "y"),
];

/// A file by its volume and path.
pub(crate) type Place = (usize, String);

/// What an entry boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Boots {
    pub(crate) title: String,
    pub(crate) kernel: Place,
    pub(crate) initrd: Vec<Place>,
    pub(crate) cmdline: String,
}

/// A GRUB that has run a configuration.
pub(super) struct Grub<'a> {
    volumes: &'a [Volume],
    variables: BTreeMap<String, String>,
    functions: BTreeMap<String, Block>,
    menu: Vec<Item>,
    /// Words of the function or entry that runs.
    words: Vec<String>,
    loaded: Loaded,
    /// A configuration has replaced the one that runs.
    replaced: bool,
    succeeded: bool,
    steps: u32,
    files: u32,
}

/// What commands have loaded.
#[derive(Debug, Default)]
struct Loaded {
    kernel: Option<(Place, String)>,
    initrd: Vec<Place>,
    /// A command that boots something else.
    other: Option<String>,
}

impl<'a> Grub<'a> {
    /// A GRUB that finds its configuration at `path` of volume `index`.
    pub(super) fn new(volumes: &'a [Volume], index: usize, path: &str) -> Self {
        let device = volumes[index].device.as_str();
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mut variables: BTreeMap<String, String> =
            OWN.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        variables.insert("root".to_owned(), device.to_owned());
        variables.insert("prefix".to_owned(), format!("({device}){directory}"));
        Self {
            volumes,
            variables,
            functions: BTreeMap::new(),
            menu: Vec::new(),
            words: Vec::new(),
            loaded: Loaded::default(),
            replaced: false,
            succeeded: true,
            steps: 0,
            files: 0,
        }
    }

    /// Runs the configuration at `path`, and the default entry of its menu.
    pub(super) fn boot(mut self, path: &str) -> Result<Boots, String> {
        self.include(path, 0)?;
        self.choose(0)
    }

    /// Boots the default entry of the menu. Where that is a menu, or loads another configuration,
    /// its default.
    fn choose(&mut self, depth: u32) -> Result<Boots, String> {
        let default = self.get("default").to_owned();
        let steps = menu::steps(if default.is_empty() { "0" } else { &default });
        let mut steps = steps.iter();
        for depth in depth..MAX_DEPTH {
            let step = steps.next().map_or("0", String::as_str);
            let item = menu::find(&self.menu, step).cloned().ok_or("its menu has no entry")?;
            self.replaced = false;
            match item.action {
                Action::Bls(index, entry) => return self.bls_entry(index, &entry),
                Action::Submenu { body, words } => {
                    self.menu.clear();
                    self.words = words;
                    self.run(&body, depth + 1)?;
                }
                Action::Script { body, words } => {
                    self.words = words;
                    self.set("chosen", item.title.clone());
                    self.run(&body, depth + 1)?;
                    if self.replaced && self.loaded.kernel.is_none() {
                        return self.choose(depth + 1);
                    }
                    return self.loaded(item.title);
                }
            }
        }
        Err("its menus are nested too deeply".to_owned())
    }

    fn loaded(&mut self, title: String) -> Result<Boots, String> {
        let loaded = std::mem::take(&mut self.loaded);
        match (loaded.kernel, loaded.other) {
            (Some((kernel, cmdline)), _) => Ok(Boots { title, kernel, initrd: loaded.initrd, cmdline }),
            (None, Some(other)) => Err(format!("its default entry {title:?} boots no Linux ({other})")),
            (None, None) => Err(format!("its default entry {title:?} loads no kernel")),
        }
    }

    fn bls_entry(&self, index: usize, entry: &bls::BlsEntry) -> Result<Boots, String> {
        let kernel = (index, entry.linux.clone());
        let options = expand(&entry.options, |name| self.get(name));
        let initrd = entry.initrd.iter().map(|name| expand(name, |name| self.get(name)));
        let initrd = initrd.filter(|path| !path.is_empty()).map(|path| (index, path)).collect();
        let cmdline = format!("BOOT_IMAGE=({}){} {options}", self.volumes[index].device, entry.linux);
        Ok(Boots { title: entry.title.clone(), kernel, initrd, cmdline })
    }

    fn get(&self, name: &str) -> &str {
        match name {
            "?" => {
                if self.succeeded {
                    "0"
                } else {
                    "1"
                }
            }
            _ => match name.parse::<usize>() {
                Ok(number) => {
                    number.checked_sub(1).and_then(|at| self.words.get(at)).map_or("", String::as_str)
                }
                Err(_) => self.variables.get(name).map_or("", String::as_str),
            },
        }
    }

    fn set(&mut self, name: &str, value: String) {
        let known = self.variables.contains_key(name);
        if (known || self.variables.len() < MAX_NAMES) && value.len() <= MAX_VALUE {
            self.variables.insert(name.to_owned(), value);
        }
    }

    /// Runs the script in a file. Its syntax must be right; what its commands do need not succeed.
    fn include(&mut self, path: &str, depth: u32) -> Result<(), String> {
        self.files += 1;
        if depth > MAX_DEPTH || self.files > MAX_FILES {
            return Err("its configurations include too many others".to_owned());
        }
        let text = self.read(path).map_err(|e| format!("{path} cannot be read: {e}"))?;
        let script = script::parse(&text).map_err(|e| format!("{path} cannot be understood: {e}"))?;
        self.run(&script, depth)
    }

    fn read(&self, path: &str) -> Result<String, String> {
        let (index, path) = self.locate(path).ok_or("there is no such file system")?;
        self.volumes[index].text(&path).map_err(|e| e.to_string())
    }

    /// The volume and the path that GRUB means by `path`: on the device that it names, or on
    /// `$root`.
    fn locate(&self, path: &str) -> Option<Place> {
        let (device, path) = match path.strip_prefix('(') {
            Some(rest) => rest.split_once(')')?,
            None => (self.get("root"), path),
        };
        self.device(device).map(|index| (index, path.to_owned()))
    }

    fn device(&self, device: &str) -> Option<usize> {
        let device = device.trim_start_matches('(').trim_end_matches(')');
        let same = |known: &str| {
            // "hd0,1" is the same without the scheme.
            known == device
                || known.replacen("gpt", "", 1) == device
                || known.replacen("msdos", "", 1) == device
        };
        self.volumes.iter().position(|volume| same(&volume.device))
    }

    fn run(&mut self, block: &Block, depth: u32) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err("its functions call each other too deeply".to_owned());
        }
        for statement in block.iter() {
            if self.replaced {
                break;
            }
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err("it runs too many commands".to_owned());
            }
            match statement {
                Statement::Command(words) => {
                    let words = self.words(words);
                    self.command(&words, depth)?;
                }
                Statement::If { arms, otherwise } => self.conditional(arms, otherwise, depth)?,
                Statement::Function { name, body } => {
                    if self.functions.len() < MAX_NAMES {
                        self.functions.insert(name.clone(), Rc::clone(body));
                    }
                }
                Statement::Entry { submenu, words, body } => {
                    let words = self.words(words);
                    self.entry(*submenu, &words, body);
                }
            }
        }
        Ok(())
    }

    fn conditional(&mut self, arms: &[(Block, Block)], otherwise: &Block, depth: u32) -> Result<(), String> {
        for (condition, body) in arms {
            self.run(condition, depth + 1)?;
            if self.succeeded {
                return self.run(body, depth + 1);
            }
        }
        self.succeeded = true;
        self.run(otherwise, depth + 1)
    }

    /// The values of words: each variable replaced, and split at spaces unless it is in quotes.
    fn words(&self, words: &[Word]) -> Vec<String> {
        let mut values = Vec::new();
        let mut length = 0;
        for word in words {
            let (mut value, mut is_word) = (String::new(), word.quoted);
            for piece in &word.pieces {
                match piece {
                    Piece::Text(text) => {
                        is_word = true;
                        value.push_str(text);
                    }
                    Piece::Variable { name, quoted } => {
                        let all = name == "@" || name == "*";
                        let found = if all { self.words.join(" ") } else { self.get(name).to_owned() };
                        if *quoted {
                            value.push_str(&found);
                            continue;
                        }
                        let mut parts = found.split(' ');
                        value.push_str(parts.next().unwrap_or_default());
                        is_word |= !value.is_empty();
                        for part in parts {
                            if is_word {
                                values.push(std::mem::take(&mut value));
                            }
                            value.push_str(part);
                            is_word = !part.is_empty();
                        }
                    }
                }
                length += value.len();
                if length > MAX_VALUE || values.len() > MAX_VALUE {
                    return Vec::new();
                }
            }
            if is_word {
                values.push(value);
            }
        }
        values
    }

    fn entry(&mut self, submenu: bool, words: &[String], body: &Block) {
        let Some((title, rest)) = words.split_first() else { return };
        let mut id = None;
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            match word.as_str() {
                "--id" => id = rest.next().cloned(),
                "--class" | "--users" | "--hotkey" => drop(rest.next()),
                word => id = word.strip_prefix("--id=").map(str::to_owned).or(id),
            }
        }
        let (title, body, words) = (title.clone(), Rc::clone(body), words.to_vec());
        let action = if submenu { Action::Submenu { body, words } } else { Action::Script { body, words } };
        self.add(Item { title, id, action });
    }

    fn add(&mut self, item: Item) {
        if self.menu.len() < MAX_ITEMS {
            self.menu.push(item);
        }
    }

    fn is_file(&self, path: &str) -> bool {
        self.locate(path).is_some_and(|(index, path)| self.volumes[index].file(&path).is_some())
    }
}

impl Files for Grub<'_> {
    fn file(&self, path: &str) -> Option<u64> {
        let (index, path) = self.locate(path)?;
        self.volumes[index].file(&path)
    }

    fn is_directory(&self, path: &str) -> bool {
        self.locate(path).is_some_and(|(index, path)| self.volumes[index].is_directory(&path))
    }
}

/// `text` with `$name` and `${name}` replaced.
pub(crate) fn expand<'v>(text: &str, value: impl Fn(&str) -> &'v str) -> String {
    let mut expanded = String::new();
    let mut parts = text.split('$');
    expanded.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, rest) = match part.strip_prefix('{').and_then(|part| part.split_once('}')) {
            Some(found) => found,
            None => {
                let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                part.split_at(part.bytes().position(|byte| !is_letter(byte)).unwrap_or(part.len()))
            }
        };
        expanded.push_str(if name.is_empty() { "$" } else { value(name) });
        expanded.push_str(rest);
        if expanded.len() > MAX_VALUE {
            break;
        }
    }
    expanded
}

//! Type 1 entries of the Boot Loader Specification: a file for each kernel in `loader/entries`.

use std::cmp::Ordering;
use std::io;

use crate::version;
use crate::volume::Volume;

/// Most entries that are read: distributions keep a few kernels.
const MAX_ENTRIES: usize = 256;
/// Most initrds of an entry.
const MAX_INITRDS: usize = 16;
/// Longest value of a key.
const MAX_VALUE: usize = 8192;

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlsEntry {
    /// Its file's name, without `.conf` and without the count of attempts to boot it.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) linux: String,
    pub(crate) initrd: Vec<String>,
    /// With variables as they are written.
    pub(crate) options: String,
    version: String,
    machine_id: String,
    sort_key: String,
    /// All attempts to boot it have failed.
    bad: bool,
}

/// The entries in `directory`, the one that comes first first. Those that boot no kernel are left
/// out.
pub(crate) fn read(volume: &Volume, directory: &str) -> io::Result<Vec<BlsEntry>> {
    let names = volume.list(directory)?;
    let mut entries = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".conf")).take(MAX_ENTRIES) {
        let text = volume.text(&format!("{directory}/{name}"))?;
        entries.extend(entry(name, &text));
    }
    entries.sort_by(order);
    Ok(entries)
}

/// Reads the file `name`; `None`: it boots no kernel.
fn entry(name: &str, text: &str) -> Option<BlsEntry> {
    let stem = name.strip_suffix(".conf").unwrap_or(name);
    // "+LEFT" or "+LEFT-DONE".
    let counted = stem.rsplit_once('+').and_then(|(id, tries)| {
        let (left, done) = tries.split_once('-').unwrap_or((tries, "0"));
        Some((id, left.parse::<u32>().ok()?, done.parse::<u32>().ok()?))
    });
    let (id, bad) = counted.map_or((stem, false), |(id, left, _)| (id, left == 0));
    let mut entry = BlsEntry { id: id.to_owned(), bad, ..BlsEntry::default() };
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let Some((key, value)) = line.split_once([' ', '\t']) else { continue };
        let value = value.trim();
        match key {
            "title" => entry.title = value.to_owned(),
            "version" => entry.version = value.to_owned(),
            "machine-id" => entry.machine_id = value.to_owned(),
            "sort-key" => entry.sort_key = value.to_owned(),
            "linux" => entry.linux = value.to_owned(),
            // Fedora writes several in one line.
            "initrd" => entry.initrd.extend(value.split_whitespace().map(str::to_owned)),
            "options" if entry.options.is_empty() => entry.options = value.to_owned(),
            "options" => entry.options = format!("{} {value}", entry.options),
            _ => {}
        }
        let long = [&entry.options, &entry.title, &entry.linux].iter().any(|text| text.len() > MAX_VALUE);
        if long || entry.initrd.len() > MAX_INITRDS {
            return None;
        }
    }
    if entry.title.is_empty() {
        entry.title = entry.id.clone();
    }
    (!entry.linux.is_empty()).then_some(entry)
}

/// The specification's order ("Sorting"): the first is what is booted.
fn order(a: &BlsEntry, b: &BlsEntry) -> Ordering {
    let keyed = |entry: &BlsEntry| !entry.sort_key.is_empty();
    a.bad
        .cmp(&b.bad)
        .then(keyed(b).cmp(&keyed(a)))
        .then_with(|| {
            if !keyed(a) {
                return Ordering::Equal;
            }
            let names = a.sort_key.cmp(&b.sort_key).then_with(|| a.machine_id.cmp(&b.machine_id));
            names.then_with(|| version::compare(&b.version, &a.version))
        })
        .then_with(|| version::compare(&b.id, &a.id))
}

/// Whether `pattern`, with `*` and `?`, matches `text`: the default in `loader.conf`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(letter) if *letter == b'?' || *letter == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                // The last star takes one letter more.
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::memory::Memory;

    fn ids(files: &[(&str, &str)]) -> Vec<String> {
        let memory = files.iter().fold(Memory::default(), |memory, (name, text)| {
            memory.with(&format!("/loader/entries/{name}"), *text)
        });
        let entries = read(&memory.volume(), "/loader/entries").unwrap();
        entries.into_iter().map(|entry| entry.id).collect()
    }

    #[test]
    fn the_newest_comes_first_and_failed_ones_last() {
        let linux = "linux /vmlinuz\n";
        let fedora = [
            ("m-6.1.9.conf", linux),
            ("m-6.1.10.conf", linux),
            ("m-6.2.1+0-3.conf", linux),
            ("m-0-rescue.conf", linux),
            ("m-7.conf", "title no kernel\nefi /x.efi\n"),
            ("README", "linux /vmlinuz\n"),
        ];
        assert_eq!(ids(&fedora), ["m-6.1.10", "m-6.1.9", "m-0-rescue", "m-6.2.1"]);
        let keyed = [
            ("a.conf", "linux /v\nsort-key fedora\nversion 6.1\n"),
            ("b.conf", "linux /v\nsort-key fedora\nversion 6.2\n"),
            ("c.conf", "linux /v\nsort-key arch\nversion 1\n"),
            ("z.conf", "linux /v\n"),
        ];
        assert_eq!(ids(&keyed), ["c", "b", "a", "z"]);
    }

    #[test]
    fn an_entry_has_all_its_lines() {
        let text = "# x\ntitle\tFedora Linux\nlinux /vmlinuz-6\ninitrd /a /b\ninitrd  /c\noptions root=x\noptions  ro $kernelopts\n";
        let entry = entry("id+2-1.conf", text).unwrap();
        assert_eq!((entry.id.as_str(), entry.title.as_str(), entry.bad), ("id", "Fedora Linux", false));
        assert_eq!((entry.linux.as_str(), entry.initrd.join(",")), ("/vmlinuz-6", "/a,/b,/c".to_owned()));
        assert_eq!(entry.options, "root=x ro $kernelopts");
    }

    #[test]
    fn patterns_match_as_a_shells_do() {
        for (pattern, text, wanted) in [
            ("debian-*", "debian-6.1", true),
            ("*.1", "debian-6.1", true),
            ("d?bian*6*", "debian-6.1", true),
            ("debian", "debian-6.1", false),
            ("", "", true),
            ("*", "", true),
            ("?", "", false),
            ("a*b*c", "aXbYbZ", false),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }
}

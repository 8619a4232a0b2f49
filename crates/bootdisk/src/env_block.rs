//! GRUB's environment block (`grubenv`): variables that outlive a boot.

use std::collections::BTreeMap;

/// Most variables: the block has 1024 bytes.
const MAX_VARIABLES: usize = 128;

/// Entries that `grub-reboot` has chosen for one boot. GRUB forgets them as it boots them, and
/// nothing here writes: they would be chosen again each time.
const ONCE: [&str; 2] = ["next_entry", "prev_saved_entry"];

/// The variables of the block in `text`, but for those of one boot only.
pub(crate) fn read(text: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut line = String::new();
    let mut letters = text.chars();
    let mut done = false;
    while !done && variables.len() < MAX_VARIABLES {
        match letters.next() {
            // What follows is meant literally, a newline included.
            Some('\\') => line.extend(letters.next()),
            Some('\n') | None => {
                done = letters.as_str().is_empty();
                if let Some((name, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                    variables.insert(name.to_owned(), value.to_owned());
                }
                line.clear();
            }
            Some(letter) => line.push(letter),
        }
    }
    // Before 2.00, the entry to return to after one boot was kept beside the one of that boot.
    if let Some(entry) = variables.get("prev_saved_entry").filter(|entry| !entry.is_empty()).cloned() {
        variables.insert("saved_entry".to_owned(), entry);
    }
    ONCE.iter().for_each(|name| drop(variables.remove(*name)));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_and_entries_of_one_boot_are_not() {
        let block = "# GRUB Environment Block\nsaved_entry=a\\\\b=c\nnext_entry=other\nempty=\n#######";
        let variables = read(block);
        assert_eq!(variables.get("saved_entry").unwrap(), "a\\b=c");
        assert_eq!(variables.get("empty").unwrap(), "");
        assert_eq!(variables.len(), 2);
        let old = read("saved_entry=once\nprev_saved_entry=always\n");
        assert_eq!(old.get("saved_entry").unwrap(), "always");
        assert!(read("").is_empty());
    }

    #[test]
    fn a_block_is_no_larger_than_it_can_be() {
        let block: String = (0..1000).map(|n| format!("v{n}=1\n")).collect();
        assert_eq!(read(&block).len(), MAX_VARIABLES);
    }
}

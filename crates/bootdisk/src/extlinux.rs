//! The configuration of extlinux and syslinux, which U-Boot reads as well.

/// Most labels, and initrds of one.
const MAX: usize = 256;

/// What a label boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Label {
    name: String,
    title: String,
    default: bool,
    pub(crate) linux: String,
    pub(crate) initrd: Vec<String>,
    pub(crate) append: String,
}

impl Label {
    /// For people.
    pub(crate) fn title(&self) -> &str {
        if self.title.is_empty() { &self.name } else { &self.title }
    }
}

/// The label that `text` boots by default: the one that it names, else the one that its menu marks,
/// else the first. `None`: none boots a kernel.
pub(crate) fn default(text: &str) -> Option<Label> {
    let mut wanted = None;
    let mut common = String::new();
    let mut labels: Vec<Label> = Vec::new();
    for line in text.lines().map(str::trim) {
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let value = value.trim();
        let key = key.to_ascii_lowercase();
        if key == "label" {
            if labels.len() < MAX {
                labels.push(Label { name: value.to_owned(), ..Label::default() });
            }
            continue;
        }
        let Some(label) = labels.last_mut() else {
            match key.as_str() {
                "default" => wanted = Some(value.to_owned()),
                // For labels without one of their own.
                "append" => common = value.to_owned(),
                _ => {}
            }
            continue;
        };
        match key.as_str() {
            "default" => wanted = Some(value.to_owned()),
            "linux" | "kernel" => label.linux = value.to_owned(),
            "initrd" => label.initrd = names(value),
            "append" => label.append = value.to_owned(),
            "menu" => match value.split_once([' ', '\t']) {
                Some((word, title)) if word.eq_ignore_ascii_case("label") => {
                    // A caret marks the key that chooses it.
                    label.title = title.trim().replace('^', "");
                }
                None if value.eq_ignore_ascii_case("default") => label.default = true,
                _ => {}
            },
            _ => {}
        }
    }
    let named = labels.iter().position(|label| wanted.as_ref().is_some_and(|wanted| *wanted == label.name));
    let chosen = named.or_else(|| labels.iter().position(|label| label.default)).unwrap_or(0);
    let mut label = labels.into_iter().nth(chosen).filter(|label| !label.linux.is_empty())?;
    match label.append.as_str() {
        "" => label.append = common,
        "-" => label.append.clear(),
        _ => {}
    }
    // Syslinux takes the initrd from the command line, too, and passes it on.
    if label.initrd.is_empty() {
        let word = label.append.split_whitespace().find_map(|word| word.strip_prefix("initrd="));
        label.initrd = word.map(names).unwrap_or_default();
    }
    Some(label)
}

fn names(value: &str) -> Vec<String> {
    value.split(',').map(str::trim).filter(|name| !name.is_empty()).take(MAX).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALPINE: &str = "SERIAL 0 115200\nDEFAULT menu.c32\nPROMPT 0\nMENU TITLE Alpine\n\nLABEL virt\n  MENU DEFAULT\n  \
                          MENU LABEL Linux ^virt\n  LINUX vmlinuz-virt\n  INITRD initramfs-virt,more\n  APPEND root=UUID=x ro\n\n\
                          LABEL old\n  LINUX vmlinuz-old\n";

    #[test]
    fn the_default_is_named_or_marked_or_first() {
        let label = default(ALPINE).unwrap();
        assert_eq!((label.title(), label.linux.as_str()), ("Linux virt", "vmlinuz-virt"));
        assert_eq!(
            (label.initrd.join(" "), label.append.as_str()),
            ("initramfs-virt more".into(), "root=UUID=x ro")
        );
        let named = default(&ALPINE.replace("DEFAULT menu.c32", "default old")).unwrap();
        assert_eq!((named.title(), named.linux.as_str()), ("old", "vmlinuz-old"));
        let first = default("label a\nkernel /k\nappend initrd=/i,/j quiet\nlabel b\nkernel /l\n").unwrap();
        assert_eq!(
            (first.linux.as_str(), first.initrd.len(), first.append.as_str()),
            ("/k", 2, "initrd=/i,/j quiet")
        );
    }

    #[test]
    fn what_boots_no_kernel_is_none() {
        assert_eq!(default(""), None);
        assert_eq!(default("default a\nlabel a\nlocalboot 0\n"), None);
        let common = default("append quiet\nlabel a\nlinux /k\n").unwrap();
        assert_eq!(common.append, "quiet");
        assert_eq!(default("append quiet\nlabel a\nlinux /k\nappend -\n").unwrap().append, "");
    }
}

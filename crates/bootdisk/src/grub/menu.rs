//! A menu, and the entry that a default names.

use super::script::Block;
use crate::bls::BlsEntry;

/// An entry of a menu.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) title: String,
    /// What `--id` says.
    pub(super) id: Option<String>,
    pub(super) action: Action,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Commands that load a kernel; the words behind the title.
    Script { body: Block, words: Vec<String> },
    /// Commands that make a menu.
    Submenu { body: Block, words: Vec<String> },
    /// A kernel in volume `usize`.
    Bls(usize, BlsEntry),
}

/// The steps of a path such as `1>2` or `gnulinux-advanced>gnulinux-6.1`. A `>` in a title is
/// written twice.
pub(super) fn steps(path: &str) -> Vec<String> {
    let mut steps = vec![String::new()];
    let mut letters = path.chars().peekable();
    while let Some(letter) = letters.next() {
        let step = steps.last_mut().expect("it begins with one");
        match letter {
            '>' if letters.peek() == Some(&'>') => {
                letters.next();
                step.push('>');
            }
            '>' => steps.push(String::new()),
            letter => step.push(letter),
        }
    }
    steps
}

/// The item that `step` names: by its number, its id or its title. GRUB boots the first one where
/// there is no such item.
pub(super) fn find<'a>(items: &'a [Item], step: &str) -> Option<&'a Item> {
    let named = |item: &&Item| item.id.as_deref() == Some(step) || item.title == step;
    let number = step.parse::<usize>().ok().and_then(|number| items.get(number));
    number.or_else(|| items.iter().find(named)).or_else(|| items.first())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_steps_and_titles_may_have_arrows() {
        assert_eq!(steps("0"), ["0"]);
        assert_eq!(steps("1>2"), ["1", "2"]);
        assert_eq!(steps("a >> b>c"), ["a > b", "c"]);
        assert_eq!(steps(""), [""]);
    }
}

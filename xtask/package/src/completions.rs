//! Completions of command lines, by clap_complete.

use clap::Command;
use clap_complete::{Generator, Shell, generate};

/// Completions for bash, zsh and fish: a path for each, and its content.
pub(crate) fn of(command: &Command) -> Vec<(String, Vec<u8>)> {
    let of = |(directory, shell, name): (&str, Shell, String)| {
        let mut content = Vec::new();
        generate(shell, &mut command.clone(), command.get_name(), &mut content);
        (format!("{directory}/{name}"), content)
    };
    let name = command.get_name();
    // bash looks for a file of the command's name.
    [
        ("bash", Shell::Bash, name.to_owned()),
        ("zsh", Shell::Zsh, Shell::Zsh.file_name(name)),
        ("fish", Shell::Fish, Shell::Fish.file_name(name)),
    ]
    .map(of)
    .into()
}

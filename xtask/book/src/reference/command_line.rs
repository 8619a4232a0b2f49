use clap::{Command, CommandFactory};

use super::Page;

/// Width of the help, in columns.
const WIDTH: usize = 100;

/// A page for each command of `plimsoll`, one for `plimsolld`, and one that lists them.
pub(super) fn pages() -> Vec<Page> {
    let plimsoll = built(plimsoll_cli::command());
    let daemon = built(plimsoll_host::Arguments::command());
    let mut pages = Vec::new();
    let mut list = String::from("| command | does |\n|---|---|\n");
    for command in shown(&plimsoll) {
        let name = command.get_name();
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let names: Vec<String> =
            std::iter::once(name).chain(command.get_visible_aliases()).map(|n| format!("`{n}`")).collect();
        list += &format!("| [{}]({name}.md) | {} |\n", names.join(", "), about.replace('|', "\\|"));
        pages.push(page(command, name));
    }
    pages.push(page(&daemon, "plimsolld"));
    let intro = "These pages are what `--help` prints. `plimsoll help run` and `man plimsoll-run` say the same.\n\
        What all commands have in common:\n\n";
    let body = format!(
        "{intro}```text\n{}\n```\n\n## Commands\n\n{list}\nThe daemon's own command line: [`plimsolld`](plimsolld.md).",
        help(&plimsoll)
    );
    pages.push(Page::new("commands/index.md", "Command line", &body));
    pages
}

/// The page of a command, with those below it.
fn page(command: &Command, name: &str) -> Page {
    let mut body = format!("```text\n{}\n```\n", help(command));
    for below in shown(command) {
        body += &format!("\n## {}\n\n```text\n{}\n```\n", title(below), help(below));
    }
    Page::new(&format!("commands/{name}.md"), &title(command), &body)
}

/// A command whose options and usage are complete, with help of a fixed width.
fn built(command: Command) -> Command {
    let mut command = command.term_width(WIDTH);
    command.build();
    command
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
}

fn title(command: &Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).to_owned()
}

/// The long help. Options of all commands are left to the page that lists the commands.
fn help(command: &Command) -> String {
    let below = command.get_bin_name().is_some_and(|name| name.contains(' '));
    let mut command = command.clone().term_width(WIDTH);
    if below {
        command = command.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
    }
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    lines.join("\n")
}

//! Man pages, by clap_mangen.

use anyhow::Result;
use clap::Command;
use clap::builder::{Resettable, StyledStr};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

const SOURCE: &str = concat!("Plimsoll ", env!("CARGO_PKG_VERSION"));

/// Pages for `command` and all commands below it: a path for each, and its content.
///
/// # Errors
/// The page cannot be rendered.
pub(crate) fn of(command: Command, section: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut command = command;
    command.build();
    let mut pages = Vec::new();
    add(&command, section, &mut pages)?;
    Ok(pages)
}

fn add(command: &Command, section: &str, pages: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        add(below, section, pages)?;
    }
    // What follows the options is set as it is: examples and tables.
    let after = command.get_after_long_help().or_else(|| command.get_after_help()).map(ToString::to_string);
    let none = || Resettable::<StyledStr>::Reset;
    let plain = command.clone().after_help(none()).after_long_help(none());
    let man = Man::new(plain).section(section).source(SOURCE).manual("Plimsoll");
    let name = man.get_filename();
    let mut page = Vec::new();
    man.render(&mut page)?;
    if let Some(after) = after {
        as_it_is("NOTES", &after, &mut Roff::new()).to_writer(&mut page)?;
    }
    pages.push((format!("man{section}/{name}"), page));
    Ok(())
}

/// The page of the daemon's configuration, which is its annotated `example`.
///
/// # Errors
/// The page cannot be rendered.
pub(crate) fn of_configuration(example: &str) -> Result<(String, Vec<u8>)> {
    let mut roff = Roff::new();
    roff.control("TH", ["plimsolld.toml", "5", "", SOURCE, "Plimsoll"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("plimsolld.toml - the configuration of plimsolld")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([roman("/etc/plimsoll/plimsolld.toml")]);
    as_it_is("DESCRIPTION", example, &mut roff);
    let mut page = Vec::new();
    roff.to_writer(&mut page)?;
    Ok(("man5/plimsolld.toml.5".to_owned(), page))
}

/// Adds a section whose lines are neither filled nor joined.
fn as_it_is<'a>(heading: &str, text: &str, roff: &'a mut Roff) -> &'a mut Roff {
    roff.control("SH", [heading]).control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", [])
}

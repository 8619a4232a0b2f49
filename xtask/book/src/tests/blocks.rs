//! Every block of code is text, or something that the code reads.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::error::ErrorKind;
use clap::{Command, CommandFactory};
use plimsoll_protocol::definition::VmDefinition;
use toml::{Table, Value};

use crate::documents::{self, place};
use crate::{command_lines, shell};

/// Programs of others. One that is missing here may be a slip of the pen.
const OTHERS: &[&str] = &[
    "apt",
    "cd",
    "chmod",
    "cp",
    "curl",
    "ip",
    "lvcreate",
    "lvremove",
    "mkdir",
    "openssl",
    "ssh",
    "systemctl",
    "truncate",
    "wget",
];

/// Whether the program's own parser takes `words`, of which the first is the program.
fn parses(command: &Command, words: &[String]) -> Result<()> {
    match command.clone().try_get_matches_from(words) {
        Err(error) if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            bail!("{}: {}", words.join(" "), error.to_string().lines().next().unwrap_or_default())
        }
        _ => Ok(()),
    }
}

fn check(words: &[String]) -> Result<()> {
    let (_, arguments) = words.split_first().context("no words")?;
    match words[0].as_str() {
        "plimsoll" => parses(&plimsoll_cli::command(), words),
        "plimsolld" => parses(&plimsoll_host::Arguments::command(), words),
        // Those of xtask are read by its own test.
        "cargo" => {
            let known = matches!(arguments.first().map(String::as_str), Some("xtask" | "build"));
            ensure!(known, "{}: unknown to this test", words.join(" "));
            Ok(())
        }
        other => {
            ensure!(OTHERS.contains(&other), "{other} is no program that this test knows");
            Ok(())
        }
    }
}

#[test]
fn every_command_in_a_block_is_taken_by_its_program() {
    let lines = command_lines().unwrap();
    let wrong: Vec<String> = lines
        .iter()
        .filter_map(|line| check(&line.words).err().map(|e| format!("{}: {e:#}", line.place)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let ours = lines.iter().filter(|line| line.words[0] == "plimsoll").count();
    assert!(ours > 60, "only {ours} commands were found");
}

/// Whether `words` name a command without its arguments.
fn names_a_command(words: &[String]) -> bool {
    let mut command = plimsoll_cli::command();
    words[1..].iter().all(|word| match command.find_subcommand(word).cloned() {
        Some(below) => {
            command = below;
            true
        }
        None => false,
    })
}

#[test]
fn every_command_within_a_line_is_taken_or_names_a_command() {
    let (mut wrong, mut found) = (Vec::new(), 0);
    for document in documents::all().unwrap() {
        for (line, code) in document.page.codes.iter().filter(|(_, code)| code.starts_with("plimsoll ")) {
            found += 1;
            let judged = shell::commands(code).and_then(|commands| {
                let mut all = commands.iter().filter(|words| !names_a_command(words));
                all.try_for_each(|words| check(words))
            });
            wrong.extend(judged.err().map(|e| format!("{}: {e:#}", place(&document.path, *line))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(found > 60, "only {found} commands were found");
}

/// Reads a block as what its fence says that it is.
fn read(info: &str, text: &str) -> Result<()> {
    match info {
        "console" => shell::typed(text).map(drop),
        "sh" | "text" => Ok(()),
        "toml definition" => {
            VmDefinition::from_toml(text, Path::new("/srv/vm"))?;
            Ok(())
        }
        "toml definition part" => read("toml definition", &completed(text)?),
        "toml configuration" => plimsoll_host::read_configuration(text),
        "toml scenario" => {
            plimsoll_sim::Scenario::from_toml(text, &|file: &str| Err(format!("{file} is not read")))
                .map(drop)
                .map_err(anyhow::Error::msg)
        }
        other => bail!("{other:?} says nothing that this test knows: see CONTRIBUTING.md"),
    }
}

/// A part of a definition, with what a whole one has to have.
fn completed(text: &str) -> Result<String> {
    let mut table: Table = text.parse()?;
    for (key, value) in [("name", "part"), ("size", "512MiB")] {
        table.entry(key).or_insert_with(|| Value::from(value));
    }
    let kernel = Table::from_iter([("kernel".to_owned(), Value::from("/vmlinuz"))]);
    let boot = table.entry("boot").or_insert_with(|| kernel.into());
    if boot.get("from").is_some() {
        let disk = Table::from_iter([("path".to_owned(), Value::from("/d"))]);
        table.entry("disk").or_insert_with(|| vec![Value::from(disk)].into());
    }
    Ok(toml::to_string(&table)?)
}

#[test]
fn every_block_is_what_its_fence_says() {
    let mut wrong = Vec::new();
    for document in documents::all().unwrap() {
        for block in &document.page.blocks {
            let judged = read(&block.info, &block.text);
            wrong.extend(judged.err().map(|e| format!("{}: {e:#}", place(&document.path, block.line))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_the_code_does_not_take_is_found() {
    let words = |line: &str| shell::commands(line).unwrap().remove(0);
    for line in
        ["plimsoll fly", "plimsoll set web1 --share high", "plimsolld --chek", "dokcer ps", "cargo fly"]
    {
        assert!(check(&words(line)).is_err(), "{line}");
    }
    for (info, text) in [
        ("", "x"),
        ("toml", "name = 'a'"),
        ("console", "plimsoll ps"),
        ("toml definition", "name = 'a'\nsise = '1GiB'\n[boot]\nkernel = 'k'\n"),
        ("toml definition part", "sise = '1GiB'\n"),
        ("toml configuration", "colour = 1\n"),
        ("toml scenario", "colour = 1\n"),
    ] {
        assert!(read(info, text).is_err(), "{info}: {text}");
    }
    assert!(
        names_a_command(&words("plimsoll image convert")) && !names_a_command(&words("plimsoll image fly"))
    );
}

//! `plimsoll`: the operator's command.
//!
//! It asks the daemon over HTTP/JSON and prints the answers; it keeps no state and decides nothing.
//! Only `doctor` looks at the host itself, only `plan` computes what policy would decide, and only
//! `image` works on files alone, so they need no daemon (`plan fit` asks it for its host). `run`
//! and `create` make a VM's disk where they are given an image.
//!
//! Start reading at [`args`], which is the manual; [`dispatch`] runs what it says, from
//! [`commands`], one file per command. [`selection`] names the VMs that a command is for, [`batch`]
//! prints what comes of each, [`exit`] has the exit status; [`top`] is a screen of its own.
//! [`client`] is the only module that speaks HTTP, [`output`] the only one that writes to the
//! standard output, and [`sys`] the only one that holds unsafe code. A file that is made is a
//! [`part`] until it is whole.

#![expect(rustdoc::private_intra_doc_links, reason = "a program: its parts are all private")]

mod address;
mod args;
mod batch;
mod client;
mod commands;
mod console;
mod context;
mod definition_file;
mod dispatch;
mod doctor;
mod exit;
mod follow;
mod guest;
mod interval;
mod output;
mod part;
mod selection;
mod since;
mod sys;
mod template;
mod tls;
mod top;
mod unix_stream;
mod vm_field;

use std::process::ExitCode;

use clap::{Command, CommandFactory, Parser};

/// The command line as clap defines it, for man pages and completions.
#[must_use]
pub fn command() -> Command {
    args::Args::command()
}

/// Runs the command that this process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let args = match args::Args::try_parse() {
        Ok(args) => args,
        Err(error) => return output::usage(&error),
    };
    let json = args.json;
    match dispatch::run(args) {
        Ok(code) => code,
        Err(error) => output::failure(&error, json),
    }
}

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Args, Command};
use crate::client::Client;
use crate::commands::{doctor, inspect, version};
use crate::context::Context;
use crate::exit::{Status, failed};
use crate::output::Output;

/// Runs the command.
///
/// # Errors
/// What failed, on what, and what to do about it, in one line.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let address = args.address().map_err(|e| failed(Status::Invalid, format!("{e:#}")))?;
    let output = Output::new(args.json);
    let context = Context { client: Client::new(address)?, output };
    match args.command {
        Command::Run(args) => args.run(&context),
        Command::Create(args) => args.run(&context),
        Command::Start(args) => args.run(&context),
        Command::Ps(args) => args.run(&context),
        Command::Show(args) => args.run(&context),
        Command::Inspect(vm) => inspect::run(&vm.name, &context),
        Command::Stop(args) => args.run(&context),
        Command::Restart(args) => args.run(&context),
        Command::Pause(args) => args.run(&context),
        Command::Resume(args) => args.run(&context),
        Command::Reset(args) => args.run(&context),
        Command::Kill(args) => args.run(&context),
        Command::Rm(args) => args.run(&context),
        Command::Wait(args) => args.run(&context),
        Command::Edit(args) => args.run(&context),
        Command::Rename(args) => args.run(&context),
        Command::Set(args) => args.run(&context),
        Command::Explain(args) => args.run(&context),
        Command::History(args) => args.run(&context),
        Command::Share(args) => args.run(&context),
        Command::Pool(args) => args.run(&context),
        Command::Disk(args) => args.run(&context),
        Command::Console(args) => args.run(&context),
        Command::Exec(args) => return args.run(&context),
        Command::Cp(args) => args.run(&context),
        Command::Logs(args) => args.run(&context),
        Command::Events(args) => args.run(&context),
        Command::Top(args) => args.run(&context),
        Command::Image(args) => args.run(&context),
        Command::Plan(args) => args.run(&context),
        Command::Doctor => return doctor::run(&context.output),
        Command::Version => version::run(&context),
    }?;
    match context.client.unsaved() {
        Some(why) => Err(failed(
            Status::Unsaved,
            format!("in effect, but not saved; it is lost if plimsolld ends before it can be: {why}"),
        )),
        None => Ok(ExitCode::SUCCESS),
    }
}

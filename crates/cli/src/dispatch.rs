use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Args, Command};
use crate::client::Client;
use crate::commands::{doctor, inspect, kill, ps, rm, show, start, version};
use crate::context::Context;
use crate::output::Output;

/// Runs the command.
///
/// # Errors
/// What failed, on what, and what to do about it, in one line.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let address = args.address()?;
    let output = Output::new(args.json);
    let context = Context { client: Client::new(address)?, output };
    match args.command {
        Command::Run(args) => args.run(&context),
        Command::Start(vm) => start::run(&vm.name, &context),
        Command::Ps => ps::run(&context),
        Command::Show(vm) => show::run(&vm.name, &context),
        Command::Inspect(vm) => inspect::run(&vm.name, &context),
        Command::Stop(args) => args.run(&context),
        Command::Kill(vm) => kill::run(&vm.name, &context),
        Command::Rm(vm) => rm::run(&vm.name, &context),
        Command::Set(args) => args.run(&context),
        Command::Explain(args) => args.run(&context),
        Command::History(args) => args.run(&context),
        Command::Share(args) => args.run(&context),
        Command::Pool(args) => args.run(&context),
        Command::Console(args) => args.run(&context),
        Command::Logs(args) => args.run(&context),
        Command::Events(args) => args.run(&context),
        Command::Top(args) => args.run(&context),
        Command::Plan(args) => args.run(&context),
        Command::Doctor => return doctor::run(&context.output),
        Command::Version => version::run(&context),
    }
    .map(|()| ExitCode::SUCCESS)
}

//! `commonhold`, the one binary: reads the command line, runs one command, says how it ended.
//!
//! Nothing is decided here: the work is done by the client library and the node, one module under [`commands`] per
//! command translates arguments into calls and reports into text. What a failure means to a person, and its exit
//! code, is in [`exit`] alone.

mod allocator;
mod args;
mod commands;
mod escape;
mod exit;
mod figures;
mod interrupt;
mod local_network;
mod logging;
mod output;
mod passphrase;
mod reporter;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match args::parse() {
        Ok(arguments) => arguments,
        Err(refused) => return refused.report(),
    };
    let output = output::Output::new(arguments.json, arguments.quiet);
    match commands::run(arguments.command, &output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&output),
    }
}

//! The `openelm` command: OpenELM from raw text to the device. Commands parse, call the libraries and render.

mod commands;
mod input;
mod interrupt;
mod launched;
mod model;
mod pulled;

use std::fmt::Display;
use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use interrupt::Stopped;

/// Small language models with layer-wise scaling: train them, run them, carry them elsewhere.
#[derive(Parser)]
#[command(name = "openelm", version, long_version = launched::VERSION.as_str(), infer_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(commands::generate::Arguments),
    Chat(commands::chat::Arguments),
    Perplexity(commands::perplexity::Arguments),
    Pretrain(commands::pretrain::Arguments),
    Tune(commands::tune::Arguments),
    TrainLog(commands::train_log::Arguments),
    Plan(commands::plan::Arguments),
    Logits(commands::logits::Arguments),
    Tokenizer(commands::tokenizer::Arguments),
    Average(commands::average::Arguments),
    #[cfg(feature = "hub")]
    Pull(commands::pull::Arguments),
    Bench(commands::bench::Arguments),
    Convert(commands::convert::Arguments),
    Bundle(commands::bundle::Arguments),
    Compare(commands::compare::Arguments),
    Eval(commands::eval::Arguments),
    Fuse(commands::fuse::Arguments),
    Inspect(commands::inspect::Arguments),
    Completions(commands::manual::Completions),
    Man(commands::manual::Man),
}

/// The whole command, with all that `--help` shows.
fn command() -> clap::Command {
    commands::examples::shown_by(Cli::command())
}

fn main() -> ExitCode {
    let Cli { command } = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|e| e.exit());
    let result = match command {
        Command::Generate(arguments) => commands::generate::run(arguments),
        Command::Chat(arguments) => commands::chat::run(arguments),
        Command::Perplexity(arguments) => commands::perplexity::run(arguments),
        Command::Pretrain(arguments) => alone().and_then(|()| commands::pretrain::run(arguments)),
        Command::Tune(arguments) => alone().and_then(|()| commands::tune::run(arguments)),
        Command::TrainLog(arguments) => commands::train_log::run(arguments),
        Command::Plan(arguments) => commands::plan::run(arguments),
        Command::Logits(arguments) => commands::logits::run(arguments),
        Command::Tokenizer(arguments) => commands::tokenizer::run(arguments),
        Command::Average(arguments) => commands::average::run(arguments),
        #[cfg(feature = "hub")]
        Command::Pull(arguments) => commands::pull::run(arguments),
        Command::Bench(arguments) => commands::bench::run(arguments),
        Command::Convert(arguments) => commands::convert::run(arguments),
        Command::Bundle(arguments) => commands::bundle::run(arguments),
        Command::Compare(arguments) => commands::compare::run(arguments),
        Command::Eval(arguments) => commands::eval::run(arguments),
        Command::Fuse(arguments) => commands::fuse::run(arguments),
        Command::Inspect(arguments) => commands::inspect::run(arguments),
        Command::Completions(arguments) => commands::manual::complete(&arguments, self::command()),
        Command::Man(arguments) => commands::manual::man(arguments, self::command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, such as `head`, is no failure.
        Err(e) if is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => match e.downcast_ref::<Stopped>() {
            Some(stopped) => ExitCode::from(stopped.exit_code()),
            None => {
                tell(format!("error: {}", sentence(&e)));
                ExitCode::FAILURE
            }
        },
    }
}

/// Refuses to be one of several processes that know nothing of each other.
fn alone() -> anyhow::Result<()> {
    match launched::strangers() {
        Some(count) => anyhow::bail!(
            "this is one of {count} processes that MPI started, but it was built without MPI, and each would train by itself; \
             build it with --features mpi (see docs/cluster.md), or start it without mpirun"
        ),
        None => Ok(()),
    }
}

/// Says something on standard error. Nobody may be there to hear it, which is no reason to give up the work.
fn tell(line: impl Display) {
    let _ = stderr().write_all(format!("{line}\n").as_bytes());
}

/// What went wrong and why, each thing once: many errors say their cause themselves.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !sentence.contains(&cause) {
            sentence += if sentence.is_empty() { "" } else { ": " };
            sentence += &cause;
        }
    }
    sentence
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let source = error.downcast_ref::<std::io::Error>();
    source.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Error};

    use super::*;

    #[test]
    fn each_cause_is_told_once() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let wrapped = std::io::Error::other(format!("book.txt: {}", missing()));
        assert_eq!(sentence(&Error::new(missing()).context("book.txt")), format!("book.txt: {}", missing()));
        let twice: Error = Err::<(), _>(missing()).context(wrapped.to_string()).unwrap_err();
        assert_eq!(sentence(&twice), format!("book.txt: {}", missing()));
    }
}

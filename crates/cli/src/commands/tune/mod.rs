//! `openelm tune`: a model goes on learning, from answers or from preferences.

mod beginning;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use openelm_train::TrainingFootprint;
use openelm_train::collective::Collective;
use openelm_train::run::{Event, Outcome, RunError};
use openelm_train::tune::{TuneError, TuneRecipe, tune_on};

use super::training::{Display, Outline, Summary, conclude, job, room_for};
use super::{MemoryOptions, ThreadOptions};
use crate::interrupt::Stop;
use crate::model::open;
use crate::tell;
use beginning::Beginning;

/// Tune a model on answers or on preferences; the same command again goes on where it stopped.
#[derive(Args)]
#[command(
    override_usage = "openelm tune [OPTIONS] <RECIPE>\n       openelm tune [OPTIONS] --model <MODEL> --data <FILES>"
)]
pub struct Arguments {
    /// The recipe, a TOML file
    #[arg(value_name = "RECIPE", required_unless_present = "data", conflicts_with = "data")]
    recipe: Option<PathBuf>,
    #[command(flatten)]
    beginning: Beginning,
    /// Change a value of the recipe, for example train.epochs=2
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print lines on a terminal too, instead of the dashboard
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    threads: ThreadOptions,
    #[command(flatten)]
    memory: MemoryOptions,
}

pub fn run(arguments: Arguments) -> Result<()> {
    // Whatever may fail does so within the job, whose other ranks wait for this one.
    let Some(Ended { recipe, outcome, stop }) = job::join(|ranks| train(arguments, ranks))? else { return Ok(()) };
    let state = if outcome.finished { "done" } else { "stopped; the same command goes on" };
    tell(format!("step {}: {state}", outcome.step));
    tell(format!("recipe: {}", recipe.output.join("recipe.toml").display()));
    conclude(&outcome, &recipe.output, &stop)
}

/// A run that ended, and by what it may have been stopped.
struct Ended {
    recipe: TuneRecipe,
    outcome: Outcome,
    stop: Stop,
}

/// Tunes as one of the `ranks`; the first has an outcome.
fn train(arguments: Arguments, ranks: Arc<dyn Collective>) -> Result<Option<Ended>> {
    let recipe = match &arguments.recipe {
        Some(path) => TuneRecipe::load(path, &arguments.set)?,
        None => arguments.beginning.recipe()?.changed(&arguments.set)?,
    };
    let stored = open(&recipe.model.path, recipe.model.tokenizer.as_deref())?;
    stored.notes.iter().for_each(tell);
    recipe.max_length(&stored.config)?;
    let footprint = TrainingFootprint::tuning(&stored.config, stored.size() as u64, &recipe, ranks.ranks());
    let memory = room_for(&footprint, &arguments.memory)?;
    let threads = arguments.threads.threads();
    // Rank 0 alone has something to show.
    let outline = Outline {
        output: recipe.output.clone(),
        every: recipe.log.every,
        sources: vec![recipe.data.sources.iter().map(|source| source.path.clone()).collect::<Vec<_>>().join(", ")],
        // Weights that stay as they are have no derivative.
        operations: if recipe.adapter.is_some() { 4.0 } else { 6.0 },
    };
    let mut display = Display::open(outline, &threads, arguments.plain || ranks.rank() > 0)?;
    let (stop, mut summary) = (display.stop(), Summary::new());
    let outcome = tune_on(ranks, &recipe, stored, threads, stop.flag(), &mut |event: Event| {
        summary.add(&event);
        display.show(&event);
        if let Event::Started { .. } = event {
            display.say(&memory);
        }
    });
    // The terminal is itself again before anything else is said.
    drop(display);
    summary.line().into_iter().for_each(tell);
    if let Err(RunError::Tune(stopped @ TuneError::Stopped)) = &outcome {
        tell(stopped);
        stop.check()?;
    }
    stop.leave_at_once();
    Ok(outcome?.map(|outcome| Ended { recipe, outcome, stop }))
}

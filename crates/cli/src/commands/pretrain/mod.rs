//! `openelm pretrain`: a training run with its progress on the terminal.

mod dashboard;
mod job;
mod lines;

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use clap::{Args, ValueEnum};
use openelm_model::kernels::{Threads, limits};
use openelm_model::{Bytes, available_memory};
use openelm_train::collective::Collective;
use openelm_train::data::Counts;
use openelm_train::pretrain::pretrain_on;
use openelm_train::run::{Event, Outcome};
use openelm_train::{Recipe, TrainingFootprint};

use super::{MemoryOptions, ThreadOptions, on_interrupt, refusal, stop_on_interrupt};
use dashboard::Dashboard;
use lines::Lines;

/// Train a model from scratch; the same command again goes on where it stopped.
#[derive(Args)]
pub struct Arguments {
    /// The recipe, a TOML file
    recipe: PathBuf,
    /// Change a value of the recipe, for example train.steps=100
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print lines on a terminal too, instead of the dashboard
    #[arg(long)]
    plain: bool,
    /// Prepare the data as another project does: documents cut and padded, files in its order, micro-batches summed
    #[arg(long, value_enum)]
    parity: Option<Parity>,
    #[command(flatten)]
    threads: ThreadOptions,
    #[command(flatten)]
    memory: MemoryOptions,
}

#[derive(Clone, Copy, ValueEnum)]
enum Parity {
    Corenet,
}

impl Parity {
    /// What it means in a recipe.
    fn sets(self) -> impl Iterator<Item = String> {
        let Self::Corenet = self;
        ["data.parity=corenet", "tokenizer.clean=true", "train.accumulate=sum"].into_iter().map(str::to_owned)
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    // Whatever may fail does so within the job, whose other ranks wait for this one.
    let Some((recipe, outcome)) = job::join(|ranks| train(arguments, ranks))? else { return Ok(()) };
    let (step, steps) = (outcome.step, recipe.train.steps);
    let state = if outcome.finished { "done" } else { "stopped; the same command goes on" };
    eprintln!("step {step} of {steps}: {state}");
    for (source, counts) in recipe.data.sources.iter().zip(&outcome.counts) {
        eprintln!("{}: {}", source.path, read(counts));
    }
    eprintln!("curve: {}", recipe.output.join("loss.svg").display());
    println!("{}", outcome.checkpoint.display());
    Ok(())
}

/// Trains as one of the `ranks`; the first has an outcome.
fn train(arguments: Arguments, ranks: Arc<dyn Collective>) -> Result<Option<(Recipe, Outcome)>> {
    let sets: Vec<String> = arguments.parity.into_iter().flat_map(Parity::sets).chain(arguments.set).collect();
    let recipe = Recipe::load(&arguments.recipe, &sets)?;
    let memory = check_memory(&recipe, ranks.ranks(), &arguments.memory)?;
    let threads = arguments.threads.threads();
    // Rank 0 alone has something to show.
    let mut display = Display::open(&recipe, &threads, arguments.plain || ranks.rank() > 0)?;
    let outcome = pretrain_on(ranks, &recipe, threads, &display.stop(), &mut |event| {
        display.show(&event);
        if let Event::Started { .. } = event {
            display.say(&memory);
        }
    });
    // The terminal is itself again before anything else is said.
    drop(display);
    Ok(outcome?.map(|outcome| (recipe, outcome)))
}

/// What was read of a source, in words.
fn read(counts: &Counts) -> String {
    let mut text = format!("{} documents, {} tokens, {} full epochs", counts.documents, counts.tokens, counts.epochs);
    let left_out = [
        (counts.dropped, "too short"),
        (counts.duplicates, "duplicates"),
        (counts.damaged, "times the rest of a damaged file"),
    ];
    for (count, what) in left_out.into_iter().filter(|&(count, _)| count > 0) {
        text.push_str(&format!("; left out: {count} {what}"));
    }
    text
}

/// Refuses a run that the machine cannot hold; otherwise says what it takes.
fn check_memory(recipe: &Recipe, ranks: usize, options: &MemoryOptions) -> Result<String> {
    let footprint = TrainingFootprint::of(recipe, ranks)?;
    let total = Bytes(footprint.total());
    let Some(available) = available_memory() else { return Ok(format!("memory: {total}")) };
    if !options.ignore_memory {
        footprint.check(available).map_err(|e| refusal(&e))?;
    }
    Ok(format!("memory: {total} of {} available (openelm plan --train has the items)", Bytes(available)))
}

/// How a run is shown.
enum Display {
    Dashboard(Box<Dashboard>, Arc<AtomicBool>),
    Lines(Lines, Arc<AtomicBool>),
}

impl Display {
    fn open(recipe: &Recipe, threads: &Threads, plain: bool) -> Result<Self> {
        if plain || !stderr().is_terminal() {
            let stop = stop_on_interrupt("finishing this step and saving")?;
            return Ok(Self::Lines(Lines::new(recipe), stop));
        }
        let peak = limits::f32_peak(threads);
        let stop = on_interrupt(|| (), dashboard::restore)?;
        Ok(Self::Dashboard(Box::new(Dashboard::open(recipe, peak, stop.clone())?), stop))
    }

    fn stop(&self) -> Arc<AtomicBool> {
        match self {
            Self::Dashboard(_, stop) | Self::Lines(_, stop) => stop.clone(),
        }
    }

    fn say(&mut self, line: &str) {
        match self {
            Self::Dashboard(dashboard, _) => dashboard.say(line),
            Self::Lines(..) => eprintln!("{line}"),
        }
    }

    fn show(&mut self, event: &Event) {
        match self {
            Self::Dashboard(dashboard, _) => dashboard.show(event),
            Self::Lines(lines, _) => lines.show(event),
        }
    }
}

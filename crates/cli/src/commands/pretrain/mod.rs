//! `openelm pretrain`: a training run with its progress on the terminal.

mod init;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use openelm_train::collective::Collective;
use openelm_train::data::Counts;
use openelm_train::pretrain::pretrain_on;
use openelm_train::run::{Event, Outcome};
use openelm_train::{Recipe, TrainingFootprint};

use super::training::{Display, Outline, Summary, conclude, job, room_for};
use super::{MemoryOptions, ThreadOptions};
use crate::interrupt::Stop;
use crate::tell;

/// Train a model from scratch; the same command again goes on where it stopped.
#[derive(Args)]
#[command(override_usage = "openelm pretrain [OPTIONS] <RECIPE>\n       openelm pretrain --init <FOLDER> <TEXTS>...")]
pub struct Arguments {
    /// The recipe, a TOML file; with --init the texts to learn from: files, patterns or folders
    #[arg(required = true, value_name = "RECIPE")]
    paths: Vec<PathBuf>,
    /// Write a first recipe into this folder, with numbers that suit the texts and this machine and a tokenizer learnt from them
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["set", "plain", "parity", "ignore_memory"])]
    init: Option<PathBuf>,
    /// With --init: key or column of the text in JSONL and Parquet files [default: text]
    #[arg(long, value_name = "KEY", requires = "init")]
    text_key: Option<String>,
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
    if let Some(folder) = &arguments.init {
        let threads = arguments.threads.threads();
        return init::run(folder, &arguments.paths, arguments.text_key.as_deref(), &threads);
    }
    ensure!(arguments.paths.len() == 1, "a run has one recipe; texts are named with --init FOLDER, or in a recipe");
    // Whatever may fail does so within the job, whose other ranks wait for this one.
    let Some(Ended { recipe, outcome, stop }) = job::join(|ranks| train(arguments, ranks))? else { return Ok(()) };
    let (step, steps) = (outcome.step, recipe.train.steps);
    let state = if outcome.finished { "done" } else { "stopped; the same command goes on" };
    tell(format!("step {step} of {steps}: {state}"));
    for (source, counts) in recipe.data.sources.iter().zip(&outcome.counts) {
        tell(format!("{}: {}", source.path, read(counts)));
    }
    conclude(&outcome, &recipe.output, &stop)
}

/// A run that ended, and by what it may have been stopped.
struct Ended {
    recipe: Recipe,
    outcome: Outcome,
    stop: Stop,
}

/// Trains as one of the `ranks`; the first has an outcome.
fn train(arguments: Arguments, ranks: Arc<dyn Collective>) -> Result<Option<Ended>> {
    let sets: Vec<String> = arguments.parity.into_iter().flat_map(Parity::sets).chain(arguments.set).collect();
    let recipe = Recipe::load(&arguments.paths[0], &sets)?;
    let memory = check_memory(&recipe, ranks.ranks(), &arguments.memory)?;
    let threads = arguments.threads.threads();
    // Rank 0 alone has something to show.
    let mut display = Display::open(Outline::of(&recipe), &threads, arguments.plain || ranks.rank() > 0)?;
    let (stop, mut summary) = (display.stop(), Summary::new());
    let outcome = pretrain_on(ranks, &recipe, threads, stop.flag(), &mut |event| {
        summary.add(&event);
        display.show(&event);
        if let Event::Started { .. } = event {
            display.say(&memory);
        }
    });
    // The terminal is itself again before anything else is said.
    drop(display);
    summary.line().into_iter().for_each(tell);
    stop.leave_at_once();
    Ok(outcome?.map(|outcome| Ended { recipe, outcome, stop }))
}

/// What was read of a source, in words.
fn read(counts: &Counts) -> String {
    let mut text = format!("{} documents, {} tokens, {} full epochs", counts.documents, counts.tokens, counts.epochs);
    let left_out = [
        (counts.dropped, "too short"),
        (counts.duplicates, "duplicates"),
        (counts.nulls, "without a text"),
        (counts.damaged_documents, "damaged lines or rows"),
        (counts.damaged, "times the rest of a damaged file"),
    ];
    for (count, what) in left_out.into_iter().filter(|&(count, _)| count > 0) {
        text.push_str(&format!("; left out: {count} {what}"));
    }
    text
}

/// Refuses a run that the machine cannot hold; otherwise says what it takes.
fn check_memory(recipe: &Recipe, ranks: usize, options: &MemoryOptions) -> Result<String> {
    room_for(&TrainingFootprint::of(recipe, ranks)?, options)
}

impl Outline {
    fn of(recipe: &Recipe) -> Self {
        Self {
            output: recipe.output.clone(),
            every: recipe.log.every,
            sources: recipe.data.sources.iter().map(|source| source.path.clone()).collect(),
            operations: 6.0,
        }
    }
}

//! `openelm train-log`: what runs were like, alone and beside each other.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;
use openelm_formats::atomic;
use openelm_train::train_log::{Curves, OPENELM_TOKENS_PER_STEP, at_tokens, draw, lowest, smoothing};
use serde_json::{Value, json};

use crate::tell;

/// Read the logs of training runs: this project's, and the training_logs.txt that Apple published.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the losses of one run
    Show {
        /// A run's folder, its log.jsonl, or what CoreNet printed
        run: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Put runs beside each other: losses at equal tokens, and a picture
    Compare {
        /// Runs' folders, their log.jsonl, or what CoreNet printed
        #[arg(required = true, num_args = 2..)]
        runs: Vec<PathBuf>,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Args)]
struct Options {
    /// Draw losses and learning rates over the tokens into a file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Tokens of an update, which CoreNet's logs do not say
    #[arg(long, value_name = "N", default_value_t = OPENELM_TOKENS_PER_STEP)]
    corenet_tokens_per_step: u64,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let (paths, options) = match arguments.command {
        Command::Show { run, options } => (vec![run], options),
        Command::Compare { runs, options } => (runs, options),
    };
    let read = |path: &PathBuf| Curves::read(path, options.corenet_tokens_per_step);
    let runs = paths.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let text = if options.json { format!("{:#}\n", to_json(&runs)) } else { table(&runs) };
    if let Some(path) = &options.svg {
        let svg = draw(&runs).map_err(|e| anyhow!("the picture cannot be drawn: {e}"))?;
        let written = atomic::write_file(path, |file| file.write_all(svg.as_bytes()));
        written.with_context(|| path.display().to_string())?;
        tell(format!("picture: {}", path.display()));
    }
    Ok(stdout().write_all(text.as_bytes())?)
}

/// What is told of a run, in nats per token.
struct Summary<'r> {
    run: &'r Curves,
    steps: u64,
    last: Option<f64>,
    lowest: Option<f64>,
    at_common: Option<f64>,
    validation: Vec<(&'r str, Option<f64>, Option<f64>)>,
}

impl<'r> Summary<'r> {
    fn new(run: &'r Curves, common_tokens: f64, smoothing: f64) -> Self {
        let smoothed = run.smoothed(smoothing);
        let validation = run.validation.iter();
        Self {
            run,
            steps: run.training.last().map_or(0, |point| point.step),
            last: smoothed.last().map(|point| point.value),
            lowest: lowest(&smoothed),
            at_common: at_tokens(&smoothed, common_tokens),
            validation: validation
                .map(|(name, points)| (name.as_str(), at_tokens(points, common_tokens), lowest(points)))
                .collect(),
        }
    }
}

fn summaries(runs: &[Curves]) -> impl Iterator<Item = Summary<'_>> {
    let common = Curves::common_tokens(runs);
    runs.iter().map(move |run| Summary::new(run, common, smoothing(runs)))
}

fn table(runs: &[Curves]) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
    let plain = |tokens: f64| HumanCount(tokens as u64).to_string();
    let common = format!("at {} tokens", plain(Curves::common_tokens(runs)));
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["run", "loss", "updates", "tokens", "last", "lowest", &common]);
    for Summary { run, steps, last, lowest, at_common, validation } in summaries(runs) {
        let tokens = plain(run.tokens());
        let smoothed = "training, smoothed".to_owned();
        table.add_row([
            run.name.clone(),
            smoothed,
            steps.to_string(),
            tokens,
            number(last),
            number(lowest),
            number(at_common),
        ]);
        for (corpus, at_common, lowest) in validation {
            let points = &run.validation[corpus];
            let last = points.last().map(|point| point.value);
            let empty = String::new;
            table.add_row([
                empty(),
                corpus.to_owned(),
                empty(),
                empty(),
                number(last),
                number(lowest),
                number(at_common),
            ]);
        }
    }
    table.column_iter_mut().skip(2).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    format!("{table}\n")
}

fn to_json(runs: &[Curves]) -> Value {
    let run = |summary: Summary| {
        let validation = summary.validation.iter().map(|(corpus, at_common, lowest)| {
            let last = summary.run.validation[*corpus].last().map(|point| point.value);
            ((*corpus).to_owned(), json!({ "last": last, "lowest": lowest, "at_common_tokens": at_common }))
        });
        json!({
            "run": summary.run.name,
            "updates": summary.steps,
            "tokens": summary.run.tokens(),
            "training": { "last": summary.last, "lowest": summary.lowest, "at_common_tokens": summary.at_common },
            "validation": validation.collect::<serde_json::Map<_, _>>(),
        })
    };
    let runs_json: Vec<Value> = summaries(runs).map(run).collect();
    json!({ "common_tokens": Curves::common_tokens(runs), "runs": runs_json })
}

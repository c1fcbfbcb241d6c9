//! `openelm pretrain`: a training run with its progress on the terminal.

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::{Args, ValueEnum};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use openelm_train::Recipe;
use openelm_train::data::Counts;
use openelm_train::pretrain::{Event, pretrain};

use super::{ThreadOptions, stop_on_interrupt};

/// Train a model from scratch; the same command again goes on where it stopped.
#[derive(Args)]
pub struct Arguments {
    /// The recipe, a TOML file
    recipe: PathBuf,
    /// Change a value of the recipe, for example train.steps=100
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Prepare the data as another project does: documents cut and padded, files in its order, micro-batches summed
    #[arg(long, value_enum)]
    parity: Option<Parity>,
    #[command(flatten)]
    threads: ThreadOptions,
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
    let sets: Vec<String> = arguments.parity.into_iter().flat_map(Parity::sets).chain(arguments.set).collect();
    let recipe = Recipe::load(&arguments.recipe, &sets)?;
    let stop = stop_on_interrupt("finishing this step and saving")?;
    let mut display = Display::new(&recipe);
    let outcome = pretrain(&recipe, arguments.threads.threads(), &stop, &mut |event| display.show(event));
    display.bar.finish_and_clear();
    let outcome = outcome?;
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

/// A progress bar on a terminal, plain lines elsewhere.
struct Display {
    bar: ProgressBar,
    every: u64,
    started: Instant,
    first_step: u64,
    validation: Option<f64>,
}

impl Display {
    fn new(recipe: &Recipe) -> Self {
        let bar = ProgressBar::new(recipe.train.steps);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        Self { bar, every: recipe.log.every, started: Instant::now(), first_step: 0, validation: None }
    }

    fn line(&self, text: &str) {
        if stderr().is_terminal() {
            self.bar.println(text);
        } else {
            eprintln!("{text}");
        }
    }

    fn show(&mut self, event: Event) {
        match event {
            Event::Started { config, step, from } => {
                let (millions, layers) = (config.parameters() as f64 / 1e6, config.layers.len());
                self.line(&format!("{millions:.2} M parameters in {layers} layers, {} pieces", config.vocab_size));
                if let Some(from) = from {
                    self.line(&format!("going on from {}", from.display()));
                }
                self.first_step = step;
                self.started = Instant::now();
                self.bar.reset_eta();
                self.bar.set_position(step);
            }
            Event::Step(entry) => {
                let mut message = format!(
                    "loss {:.3}  lr {:.2e}  norm {:.2}  {:.0} tokens/s  {} left",
                    entry.loss,
                    entry.lr,
                    entry.gradient_norm,
                    entry.tokens_per_second,
                    self.time_left(entry.step),
                );
                if let Some(loss) = self.validation {
                    message.push_str(&format!("  validation {loss:.3}"));
                }
                if stderr().is_terminal() {
                    self.bar.set_position(entry.step);
                    self.bar.set_message(message);
                } else if entry.step % self.every == 0 {
                    eprintln!("step {} of {}  {message}", entry.step, self.bar.length().unwrap_or_default());
                }
            }
            Event::Validated(entry) => {
                self.validation = Some(entry.validation_loss);
                let (step, loss) = (entry.step, entry.validation_loss);
                self.line(&format!("step {step}: validation loss {loss:.4}, perplexity {:.2}", loss.exp()));
            }
            Event::Saved(path) => self.line(&format!("saved {}", path.display())),
        }
    }

    /// From the mean rate since the start: steps are all alike.
    fn time_left(&self, step: u64) -> HumanDuration {
        let made = step.saturating_sub(self.first_step).max(1);
        let left = self.bar.length().unwrap_or(step).saturating_sub(step);
        HumanDuration(self.started.elapsed().div_f64(made as f64).mul_f64(left as f64))
    }
}

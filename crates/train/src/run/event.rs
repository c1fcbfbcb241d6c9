//! What happens in a run, for whoever watches it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use openelm_model::ModelConfig;

use super::log::{MetricsEntry, SampleEntry, StepEntry, ValidationEntry};
use crate::data::Counts;

/// What happens in a run, for whoever watches it.
#[derive(Debug)]
pub enum Event<'a> {
    /// What is learnt from is made ready before the run begins.
    Preparing {
        /// What is at work, in a few words.
        what: &'static str,
        /// How much is done, rows or pairs.
        done: u64,
        /// Of how much, where that is known.
        of: Option<u64>,
    },
    /// What is learnt from is ready: what there is to say of it.
    Prepared(String),
    /// The run is about to begin, or to go on, at `step`.
    Started {
        /// The model.
        config: &'a ModelConfig,
        /// Updates made before.
        step: u64,
        /// Updates of the whole run.
        steps: u64,
        /// The checkpoint that it goes on from.
        from: Option<PathBuf>,
    },
    /// The recipe is another one than the run had before.
    RecipeChanged {
        /// What is different, and what it does to the run.
        changes: Vec<String>,
        /// Where the recipe of before is kept.
        before: PathBuf,
    },
    /// Lines of the log, counted from 1, that were no entries; they are gone from it.
    LogMended {
        /// The log.
        path: PathBuf,
        /// The lines.
        lines: Vec<usize>,
    },
    /// An update was made.
    Step(StepEntry),
    /// What was read of each source up to the last update, in the recipe's order.
    Read(Vec<Counts>),
    /// There is more to tell of the last update than its loss; whenever it is logged.
    Measured(MetricsEntry),
    /// A validation corpus was measured.
    Validated(ValidationEntry),
    /// The model wrote a text.
    Sampled(SampleEntry),
    /// A checkpoint is on the disk.
    Saved(PathBuf),
}

impl Event<'_> {
    /// What there is to say about an event that is no update, line by line.
    pub fn described(&self) -> Vec<String> {
        match self {
            Self::Started { config, from, .. } => {
                let (millions, layers) = (config.parameters() as f64 / 1e6, config.layers.len());
                let model = format!("{millions:.2} M parameters in {layers} layers, {} pieces", config.vocab_size);
                let from = from.as_ref().map(|from| format!("going on from {}", from.display()));
                [Some(model), from].into_iter().flatten().collect()
            }
            Self::RecipeChanged { changes, before } => {
                let kept = format!("the recipe is not the one of before, which is kept as {}", before.display());
                [kept].into_iter().chain(changes.clone()).collect()
            }
            Self::LogMended { path, lines } => {
                let first = lines.first().copied().unwrap_or_default();
                vec![format!(
                    "{}: left out what was no entry: {} lines from line {first} on",
                    path.display(),
                    lines.len()
                )]
            }
            Self::Preparing { .. } | Self::Step(_) | Self::Read(_) => Vec::new(),
            Self::Prepared(what) => vec![what.clone()],
            Self::Measured(entry) => {
                vec![format!("step {}: {}", entry.step, named(&entry.metrics))]
            }
            Self::Validated(entry) => {
                let (step, corpus, loss) = (entry.step, &entry.corpus, entry.validation_loss);
                // Means of whole sequences are no perplexity.
                let rest = match entry.validation_metrics.is_empty() {
                    true => format!("perplexity {:.2}", loss.exp()),
                    false => named(&entry.validation_metrics),
                };
                vec![format!("step {step}: loss on {corpus} {loss:.4}, {rest}")]
            }
            Self::Sampled(entry) => vec![format!("step {}: {}{}", entry.step, entry.prompt, entry.text)],
            Self::Saved(path) => vec![format!("saved {}", path.display())],
        }
    }
}

fn named(metrics: &BTreeMap<String, f64>) -> String {
    metrics.iter().map(|(name, mean)| format!("{name} {mean:.4}")).collect::<Vec<_>>().join("  ")
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Updates made in all.
    pub step: u64,
    /// Whether all updates of the recipe were made; otherwise the same call goes on.
    pub finished: bool,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
    /// Times the corpus was read to its end.
    pub epochs: u64,
    /// Documents and tokens read of each source, in the recipe's order.
    pub counts: Vec<Counts>,
}

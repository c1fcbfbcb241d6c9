//! A run as lines, for files and pipes; the dashboard shows the rarer ones too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::HumanDuration;
use openelm_train::run::Event;

use crate::tell;

/// Time between two lines on how far work before the run is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints lines to standard error.
pub struct Lines {
    every: u64,
    clock: Clock,
    /// When it was last told how far work before the run is.
    said: Option<Instant>,
}

impl Lines {
    pub fn new(every: u64) -> Self {
        Self { every, clock: Clock::new(), said: None }
    }

    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Started { step, steps, .. } => self.clock.start(*step, *steps),
            Event::Preparing { what, done, of } if self.said.is_none_or(|said| said.elapsed() > PATIENCE) => {
                let of = of.map_or_else(String::new, |of| format!(" of {of}"));
                tell(format!("{what}: {done}{of}"));
                self.said = Some(Instant::now());
            }
            Event::Step(entry) if entry.step % self.every == 0 => tell(format!(
                "step {} of {}  loss {:.3}  lr {:.2e}  norm {:.2}  epoch {}  {:.0} tokens/s  {} left",
                entry.step,
                self.clock.steps,
                entry.loss,
                entry.lr,
                entry.gradient_norm,
                entry.epoch,
                entry.tokens_per_second,
                HumanDuration(self.clock.left(entry.step)),
            )),
            _ => {}
        }
        describe(event).iter().for_each(tell);
    }
}

/// What there is to say about an event that is no update.
pub fn describe(event: &Event) -> Vec<String> {
    match event {
        Event::Started { config, from, .. } => {
            let (millions, layers) = (config.parameters() as f64 / 1e6, config.layers.len());
            let model = format!("{millions:.2} M parameters in {layers} layers, {} pieces", config.vocab_size);
            let from = from.as_ref().map(|from| format!("going on from {}", from.display()));
            [Some(model), from].into_iter().flatten().collect()
        }
        Event::RecipeChanged { changes, before } => {
            let kept = format!("the recipe is not the one of before, which is kept as {}", before.display());
            [kept].into_iter().chain(changes.clone()).collect()
        }
        Event::LogMended { path, lines } => {
            let first = lines.first().copied().unwrap_or_default();
            vec![format!("{}: left out what was no entry: {} lines from line {first} on", path.display(), lines.len())]
        }
        Event::Preparing { .. } | Event::Step(_) | Event::Read(_) => Vec::new(),
        Event::Prepared(what) => vec![what.clone()],
        Event::Measured(entry) => {
            vec![format!("step {}: {}", entry.step, named(&entry.metrics))]
        }
        Event::Validated(entry) => {
            let (step, corpus, loss) = (entry.step, &entry.corpus, entry.validation_loss);
            // Means of whole sequences are no perplexity.
            let rest = match entry.validation_metrics.is_empty() {
                true => format!("perplexity {:.2}", loss.exp()),
                false => named(&entry.validation_metrics),
            };
            vec![format!("step {step}: loss on {corpus} {loss:.4}, {rest}")]
        }
        Event::Sampled(entry) => vec![format!("step {}: {}{}", entry.step, entry.prompt, entry.text)],
        Event::Saved(path) => vec![format!("saved {}", path.display())],
    }
}

fn named(metrics: &BTreeMap<String, f64>) -> String {
    metrics.iter().map(|(name, mean)| format!("{name} {mean:.4}")).collect::<Vec<_>>().join("  ")
}

/// How long the rest of a run will take, by the mean since its start: updates are all alike.
pub struct Clock {
    pub steps: u64,
    first: u64,
    started: Instant,
}

impl Clock {
    pub fn new() -> Self {
        Self { steps: 0, first: 0, started: Instant::now() }
    }

    /// Begins to measure at `step` of `steps`.
    pub fn start(&mut self, step: u64, steps: u64) {
        *self = Self { steps, first: step, started: Instant::now() };
    }

    pub fn left(&self, step: u64) -> Duration {
        let made = step.saturating_sub(self.first).max(1);
        self.started.elapsed().div_f64(made as f64).mul_f64(self.steps.saturating_sub(step) as f64)
    }
}

//! The logs of finished and running runs: read, put beside each other and drawn.
//!
//! ```text
//! log.jsonl of this project, CoreNet's training_logs.txt -> Curves -> picture; losses at equal tokens
//! ```

mod corenet;
mod picture;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::pretrain::{Entry, read_log, smoothed};
pub use picture::draw;

/// Tokens of an update of Apple's OpenELM runs: 16 sequences of 2048 tokens on each of 128 accelerators.
pub const OPENELM_TOKENS_PER_STEP: u64 = 16 * 128 * 2048;

/// A log that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TrainLogError {
    /// The system cannot read it.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no update in it.
    #[error(
        "{} has no update in it; expected log.jsonl of a run, its folder, or the training_logs.txt of CoreNet",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// A number at a moment of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Updates made.
    pub step: u64,
    /// Tokens learnt from.
    pub tokens: f64,
    /// The number.
    pub value: f64,
}

/// What a run was like.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// What the run is called: its folder or file.
    pub name: String,
    /// Training loss in nats per token.
    pub training: Vec<Point>,
    /// Learning rate.
    pub rate: Vec<Point>,
    /// Loss of each validation corpus in nats per token.
    pub validation: BTreeMap<String, Vec<Point>>,
}

impl Curves {
    /// Reads the log at `path`: a run's folder, its `log.jsonl`, or what CoreNet printed, which does not say how many tokens
    /// an update has: `corenet_tokens_per_step`.
    ///
    /// # Errors
    /// If it cannot be read or holds no update.
    pub fn read(path: &Path, corenet_tokens_per_step: u64) -> Result<Self, TrainLogError> {
        let file = if path.is_dir() { path.join("log.jsonl") } else { path.to_owned() };
        let failed = |source| TrainLogError::Io { path: file.clone(), source };
        let mut curves = Self {
            name: path.display().to_string(),
            training: Vec::new(),
            rate: Vec::new(),
            validation: BTreeMap::new(),
        };
        let entries = read_log(&file).map_err(failed)?;
        if entries.is_empty() {
            corenet::read(&file, corenet_tokens_per_step, &mut curves).map_err(failed)?;
        } else {
            curves.add(&entries);
        }
        if curves.training.is_empty() { Err(TrainLogError::Empty { path: file }) } else { Ok(curves) }
    }

    fn add(&mut self, entries: &[Entry]) {
        // Updates all have the same number of tokens, so that measurements between two entries have their place too.
        let last = entries.iter().rev().find_map(|entry| match entry {
            Entry::Step(entry) => Some(entry.tokens as f64 / entry.step.max(1) as f64),
            _ => None,
        });
        let per_step = last.unwrap_or(0.0);
        let point = |step: u64, value: f64| Point { step, tokens: step as f64 * per_step, value };
        for entry in entries {
            match entry {
                Entry::Step(entry) => {
                    self.training.push(point(entry.step, entry.loss));
                    self.rate.push(point(entry.step, entry.lr));
                }
                Entry::Validation(entry) => {
                    let corpus = self.validation.entry(entry.corpus.clone()).or_default();
                    corpus.push(point(entry.step, entry.validation_loss));
                }
                Entry::Sample(_) => {}
            }
        }
    }

    /// Tokens of the whole run.
    pub fn tokens(&self) -> f64 {
        self.training.last().map_or(0.0, |point| point.tokens)
    }

    /// The training loss, smoothed over about a fiftieth of the run.
    pub fn smoothed(&self) -> Vec<Point> {
        let losses: Vec<f64> = self.training.iter().map(|point| point.value).collect();
        let smooth = smoothed(&losses);
        self.training.iter().zip(smooth).map(|(point, value)| Point { value, ..*point }).collect()
    }

    /// The largest number of tokens that all of `runs` have reached.
    pub fn common_tokens(runs: &[Self]) -> f64 {
        runs.iter().map(Self::tokens).fold(f64::INFINITY, f64::min)
    }
}

/// The last of `points` at no more than `tokens`.
pub fn at_tokens(points: &[Point], tokens: f64) -> Option<f64> {
    // Half a token more: the product of step and tokens is rounded.
    points.iter().rev().find(|point| point.tokens <= tokens + 0.5).map(|point| point.value)
}

/// The smallest of `points`.
pub fn lowest(points: &[Point]) -> Option<f64> {
    points.iter().map(|point| point.value).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with a loss of `scale` over the square root of the step.
    fn log(folder: &Path, name: &str, steps: u64, scale: f64) -> PathBuf {
        let run = folder.join(name);
        std::fs::create_dir_all(&run).unwrap();
        let step = |step: u64| {
            let (tokens, loss) = (32 * step, scale / (step as f64).sqrt());
            format!(
                "{{\"step\":{step},\"tokens\":{tokens},\"epoch\":0,\"loss\":{loss},\"lr\":0.001,\"gradient_norm\":1.0,\
                 \"tokens_per_second\":9.0}}\n"
            )
        };
        let validation = format!("{{\"step\":{steps},\"validation_loss\":{scale},\"validation_tokens\":7}}\n");
        let text: String = (1..=steps).map(step).chain([validation]).collect();
        std::fs::write(run.join("log.jsonl"), text).unwrap();
        run
    }

    #[test]
    fn runs_are_compared_at_equal_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let runs = [("long", 100, 4.0), ("short", 25, 5.0)].map(|(name, steps, scale)| {
            Curves::read(&log(folder.path(), name, steps, scale), OPENELM_TOKENS_PER_STEP).unwrap()
        });
        assert_eq!(Curves::common_tokens(&runs), 800.0);
        assert_eq!(at_tokens(&runs[0].training, 800.0), Some(0.8));
        assert_eq!(at_tokens(&runs[1].training, 800.0), Some(1.0));
        assert_eq!(lowest(&runs[0].training), Some(0.4));
        assert_eq!(runs[0].validation["validation"][0].tokens, 3200.0);
        let svg = draw(&runs).unwrap();
        assert!(svg.contains("long") && svg.contains("short") && svg.contains("learning rate"), "{svg}");
    }

    #[test]
    fn a_file_that_is_no_log_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let says = |path: &Path, expected: &str| {
            let message = Curves::read(path, 1).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("log"), "{message}");
        };
        says(folder.path(), "log.jsonl");
        let path = folder.path().join("other.log");
        std::fs::write(&path, b"nothing \xff of that kind\nEpoch: one\n").unwrap();
        says(&path, "no update in it");
    }
}

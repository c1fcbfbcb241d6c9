//! The logs of finished and running runs: read, put beside each other and drawn.
//!
//! ```text
//! log.jsonl of this project, CoreNet's training_logs.txt -> Curves -> picture; losses at equal tokens
//! ```

mod corenet;
mod curves;
mod picture;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::run::{Entry, read_log};
pub use curves::{Curves, Point, at_tokens, lowest, smoothing};
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
        let (entries, _) = read_log(&file).map_err(failed)?;
        if entries.is_empty() {
            corenet::read(&file, corenet_tokens_per_step, &mut curves).map_err(failed)?;
        } else {
            curves.add(&entries);
        }
        if curves.training.is_empty() { Err(TrainLogError::Empty { path: file }) } else { Ok(curves) }
    }

    fn add(&mut self, entries: &[Entry]) {
        let updates = entries.iter().filter_map(|entry| match entry {
            Entry::Step(entry) => Some((entry.step, entry.tokens)),
            _ => None,
        });
        let updates: Vec<(u64, u64)> = updates.collect();
        for entry in entries {
            match entry {
                Entry::Step(entry) => {
                    let point = |value| Point { step: entry.step, tokens: entry.tokens as f64, value };
                    self.training.push(point(entry.loss));
                    self.rate.push(point(entry.lr));
                }
                Entry::Validation(entry) if entry.validation_loss.is_finite() => {
                    let (step, value) = (entry.step, entry.validation_loss);
                    let corpus = self.validation.entry(entry.corpus.clone()).or_default();
                    corpus.push(Point { step, tokens: tokens_at(&updates, step), value });
                }
                Entry::Validation(_) | Entry::Sample(_) | Entry::Metrics(_) => {}
            }
        }
    }
}

/// Tokens learnt from at `step`, by the entries (step, tokens) of the updates before and behind it; beyond the last one at its
/// mean rate.
fn tokens_at(updates: &[(u64, u64)], step: u64) -> f64 {
    let point = |&(step, tokens): &(u64, u64)| (step as f64, tokens as f64);
    let behind = updates.partition_point(|&(other, _)| other < step);
    let (start, end) = match (behind.checked_sub(1).map(|before| point(&updates[before])), updates.get(behind)) {
        (before, Some(after)) => (before.unwrap_or_default(), point(after)),
        (Some(last), None) => ((0.0, 0.0), last),
        (None, None) => return 0.0,
    };
    start.1 + (step as f64 - start.0) / (end.0 - start.0) * (end.1 - start.1)
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
    fn tokens_are_those_that_the_log_says_though_batches_change() {
        let folder = tempfile::tempdir().unwrap();
        let step = |step: u64, tokens: u64| {
            format!(
                "{{\"step\":{step},\"tokens\":{tokens},\"epoch\":0,\"loss\":2.0,\"lr\":0.1,\"gradient_norm\":1.0,\
                 \"tokens_per_second\":null}}\n"
            )
        };
        let validation =
            |step: u64, loss: &str| format!("{{\"step\":{step},\"validation_loss\":{loss},\"validation_tokens\":7}}\n");
        let log = [
            step(10, 100),
            validation(15, "3.0"),
            step(20, 400),
            validation(20, "2.0"),
            validation(20, "null"),
            validation(30, "1.0"),
        ];
        std::fs::write(folder.path().join("log.jsonl"), log.concat()).unwrap();
        let run = Curves::read(folder.path(), OPENELM_TOKENS_PER_STEP).unwrap();
        let tokens = |points: &[Point]| points.iter().map(|point| point.tokens).collect::<Vec<_>>();
        assert_eq!(tokens(&run.training), [100.0, 400.0]);
        assert_eq!(tokens(&run.validation["validation"]), [250.0, 400.0, 600.0]);
    }

    #[test]
    fn a_loss_is_smoothed_over_tokens_however_many_entries_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let run = Curves::read(&log(folder.path(), "run", 400, 4.0), OPENELM_TOKENS_PER_STEP).unwrap();
        let sparse = Curves { training: run.training.iter().skip(3).step_by(4).copied().collect(), ..run.clone() };
        let last = |run: &Curves| run.smoothed(640.0).last().unwrap().value;
        assert_eq!(run.smoothed(1.0), run.training, "less than an update");
        // What is remembered is 640 tokens, or 20 updates, old in the mean.
        let expected = 4.0 / 380f64.sqrt();
        for run in [&run, &sparse] {
            assert!((last(run) / expected - 1.0).abs() < 0.01, "{} instead of {expected}", last(run));
        }
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

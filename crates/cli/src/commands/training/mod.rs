//! What commands that train have in common: the job that they are a rank of, and how a run is shown.

mod dashboard;
pub mod job;
mod lines;
mod summary;
mod terminal;
mod view;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::Result;
use openelm_model::kernels::{Threads, limits};
use openelm_model::{ByteSize, available_memory};
use openelm_train::TrainingFootprint;
use openelm_train::run::{Event, Outcome};

use super::{MemoryOptions, refusal};
use crate::interrupt::Stop;
use crate::tell;
use dashboard::Dashboard;
use lines::Lines;
pub use summary::Summary;

/// What is known of a run before it begins.
pub struct Outline {
    /// Folder for checkpoints and logs.
    pub output: PathBuf,
    /// Updates between two lines.
    pub every: u64,
    /// What is read.
    pub sources: Vec<String>,
    /// Operations of a token, forward and backward, over the parameters it meets.
    pub operations: f64,
}

/// Refuses a run that the machine cannot hold; otherwise says what it takes.
pub fn room_for(footprint: &TrainingFootprint, options: &MemoryOptions) -> Result<String> {
    let total = ByteSize(footprint.total());
    let Some(available) = available_memory() else { return Ok(format!("memory: {total}")) };
    if !options.ignore_memory {
        footprint.check(available).map_err(|e| refusal(&e))?;
    }
    Ok(format!("memory: {total} of {} available (openelm plan --train has the items)", ByteSize(available)))
}

/// Says where the loss curve and the last checkpoint of the run in `output` are.
pub fn conclude(outcome: &Outcome, output: &Path, stop: &Stop) -> Result<()> {
    tell(format!("curve: {}", output.join("loss.svg").display()));
    writeln!(stdout(), "{}", outcome.checkpoint.display())?;
    // A script must not go on with a model that is half trained.
    if !outcome.finished {
        stop.check()?;
    }
    Ok(())
}

/// How a run is shown.
pub enum Display {
    Dashboard(Box<Dashboard>),
    Lines(Lines, Stop),
}

impl Display {
    pub fn open(outline: Outline, threads: &Threads, plain: bool) -> Result<Self> {
        if plain || !terminal::is_able() {
            return Ok(Self::Lines(Lines::new(outline.every), Stop::saying("finishing this step and saving")?));
        }
        let peak = limits::f32_peak(threads);
        Ok(Self::Dashboard(Box::new(Dashboard::open(&outline, peak)?)))
    }

    pub fn stop(&self) -> Stop {
        match self {
            Self::Dashboard(dashboard) => dashboard.stop(),
            Self::Lines(_, stop) => stop.clone(),
        }
    }

    pub fn say(&mut self, line: &str) {
        match self {
            Self::Dashboard(dashboard) => dashboard.say(line),
            Self::Lines(..) => tell(line),
        }
    }

    pub fn show(&mut self, event: &Event) {
        match self {
            Self::Dashboard(dashboard) => dashboard.show(event),
            Self::Lines(lines, _) => lines.show(event),
        }
    }
}

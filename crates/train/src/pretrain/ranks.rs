//! How the ranks of a run keep step. Rank 0 alone reads the corpus, writes files and decides what comes next; it tells the
//! others by one of a few commands. So the position in the corpus, the log and the checkpoints are the same for any number
//! of ranks.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openelm_model::ModelConfig;
use openelm_model::kernels::Threads;

use super::error::PretrainError;
use super::tokenizer::RunTokenizer;
use crate::checkpoint;
use crate::collective::{Collective, CollectiveError};
use crate::data::{Batch, Packing, Row};
use crate::recipe::Sharding;
use crate::trainer::StepReport;
use crate::{Distribution, NextToken, Recipe, TrainableModel, Trainer, TrainerOptions, Update, initialise};

/// Marks an id with which a document begins, where documents stay apart; no vocabulary is that large.
const START: u32 = 1 << 31;

/// What all ranks do next.
enum Command<'a> {
    /// Go back to the checkpoint of this name.
    Load(Cow<'a, str>),
    /// An update from these ids, some with [`START`]: all rows of all micro-batches.
    Step(Cow<'a, [u32]>),
    /// Bring the moments together.
    Moments,
    /// Leave the run.
    End,
}

impl Command<'_> {
    /// Tells the other ranks.
    fn send(&self, ranks: &dyn Collective) -> Result<(), CollectiveError> {
        let (kind, content): (u8, &[u8]) = match self {
            Self::Load(name) => (0, name.as_bytes()),
            Self::Step(ids) => (1, bytemuck::cast_slice(ids)),
            Self::Moments => (2, &[]),
            Self::End => (3, &[]),
        };
        ranks.broadcast(&mut [&[kind], content].concat())
    }

    /// What rank 0 sent.
    fn receive(ranks: &dyn Collective) -> Result<Command<'static>, CollectiveError> {
        let mut bytes = Vec::new();
        ranks.broadcast(&mut bytes)?;
        Ok(match bytes.split_first() {
            Some((0, name)) => Command::Load(String::from_utf8_lossy(name).into_owned().into()),
            Some((1, ids)) => Command::Step(bytemuck::pod_collect_to_vec(ids).into()),
            Some((2, _)) => Command::Moments,
            _ => Command::End,
        })
    }
}

/// A trainer that works together with the other ranks.
pub(super) struct Team<'r> {
    recipe: &'r Recipe,
    ranks: Arc<dyn Collective>,
    pub objective: NextToken,
    pub trainer: Trainer,
}

impl<'r> Team<'r> {
    /// A trainer of the model that `recipe` describes, with its first weights.
    pub fn new(
        recipe: &'r Recipe,
        config: ModelConfig,
        tokenizer: &RunTokenizer,
        threads: Threads,
        ranks: Arc<dyn Collective>,
    ) -> Result<Self, PretrainError> {
        let shares = shares(recipe, ranks.ranks())?;
        let parameters = initialise(&config, recipe.train.seed);
        let padding = recipe.data.parity.map(|_| tokenizer.pad_id());
        let model = TrainableModel::new(config, parameters)?;
        let sharded = recipe.train.sharding == Sharding::Optimizer;
        let options = TrainerOptions {
            optimizer: recipe.optimizer(),
            accumulation: recipe.accumulation(),
            keeping: recipe.keeping(),
            distribution: Distribution { ranks: ranks.clone(), shares, sharded },
            padding,
        };
        let objective = NextToken { ignore: padding, z_weight: recipe.optimizer.z_loss };
        Ok(Self { recipe, ranks, objective, trainer: Trainer::new(model, threads, options) })
    }

    /// Tells the other ranks to go on from the checkpoint at `path`, which this rank has loaded.
    pub fn load(&self, path: &Path) -> Result<(), CollectiveError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.send(&Command::Load(name))
    }

    /// One update of all ranks from the `rows` of each micro-batch, unless `accept` refuses; `stop` becomes true if any rank
    /// was asked to stop.
    pub fn step(
        &mut self,
        rows: &[&[Row]],
        stop: &AtomicBool,
        accept: impl FnOnce(&StepReport) -> bool,
    ) -> Result<Update, CollectiveError> {
        let mut ids = Vec::new();
        for row in rows.iter().copied().flatten() {
            let first = ids.len();
            ids.extend_from_slice(&row.ids);
            for &start in row.starts.iter().flatten() {
                ids[first + start as usize] |= START;
            }
        }
        self.send(&Command::Step(Cow::Borrowed(&ids)))?;
        self.update(&ids, stop, accept)
    }

    /// Announces that the moments will be asked for.
    pub fn before_moments(&self) -> Result<(), CollectiveError> {
        self.send(&Command::Moments)
    }

    /// Lets the other ranks go.
    pub fn end(&self) -> Result<(), CollectiveError> {
        self.send(&Command::End)
    }

    fn send(&self, command: &Command) -> Result<(), CollectiveError> {
        command.send(&*self.ranks)
    }

    /// Does what rank 0 says, until it says that the run is over.
    pub fn follow(mut self, tokenizer: &RunTokenizer, stop: &AtomicBool) -> Result<(), PretrainError> {
        loop {
            match Command::receive(&*self.ranks)? {
                Command::Load(name) => {
                    let path = self.recipe.checkpoints().join(&*name);
                    checkpoint::load(&path, &mut self.trainer, &tokenizer.sha256)?;
                }
                Command::Step(ids) => _ = self.update(&ids, stop, |_| true)?,
                Command::Moments => drop(self.trainer.moments()?),
                Command::End => return Ok(()),
            }
        }
    }

    /// An update from this rank's part of `ids`.
    fn update(
        &mut self,
        ids: &[u32],
        stop: &AtomicBool,
        accept: impl FnOnce(&StepReport) -> bool,
    ) -> Result<Update, CollectiveError> {
        let train = &self.recipe.train;
        let (row, rank, ranks) = (train.sequence_length + 1, self.ranks.rank(), self.ranks.ranks());
        let mine = ids.len() / ranks;
        let separate = self.recipe.data.packing == Packing::Separate;
        let unmarked = |ids: &[u32]| Row {
            ids: ids.iter().map(|id| id & !START).collect(),
            starts: separate
                .then(|| (0..).zip(ids).filter(|(_, id)| *id & START != 0).map(|(place, _)| place).collect()),
        };
        let rows: Vec<Row> = ids[rank * mine..][..mine].chunks(row).map(unmarked).collect();
        let batches: Vec<Batch> = rows.chunks(train.batch_size).map(Batch::from_rows).collect();
        let learning_rate = self.recipe.schedule().rounded(self.trainer.steps()) as f32;
        let update = self.trainer.step_if(&self.objective, &batches, learning_rate, accept)?;
        if self.ranks.any(stop.load(Ordering::Relaxed))? {
            stop.store(true, Ordering::Relaxed);
        }
        Ok(update)
    }
}

/// Parts in which the gradients of an update are summed, if `ranks` ranks can share the work evenly.
fn shares(recipe: &Recipe, ranks: usize) -> Result<usize, PretrainError> {
    let accumulation = recipe.train.accumulation;
    let shares = recipe.train.shares.unwrap_or(ranks);
    let even = accumulation.is_multiple_of(ranks) && accumulation.is_multiple_of(shares);
    let tree = shares.is_multiple_of(ranks) && (shares / ranks).is_power_of_two();
    if even && tree { Ok(shares) } else { Err(PretrainError::Ranks { ranks, shares, accumulation }) }
}

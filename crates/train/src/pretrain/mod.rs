//! Pretraining: every next token of a corpus, from random weights or a checkpoint.

mod corpora;
mod validation;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use openelm_model::ModelConfig;
use openelm_model::kernels::Threads;

use crate::collective::{Alone, Collective};
use crate::data::Batch;
use crate::initialisation::initialise;
use crate::objective::NextToken;
use crate::precision;
use crate::recipe::{Recipe, Sharding};
use crate::reduction::Distribution;
use crate::run::{Event, Outcome, RunError, RunTokenizer, Settings, Training, run};
use crate::trainable::TrainableModel;
use crate::trainer::{Trainer, TrainerOptions};
use corpora::{Corpora, pad_id};

/// Trains as `recipe` says, from the newest checkpoint in its output folder or from the start. When `stop` becomes true
/// the update under way is finished, the state saved, and the run left; the same call resumes it to the bit.
///
/// # Errors
/// See [`RunError`]. After an error in the middle, the checkpoints written before stand.
pub fn pretrain(
    recipe: &Recipe,
    threads: Threads,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Outcome, RunError> {
    let outcome = pretrain_on(Arc::new(Alone), recipe, threads, stop, watch)?;
    Ok(outcome.unwrap_or_else(|| unreachable!("the only rank leads")))
}

/// The same as one of several `ranks`: see [`run`].
///
/// # Errors
/// As [`pretrain`]; and if the ranks cannot share the recipe's micro-batches evenly, or one of them is gone.
pub fn pretrain_on(
    ranks: Arc<dyn Collective>,
    recipe: &Recipe,
    threads: Threads,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Option<Outcome>, RunError> {
    let recipe = &with_precision(recipe, &*ranks, &threads)?;
    run(&Pretraining::new(recipe)?, ranks, threads, stop, watch)
}

/// The recipe with the precision of products decided.
fn with_precision(recipe: &Recipe, ranks: &dyn Collective, threads: &Threads) -> Result<Recipe, RunError> {
    let mut recipe = recipe.clone();
    let before = || Some(Recipe::load(&recipe.output.join("recipe.toml"), &[]).ok()?.train.precision);
    let allowed = recipe.data.parity.is_none();
    recipe.train.precision = precision::decided(recipe.train.precision, before, allowed, ranks, threads)?;
    Ok(recipe)
}

/// A recipe, and what is known when its tokenizer is.
struct Pretraining<'r> {
    recipe: &'r Recipe,
    tokenizer: RunTokenizer,
    config: ModelConfig,
    objective: NextToken,
}

impl<'r> Pretraining<'r> {
    fn new(recipe: &'r Recipe) -> Result<Self, RunError> {
        let tokenizer = RunTokenizer::open(&recipe.tokenizer.path)?;
        let config = recipe.model_config(tokenizer.tokenizer.vocab_size())?;
        let ignore = recipe.data.parity.map(|_| pad_id(&tokenizer));
        Ok(Self { recipe, tokenizer, config, objective: NextToken { ignore, z_weight: recipe.optimizer.z_loss } })
    }
}

impl<'r> Training for Pretraining<'r> {
    type Batch = Batch;
    type Objective = NextToken;
    type Datasets = Corpora<'r>;

    fn settings(&self) -> Settings {
        let Recipe { output, train, log, checkpoint, spike, .. } = self.recipe;
        Settings {
            output: output.clone(),
            recipe: self.recipe.to_toml(),
            steps: train.steps,
            schedule: self.recipe.schedule(),
            accumulation: train.accumulation,
            shares: train.shares,
            sharded: train.sharding == Sharding::Optimizer,
            log: log.clone(),
            measures_start: false,
            checkpoint: checkpoint.clone(),
            spike: spike.clone(),
        }
    }

    fn changes_since(&self, before: &Path, step: u64) -> Vec<String> {
        match Recipe::load(before, &[]) {
            Ok(before) => self.recipe.changes_since(&before, step),
            Err(e) => vec![e.to_string()],
        }
    }

    fn tokenizer(&self) -> &RunTokenizer {
        &self.tokenizer
    }

    fn objective(&self) -> &NextToken {
        &self.objective
    }

    fn trainer(&self, threads: Threads, distribution: Distribution) -> Result<Trainer, RunError> {
        let parameters = initialise(&self.config, self.recipe.train.seed);
        let options = TrainerOptions {
            optimizer: self.recipe.optimizer(),
            accumulation: self.recipe.accumulation(),
            keeping: self.recipe.keeping(),
            products: self.recipe.products(),
            distribution,
            padding: self.objective.ignore,
            dropout_seed: None,
        };
        Ok(Trainer::new(TrainableModel::new(self.config.clone(), parameters)?, threads, options))
    }

    fn datasets(&self) -> Result<Corpora<'r>, RunError> {
        Corpora::open(self.recipe, &self.config, &self.tokenizer, self.objective)
    }
}

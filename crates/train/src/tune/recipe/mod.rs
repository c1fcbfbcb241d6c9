//! What a tuning run is: a TOML file with every number in it.

mod adapter;
mod beginning;
mod examples;

use std::path::{Path, PathBuf};

use openelm_model::ModelConfig;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::error::TuneError;
use super::preference::PreferenceLoss;
use crate::network::Keeping;
use crate::recipe::checks::{at_least_one, not_negative, positive, require};
use crate::recipe::{
    CheckpointRecipe, LogRecipe, OptimizerRecipe, Precision, ProductPrecision, RecipeError, RecomputeRecipe, Sharding,
    SpikeRecipe, changes, file,
};
use crate::schedule::Schedule;
pub(crate) use adapter::means;
pub use adapter::{AdapterKind, AdapterRecipe, TargetNumbers, TargetRecipe};
pub use beginning::Beginning;
pub use examples::{ExamplesRecipe, Learn, RowSource, TooLong};

/// A tuning run: supervised, or by preferences where there is a `preference`; of all weights, or of an adapter where there is an
/// `adapter`. Paths are relative to the current folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneRecipe {
    /// Folder for checkpoints and logs; the same folder again goes on where the run stopped.
    pub output: PathBuf,
    /// The model to begin with.
    pub model: BaseRecipe,
    /// What is learnt from.
    pub data: ExamplesRecipe,
    /// The adapter that is trained; without it all weights are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterRecipe>,
    /// What is learnt from pairs of answers; without it answers are learnt as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preference: Option<PreferenceRecipe>,
    /// Sizes and length of the run.
    #[serde(default)]
    pub train: TuneTrainRecipe,
    /// The optimiser.
    #[serde(default = "TuneRecipe::optimizer", deserialize_with = "over_defaults")]
    pub optimizer: OptimizerRecipe,
    /// The learning rate.
    pub schedule: TuneScheduleRecipe,
    /// What is written down on the way.
    #[serde(default)]
    pub log: LogRecipe,
    /// When the state is saved.
    #[serde(default)]
    pub checkpoint: CheckpointRecipe,
    /// When a loss that rises stops the run.
    #[serde(default)]
    pub spike: SpikeRecipe,
}

/// What a recipe says of the optimiser, over what holds for tuning: the defaults of the table alone are those of pretraining.
fn over_defaults<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OptimizerRecipe, D::Error> {
    let mut table = toml::Table::try_from(TuneRecipe::optimizer()).map_err(D::Error::custom)?;
    table.extend(toml::Table::deserialize(deserializer)?);
    table.try_into().map_err(|e: toml::de::Error| D::Error::custom(e.message()))
}

/// The model to begin with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseRecipe {
    /// A model of any format, folder or file, or the name it was pulled by.
    pub path: PathBuf,
    /// Its tokenizer, if it is not beside the model or in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Whether quantised weights are widened on the way, instead of products in integers with activations rounded to 8 bits.
    #[serde(default)]
    pub exact: bool,
}

/// What is learnt from pairs of answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PreferenceRecipe {
    /// The loss.
    pub loss: PreferenceLoss,
    /// How strongly the loss holds the model to the reference; in ORPO and SimPO the weight of the preference. 0.1, and 2 with
    /// SimPO, where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// SimPO's margin.
    pub gamma: f64,
    /// Folder for log-probabilities of the reference, which several runs may share; in the output folder where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
}

impl Default for PreferenceRecipe {
    fn default() -> Self {
        Self { loss: PreferenceLoss::Sigmoid, beta: None, gamma: 0.5, cache: None }
    }
}

impl PreferenceRecipe {
    /// Beta, said or not.
    pub fn beta(&self) -> f64 {
        self.beta.unwrap_or(if self.loss == PreferenceLoss::SimPo { 2.0 } else { 0.1 })
    }
}

/// Sizes and length of a tuning run; see [`crate::Recipe`] for keys of the same names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TuneTrainRecipe {
    /// Decides an adapter's first values, the order of the examples and what dropout drops.
    pub seed: u64,
    /// Rows, or pairs, per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per update.
    pub accumulation: usize,
    /// Parts in which an update's micro-batches are summed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<usize>,
    /// What is kept by one rank instead of by all.
    pub sharding: Sharding,
    /// Times that all examples are learnt from; 1 where neither this nor `steps` is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<f64>,
    /// Updates, in the place of `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// What the backward pass computes again.
    pub recompute: RecomputeRecipe,
    /// Precision in which activations are kept.
    pub activations: Precision,
    /// In which numbers the products with weights in `f32` are taken.
    pub precision: ProductPrecision,
}

impl Default for TuneTrainRecipe {
    fn default() -> Self {
        Self {
            seed: 0,
            batch_size: 4,
            accumulation: 4,
            shares: None,
            sharding: Sharding::default(),
            epochs: None,
            steps: None,
            recompute: RecomputeRecipe::default(),
            activations: Precision::default(),
            precision: ProductPrecision::default(),
        }
    }
}

/// A cosine with warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TuneScheduleRecipe {
    /// Rate at the end of the warm-up.
    pub max_lr: f64,
    /// Rate at the end; a tenth of `max_lr` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f64>,
    /// Share of the updates that the warm-up is.
    #[serde(default = "warmup_ratio")]
    pub warmup_ratio: f64,
    /// Updates of the warm-up, in the place of its share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// Rate of the first update.
    #[serde(default)]
    pub warmup_init_lr: f64,
}

fn warmup_ratio() -> f64 {
    0.03
}

impl Default for TuneScheduleRecipe {
    fn default() -> Self {
        Self { max_lr: 2e-4, min_lr: None, warmup_ratio: warmup_ratio(), warmup_steps: None, warmup_init_lr: 0.0 }
    }
}

impl TuneRecipe {
    /// Reads the recipe at `path` and applies `sets`, each `dotted.key=value`.
    ///
    /// # Errors
    /// If it is not TOML, a key is unknown or missing, or a value is out of range.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        let recipe: Self = file::read(path, sets)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Most tokens of an example, with a model of the geometry `config`.
    ///
    /// # Errors
    /// If the model's context has not so many.
    pub fn max_length(&self, config: &ModelConfig) -> Result<usize, TuneError> {
        let context = config.context_length;
        let length = self.data.max_length.unwrap_or(context);
        if length > context {
            let expected = format!("the model's context has {context} tokens");
            return Err(TuneError::Value { key: "data.max_length", value: length.to_string(), expected });
        }
        Ok(length)
    }

    /// Whether the recipe at `path` is one of tuning: it names a model instead of describing one.
    pub fn is_at(path: &Path) -> bool {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let table = toml::from_str::<toml::Table>(&text);
        table.is_ok_and(|table| table.get("model").is_some_and(|model| model.get("path").is_some()))
    }

    /// This recipe with `sets` applied, each `dotted.key=value`.
    ///
    /// # Errors
    /// If a key is unknown, or a value is out of range.
    pub fn changed(self, sets: &[String]) -> Result<Self, RecipeError> {
        let recipe = file::changed(self, sets)?;
        recipe.check()?;
        Ok(recipe)
    }

    /// The recipe as TOML, every default written out.
    pub fn to_toml(&self) -> String {
        file::to_toml(self)
    }

    /// What of this recipe is not as it was `before`, key by key.
    pub(super) fn changes_since(&self, before: &Self) -> Vec<String> {
        changes::differences(before, self)
    }

    /// AdamW as most tune with it: nothing decays, there is no z-loss, and the second moment has PyTorch's decay.
    pub fn optimizer() -> OptimizerRecipe {
        OptimizerRecipe { weight_decay: 0.0, z_loss: 0.0, beta2: 0.999, ..OptimizerRecipe::default() }
    }

    /// The learning rate of each of `steps` updates.
    pub(super) fn schedule(&self, steps: u64) -> Schedule {
        let TuneScheduleRecipe { max_lr, min_lr, warmup_ratio, warmup_steps, warmup_init_lr } = self.schedule;
        let warmup_steps = warmup_steps.unwrap_or((warmup_ratio * steps as f64).ceil() as u64).min(steps);
        Schedule { warmup_init_lr, max_lr, min_lr: min_lr.unwrap_or(0.1 * max_lr), warmup_steps, steps }
    }

    /// What is kept how in memory.
    pub fn keeping(&self) -> Keeping {
        Keeping {
            recompute: self.train.recompute == RecomputeRecipe::Block,
            bf16_activations: self.train.activations == Precision::BF16,
            bf16_moments: self.optimizer.moments == Precision::BF16,
        }
    }

    /// Refuses numbers that make no sense, alone or beside each other.
    ///
    /// # Errors
    /// See [`RecipeError::Value`].
    pub fn check(&self) -> Result<(), RecipeError> {
        let Self { data, train, schedule, log, checkpoint, spike, optimizer, .. } = self;
        data.check()?;
        at_least_one("train.batch_size", train.batch_size as u64)?;
        at_least_one("train.accumulation", train.accumulation as u64)?;
        at_least_one("train.shares", train.shares.unwrap_or(1) as u64)?;
        at_least_one("train.steps", train.steps.unwrap_or(1))?;
        positive("train.epochs", train.epochs.unwrap_or(1.0))?;
        let one = train.epochs.is_none() || train.steps.is_none();
        require(one, "train.steps", train.steps.unwrap_or(0), "say train.epochs or train.steps, not both")?;
        if let Some(adapter) = &self.adapter {
            adapter.check()?;
        }
        if let Some(preference) = &self.preference {
            positive("preference.beta", preference.beta())?;
            not_negative("preference.gamma", preference.gamma)?;
        }
        positive("schedule.max_lr", schedule.max_lr)?;
        let min = schedule.min_lr.unwrap_or(0.0);
        require((0.0..=schedule.max_lr).contains(&min), "schedule.min_lr", min, "it must lie between 0 and max_lr")?;
        not_negative("schedule.warmup_init_lr", schedule.warmup_init_lr)?;
        let ratio = schedule.warmup_ratio;
        require((0.0..=1.0).contains(&ratio), "schedule.warmup_ratio", ratio, "it must lie between 0 and 1")?;
        let warmup = schedule.warmup_steps.unwrap_or(0);
        let fits = train.steps.is_none_or(|steps| warmup <= steps);
        require(fits, "schedule.warmup_steps", warmup, "it must not exceed train.steps")?;
        log.check()?;
        checkpoint.check()?;
        spike.check()?;
        optimizer.check()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn recipes() -> Vec<std::path::PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/tune");
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn the_recipes_here_can_be_followed_and_survive_a_round_trip() {
        let recipes = recipes();
        assert!(recipes.len() >= 12);
        for path in recipes {
            let recipe = TuneRecipe::load(&path, &[]).unwrap();
            assert_eq!(recipe.clone().changed(&[]).unwrap(), recipe);
            let again: TuneRecipe = toml::from_str(&recipe.to_toml()).unwrap();
            assert_eq!(again, recipe, "{}", path.display());
        }
    }

    #[test]
    fn published_adapters_have_the_published_numbers_of_parameters() {
        // Read from CoreNet's configurations; DoRA adds a magnitude for each output.
        for (name, lora, dora) in [
            ("270m", 9_453_568, 158_336),
            ("450m", 13_508_608, 234_624),
            ("1.1b", 24_281_088, 437_632),
            ("3b", 45_887_488, 844_800),
        ] {
            let mut config = ModelConfig::by_name(&format!("openelm-{name}")).unwrap();
            config.vocab_size = 32_128;
            let of = |kind: &str| {
                let file = format!("../../recipes/tune/commonsense-{kind}-{name}.toml");
                let recipe = TuneRecipe::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join(file), &[]).unwrap();
                recipe.adapter.unwrap().parameters(&config)
            };
            assert_eq!(of("lora"), lora, "{name}");
            assert_eq!(of("dora") - of("lora"), dora, "{name}");
        }
    }

    #[test]
    fn one_value_of_the_optimiser_leaves_the_others_as_tuning_has_them() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/tune/instruct-270m.toml");
        let recipe = TuneRecipe::load(&path, &["optimizer.clip=0.5".to_owned()]).unwrap();
        assert_eq!(recipe.optimizer, OptimizerRecipe { clip: 0.5, ..TuneRecipe::optimizer() });
        let unknown = TuneRecipe::load(&path, &["optimizer.clap=0.5".to_owned()]).unwrap_err().to_string();
        assert!(unknown.contains("unknown field `clap`"), "{unknown}");
    }
}

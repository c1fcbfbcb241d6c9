//! What a training run is: a TOML file with every number in it.

use std::path::{Path, PathBuf};

use openelm::{Geometry, ModelConfig};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::data::CorpusConfig;
use crate::memory::Keeping;
use crate::schedule::Schedule;
use crate::trainer::{Accumulation, OptimizerOptions};

/// A recipe that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The system cannot read the file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{}: {reason}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// A `key=value` that cannot be applied.
    #[error("--set {set}: {reason}")]
    Set {
        /// What was given.
        set: String,
        /// What is wrong.
        reason: String,
    },
    /// A number out of range.
    #[error("{key} is {value}; {expected}")]
    Value {
        /// Dotted key.
        key: &'static str,
        /// The value found.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
}

/// A pretraining run. Paths are relative to the current folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Folder for checkpoints and logs; the same folder again goes on where the run stopped.
    pub output: PathBuf,
    /// The model's geometry; the size of the vocabulary is the tokenizer's.
    pub model: Geometry,
    /// How text becomes ids.
    pub tokenizer: TokenizerRecipe,
    /// What is learnt from.
    pub data: CorpusConfig,
    /// What progress is measured on: one table, or several with a name each.
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub validation: Vec<ValidationRecipe>,
    /// Sizes and length of the run.
    pub train: TrainRecipe,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: OptimizerRecipe,
    /// The learning rate.
    pub schedule: ScheduleRecipe,
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

/// A corpus that progress is measured on: its name, and the keys of a [`CorpusConfig`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValidationRecipe {
    /// What the log calls it; `validation` where nothing is said.
    pub name: String,
    /// The corpus.
    #[serde(flatten)]
    pub corpus: CorpusConfig,
}

impl<'de> Deserialize<'de> for ValidationRecipe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Serde cannot refuse unknown fields of a flattened struct, so the name is taken out by hand.
        let mut table = toml::Table::deserialize(deserializer)?;
        let name = table.remove("name").map_or_else(|| Ok("validation".to_owned()), toml::Value::try_into);
        let wrong = |e: toml::de::Error| D::Error::custom(e.message());
        Ok(Self { name: name.map_err(wrong)?, corpus: table.try_into().map_err(wrong)? })
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ValidationRecipe>, D::Error> {
    let value = match toml::Value::deserialize(deserializer)? {
        toml::Value::Array(tables) => tables,
        table => vec![table],
    };
    let recipes = value.into_iter().map(toml::Value::try_into);
    recipes.collect::<Result<_, toml::de::Error>>().map_err(|e| D::Error::custom(e.message()))
}

/// When a loss that rises stops the run: `updates` times in a row more than `deviations` standard deviations above the
/// smoothed loss. Losses and gradients that are no numbers always do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpikeRecipe {
    /// Standard deviations above the smoothed loss; 0 lets it rise.
    pub deviations: f64,
    /// Updates in a row.
    pub updates: u64,
}

impl Default for SpikeRecipe {
    fn default() -> Self {
        Self { deviations: 0.0, updates: 3 }
    }
}

/// How text becomes ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecipe {
    /// A `.model` or `tokenizer.json` file, or a folder with one.
    pub path: PathBuf,
    /// Whether documents are repaired by ftfy's rules first.
    #[serde(default)]
    pub clean: bool,
}

/// Sizes and length of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainRecipe {
    /// Decides the first weights and the order of the data.
    #[serde(default)]
    pub seed: u64,
    /// Tokens per sequence.
    pub sequence_length: usize,
    /// Sequences per micro-batch.
    pub batch_size: usize,
    /// Micro-batches per update.
    #[serde(default = "one")]
    pub accumulation: usize,
    /// How micro-batches are put together: `mean` over all tokens, or `sum` of their means as in CoreNet.
    #[serde(default)]
    pub accumulate: AccumulateRecipe,
    /// Parts in which an update's micro-batches are summed; as many as there are ranks where nothing is said. With the same
    /// number the run is the same to the bit on any number of ranks. A rank with several parts keeps more gradients: one
    /// copy for each time that its number of parts can be halved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<usize>,
    /// What is kept by one rank instead of by all: nothing, or the `optimizer`'s moments (ZeRO-1).
    #[serde(default)]
    pub sharding: Sharding,
    /// Updates.
    pub steps: u64,
    /// What the backward pass computes again instead of keeping it: `none`, or each `block`.
    #[serde(default)]
    pub recompute: RecomputeRecipe,
}

/// What the backward pass computes again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecomputeRecipe {
    /// Nothing: the activations of all layers are kept.
    #[default]
    None,
    /// Each block, from its input: less memory, a third more arithmetic, the same results to the bit.
    Block,
}

fn one() -> usize {
    1
}

/// How micro-batches are put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccumulateRecipe {
    /// The mean over all tokens of the update.
    #[default]
    Mean,
    /// The sum of the micro-batches' means, as in CoreNet.
    Sum,
}

/// What ranks share out among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharding {
    /// Nothing: each rank holds everything.
    #[default]
    None,
    /// The moments: each rank updates a part of the weights (ZeRO-1).
    Optimizer,
}

/// AdamW and what surrounds it; CoreNet's values where nothing is said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerRecipe {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f32,
    /// Largest global norm of the gradients; 0 is no limit.
    pub clip: f32,
    /// Weight of the z-loss.
    pub z_loss: f32,
    /// Precision in which the moments are kept between steps.
    pub moments: MomentsRecipe,
}

/// Precision of the moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MomentsRecipe {
    /// Single precision.
    #[default]
    F32,
    /// Half the memory, three decimal digits.
    BF16,
}

impl Default for OptimizerRecipe {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            clip: 1.0,
            z_loss: 1e-4,
            moments: MomentsRecipe::F32,
        }
    }
}

/// A cosine with warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRecipe {
    /// Rate at the end of the warm-up.
    pub max_lr: f64,
    /// Rate at the end; a tenth of `max_lr` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f64>,
    /// Updates of the warm-up.
    pub warmup_steps: u64,
    /// Rate of the first update.
    #[serde(default = "warmup_init_lr")]
    pub warmup_init_lr: f64,
}

fn warmup_init_lr() -> f64 {
    1e-6
}

/// What is written down on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogRecipe {
    /// Updates between two entries.
    pub every: u64,
    /// Updates between two measurements on the validation corpus.
    pub validate_every: u64,
    /// Most micro-batches of a measurement.
    pub validation_batches: usize,
    /// Whether TensorBoard events are written too.
    pub tensorboard: bool,
    /// Updates between two samples of what the model writes; 0 is none.
    pub sample_every: u64,
    /// What the samples begin with.
    pub prompts: Vec<String>,
    /// Tokens of a sample.
    pub sample_tokens: usize,
}

impl Default for LogRecipe {
    fn default() -> Self {
        Self {
            every: 10,
            validate_every: 500,
            validation_batches: 50,
            tensorboard: true,
            sample_every: 0,
            prompts: vec!["Once upon a time".to_owned()],
            sample_tokens: 60,
        }
    }
}

/// When the state is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointRecipe {
    /// Updates between two checkpoints.
    pub every: u64,
    /// Newest checkpoints that are kept; 0 keeps all.
    pub keep: usize,
    /// Checkpoints of every so many updates are kept as well; 0 is none.
    pub keep_every: u64,
    /// Whether they are written while training goes on, from a copy of weights and moments; otherwise training waits.
    pub background: bool,
}

impl Default for CheckpointRecipe {
    fn default() -> Self {
        Self { every: 1000, keep: 3, keep_every: 0, background: true }
    }
}

impl Recipe {
    /// Reads the recipe at `path` and applies `sets`, each `dotted.key=value`.
    ///
    /// # Errors
    /// If it is not TOML, a key is unknown or missing, or a value is out of range.
    pub fn load(path: &Path, sets: &[String]) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| RecipeError::Io { path: path.to_owned(), source })?;
        let wrong = |e: toml::de::Error| RecipeError::Toml { path: path.to_owned(), reason: e.to_string() };
        // The text first, so that a message has its line; then with the changes.
        let mut recipe: Recipe = toml::from_str(&text).map_err(wrong)?;
        if !sets.is_empty() {
            let mut table: toml::Table = toml::from_str(&text).map_err(wrong)?;
            for set in sets {
                apply(&mut table, set).map_err(|reason| RecipeError::Set { set: set.clone(), reason })?;
                let changed = toml::Value::Table(table.clone()).try_into();
                recipe = changed.map_err(|e| RecipeError::Set { set: set.clone(), reason: e.message().to_owned() })?;
            }
        }
        recipe.validate()?;
        Ok(recipe)
    }

    /// The recipe as TOML, every default written out.
    pub fn to_toml(&self) -> String {
        // Serialisation of these plain structs cannot fail; an empty text would be noticed by its reader.
        toml::to_string_pretty(self).unwrap_or_default()
    }

    fn validate(&self) -> Result<(), RecipeError> {
        fn check(ok: bool, key: &'static str, value: impl ToString, expected: &'static str) -> Result<(), RecipeError> {
            if ok { Ok(()) } else { Err(RecipeError::Value { key, value: value.to_string(), expected }) }
        }
        let Self { train, optimizer, schedule, log, checkpoint, spike, .. } = self;
        let positive = "it must be at least 1";
        check(train.sequence_length > 0, "train.sequence_length", train.sequence_length, positive)?;
        check(train.batch_size > 0, "train.batch_size", train.batch_size, positive)?;
        check(train.accumulation > 0, "train.accumulation", train.accumulation, positive)?;
        check(train.shares != Some(0), "train.shares", 0, positive)?;
        check(train.steps > 0, "train.steps", train.steps, positive)?;
        check(log.every > 0, "log.every", log.every, positive)?;
        check(log.validate_every > 0, "log.validate_every", log.validate_every, positive)?;
        check(checkpoint.every > 0, "checkpoint.every", checkpoint.every, positive)?;
        check(spike.updates > 0, "spike.updates", spike.updates, positive)?;
        check(spike.deviations >= 0.0, "spike.deviations", spike.deviations, "it must be 0 or more")?;
        for (i, ValidationRecipe { name, .. }) in self.validation.iter().enumerate() {
            let unique = !name.is_empty() && self.validation[..i].iter().all(|other| other.name != *name);
            check(unique, "validation.name", format!("{name:?}"), "each corpus needs a name of its own")?;
        }
        let rate = "it must be a positive number";
        check(schedule.max_lr > 0.0 && schedule.max_lr.is_finite(), "schedule.max_lr", schedule.max_lr, rate)?;
        let min = schedule.min_lr.unwrap_or(0.0);
        check(min >= 0.0 && min <= schedule.max_lr, "schedule.min_lr", min, "it must lie between 0 and max_lr")?;
        let warmup = schedule.warmup_steps;
        check(warmup <= train.steps, "schedule.warmup_steps", warmup, "it must not exceed train.steps")?;
        let below_one = "it must be at least 0 and below 1";
        check((0.0..1.0).contains(&optimizer.beta1), "optimizer.beta1", optimizer.beta1, below_one)?;
        check((0.0..1.0).contains(&optimizer.beta2), "optimizer.beta2", optimizer.beta2, below_one)?;
        check(optimizer.eps > 0.0, "optimizer.eps", optimizer.eps, rate)?;
        let not_negative = "it must be 0 or more";
        check(optimizer.weight_decay >= 0.0, "optimizer.weight_decay", optimizer.weight_decay, not_negative)?;
        check(optimizer.clip >= 0.0, "optimizer.clip", optimizer.clip, not_negative)?;
        check(optimizer.z_loss >= 0.0, "optimizer.z_loss", optimizer.z_loss, not_negative)
    }

    /// The learning rate of each update.
    pub fn schedule(&self) -> Schedule {
        let ScheduleRecipe { max_lr, min_lr, warmup_steps, warmup_init_lr } = self.schedule;
        let min_lr = min_lr.unwrap_or(0.1 * max_lr);
        Schedule { warmup_init_lr, max_lr, min_lr, warmup_steps, steps: self.train.steps }
    }

    /// The optimiser's settings.
    pub(crate) fn optimizer(&self) -> OptimizerOptions {
        let OptimizerRecipe { beta1, beta2, eps, weight_decay, clip, .. } = self.optimizer;
        OptimizerOptions { beta1, beta2, eps, weight_decay, clip }
    }

    /// What is kept how in memory.
    pub fn keeping(&self) -> Keeping {
        Keeping {
            recompute: self.train.recompute == RecomputeRecipe::Block,
            bf16_moments: self.optimizer.moments == MomentsRecipe::BF16,
        }
    }

    /// How micro-batches are put together.
    pub(crate) fn accumulation(&self) -> Accumulation {
        match self.train.accumulate {
            AccumulateRecipe::Mean => Accumulation::Mean,
            AccumulateRecipe::Sum => Accumulation::SumOfMeans,
        }
    }

    /// The model for a tokenizer of `vocab_size` pieces. With CoreNet's pipeline its embedding has a row for the id of the
    /// padding, which is `vocab_size`, and as many more as make a multiple of 128.
    ///
    /// # Errors
    /// If the geometry makes no model.
    pub fn model_config(&self, vocab_size: usize) -> Result<ModelConfig, openelm::ConfigError> {
        let padded = self.data.parity.map(|_| (vocab_size + 1).next_multiple_of(128));
        self.model.build(padded.unwrap_or(vocab_size))
    }
}

/// Puts the value of `dotted.key=value` into `table`: as TOML where it is, as a text otherwise.
fn apply(table: &mut toml::Table, set: &str) -> Result<(), String> {
    let (key, value) = set.split_once('=').ok_or("expected key=value, for example train.steps=100")?;
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
    let value = parsed.ok().and_then(|mut t| t.remove("value")).unwrap_or_else(|| toml::Value::String(value.into()));
    let mut path: Vec<&str> = key.trim().split('.').collect();
    let last = path.pop().filter(|last| !last.is_empty()).ok_or("the key is empty")?;
    let mut target = table;
    for part in path {
        let entry = target.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        target = entry.as_table_mut().ok_or_else(|| format!("{part} is not a table"))?;
    }
    target.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
output = "runs/x"
[model]
layers = 2
dim = 64
head_dim = 16
gqa_groups = 2
[tokenizer]
path = "tokenizer.model"
[data]
sources = [{ path = "books/*.md" }]
[train]
sequence_length = 32
batch_size = 4
steps = 100
[schedule]
max_lr = 1e-3
warmup_steps = 10
"#;

    fn load(text: &str, sets: &[&str]) -> Result<Recipe, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        std::fs::write(&path, text).unwrap();
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Recipe::load(&path, &sets).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_corenets_and_survive_a_round_trip() {
        let recipe = load(TEXT, &[]).unwrap();
        assert_eq!(recipe.optimizer.weight_decay, 0.1);
        assert_eq!(recipe.schedule().min_lr, 1e-4);
        assert_eq!(load(&recipe.to_toml(), &[]).unwrap(), recipe);
    }

    #[test]
    fn validation_is_one_corpus_or_several_with_names() {
        let one = format!("{TEXT}[validation]\nsources = [{{ path = \"a.md\" }}]\n");
        let recipe = load(&one, &[]).unwrap();
        assert_eq!(recipe.validation[0].name, "validation");
        assert_eq!(load(&recipe.to_toml(), &[]).unwrap(), recipe);
        let named = |name: &str| format!("[[validation]]\nname = \"{name}\"\nsources = [{{ path = \"{name}.md\" }}]\n");
        let two = [TEXT, &named("web"), &named("books")].concat();
        let names: Vec<String> = load(&two, &[]).unwrap().validation.into_iter().map(|v| v.name).collect();
        assert_eq!(names, ["web", "books"]);
        let twice = load(&[TEXT, &named("web"), &named("web")].concat(), &[]).unwrap_err();
        assert!(twice.contains("each corpus needs a name of its own"), "{twice}");
        let unknown = load(&one.replace("sources", "sauces"), &[]).unwrap_err();
        assert!(unknown.contains("unknown field `sauces`"), "{unknown}");
    }

    #[test]
    fn single_values_can_be_changed() {
        let sets = ["train.steps=7", "schedule.warmup_steps=2", "output=elsewhere", "optimizer.clip=0.5"];
        let recipe = load(TEXT, &sets).unwrap();
        assert_eq!((recipe.train.steps, recipe.optimizer.clip), (7, 0.5));
        assert_eq!(recipe.output, Path::new("elsewhere"));
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_named() {
        let says = |text: &str, sets: &[&str], expected: &str| {
            let message = load(text, sets).unwrap_err();
            assert!(message.contains(expected), "{message}");
        };
        says(&TEXT.replace("steps = 100", "steps = 100\nstep = 5"), &[], "unknown field `step`");
        says(&TEXT.replace("steps = 100", "steps = 100\nstep = 5"), &[], "recipe.toml");
        says(TEXT, &["train.stepz=5"], "--set train.stepz=5: unknown field `stepz`");
        says(TEXT, &["train.steps"], "expected key=value");
        says(TEXT, &["train.steps=many"], "invalid type");
        says(TEXT, &["train.batch_size=0"], "train.batch_size is 0");
        says(TEXT, &["schedule.min_lr=1.0"], "schedule.min_lr is 1");
        says(&TEXT.replace("[schedule]", "[schedule"), &[], "line");
    }
}

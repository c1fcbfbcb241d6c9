//! What a training run takes in memory, reckoned from the recipe before its first step.

use openelm_formats::StoredTokenizer;
use openelm_kernels::Threads;
use openelm_kernels::attention::{self, Shape};
use openelm_model::{ByteSize, LayerConfig, ModelConfig, NormPlacement, tensor_specs};

use crate::Recipe;
use crate::network::{Keeping, LOSS_ROWS};
use crate::recipe::{ProductPrecision, Sharding};
use crate::run::RunError;
use crate::tune::{AdapterKind, TuneRecipe};

/// What a training run takes in memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingFootprint {
    /// Master weights, f32, and weights that stay as they are.
    pub weights: u64,
    /// Gradients, f32, and sums of shares that wait for their neighbours.
    pub gradients: u64,
    /// First and second moments.
    pub moments: u64,
    /// What each layer's forward pass keeps for its backward pass.
    pub layers: Vec<u64>,
    /// The residual stream between the layers.
    pub streams: u64,
    /// The chunk of logits.
    pub logits: u64,
    /// Derivatives on the way through a block and what its operations need.
    pub scratch: u64,
    /// What a checkpoint is written from: a copy of weights and moments if it is written in the background, otherwise of
    /// moments that are not in f32 or not all here; and a tensor that is encoded.
    pub snapshot: u64,
    /// The copy of the weights that writes samples.
    pub samples: u64,
    /// Rows of the shuffle buffer, and those in a snapshot.
    pub data: u64,
}

/// A run that the memory available does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this run takes {} of memory, but only {} are available; take a smaller train.batch_size (with more \
     train.accumulation) or train.sequence_length, train.recompute = \"block\", \
     checkpoint.background = false, or a smaller model",
    ByteSize(*.needed), ByteSize(*.available)
)]
pub struct TrainingMemoryError {
    /// Bytes needed.
    pub needed: u64,
    /// Bytes available.
    pub available: u64,
}

impl TrainingFootprint {
    /// The footprint of `recipe` on the first of `ranks` ranks, whose tokenizer is opened for the size of its vocabulary.
    ///
    /// # Errors
    /// If the tokenizer cannot be read or the geometry makes no model.
    pub fn of(recipe: &Recipe, ranks: usize) -> Result<Self, RunError> {
        let tokenizer = StoredTokenizer::File(recipe.tokenizer.path.clone()).open().map_err(RunError::TokenizerFile)?;
        let config = recipe.model_config(tokenizer.vocab_size())?;
        Ok(Self::new(&config, recipe, ranks))
    }

    /// The footprint of `recipe` with a model of the geometry `config` on the first of `ranks` ranks, which keeps more than
    /// the others: the data, and what checkpoints are written from.
    pub fn new(config: &ModelConfig, recipe: &Recipe, ranks: usize) -> Self {
        let train = &recipe.train;
        let buffered = wide(recipe.data.buffered_rows()).saturating_mul(4 * wide(train.sequence_length + 1));
        let run = Run {
            config,
            keeping: recipe.keeping(),
            rows: wide(train.batch_size).saturating_mul(wide(train.sequence_length)),
            time: train.sequence_length,
            trained: wide(config.parameters()),
            frozen: 0,
            rank: 0,
            dora: false,
            rounded: train.precision != ProductPrecision::F32,
            ranks,
            sharded: train.sharding == Sharding::Optimizer,
            shares: train.shares.unwrap_or(ranks),
            background: recipe.checkpoint.background,
            samples: recipe.log.sample_every > 0,
            data: buffered.saturating_mul(2),
        };
        run.footprint()
    }

    /// The footprint of the tuning run `recipe` of a model of the geometry `config`, whose weights are `bytes` as they are stored.
    pub fn tuning(config: &ModelConfig, bytes: u64, recipe: &TuneRecipe, ranks: usize) -> Self {
        let train = &recipe.train;
        let time = recipe.data.max_length.unwrap_or(config.context_length);
        let sequences = if recipe.preference.is_some() { 2 * train.batch_size } else { train.batch_size };
        let adapter = recipe.adapter.as_ref();
        let adapted = adapter.map(|adapter| adapter.parameters(config));
        let run = Run {
            config,
            keeping: recipe.keeping(),
            rows: wide(sequences).saturating_mul(wide(time)),
            time,
            trained: wide(adapted.unwrap_or(config.parameters())),
            // What is stored stays in the page cache where all of it is copied.
            frozen: if adapted.is_some() { bytes } else { 0 },
            rank: adapter.map_or(0, |adapter| adapter.largest_rank()),
            dora: adapter.is_some_and(|adapter| adapter.kind == AdapterKind::Dora),
            rounded: train.precision != ProductPrecision::F32,
            ranks,
            sharded: train.sharding == Sharding::Optimizer,
            shares: train.shares.unwrap_or(ranks),
            background: recipe.checkpoint.background,
            samples: recipe.log.sample_every > 0,
            data: 0,
        };
        run.footprint()
    }

    /// Each item with its name, in the order in which they are worth reading.
    pub fn items(&self) -> Vec<(String, u64)> {
        let mut items = vec![
            ("weights".to_owned(), self.weights),
            ("gradients".to_owned(), self.gradients),
            ("moments".to_owned(), self.moments),
            ("residual stream".to_owned(), self.streams),
        ];
        items.extend(self.layers.iter().enumerate().map(|(i, &bytes)| (format!("activations of layer {i}"), bytes)));
        items.extend([
            ("chunk of logits".to_owned(), self.logits),
            ("scratch".to_owned(), self.scratch),
            ("snapshot for checkpoints".to_owned(), self.snapshot),
            ("model for samples".to_owned(), self.samples),
            ("shuffle buffer".to_owned(), self.data),
        ]);
        items.retain(|(_, bytes)| *bytes > 0);
        items
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.items().iter().fold(0, |total, (_, bytes)| total.saturating_add(*bytes))
    }

    /// Compares with the bytes that are available, for example [`openelm_model::available_memory`].
    ///
    /// # Errors
    /// If more is needed; the message has the numbers.
    pub fn check(&self, available: u64) -> Result<(), TrainingMemoryError> {
        let needed = self.total();
        if needed > available { Err(TrainingMemoryError { needed, available }) } else { Ok(()) }
    }
}

/// What the memory of a run depends on.
struct Run<'c> {
    config: &'c ModelConfig,
    keeping: Keeping,
    /// Tokens of a micro-batch.
    rows: u64,
    /// Tokens of a sequence.
    time: usize,
    /// Parameters in training.
    trained: u64,
    /// Bytes of weights that stay as they are.
    frozen: u64,
    /// The largest rank of an adapter; 0 without one.
    rank: usize,
    /// Whether it is DoRA's.
    dora: bool,
    /// Whether factors are rounded to bf16.
    rounded: bool,
    ranks: usize,
    sharded: bool,
    /// Parts in which gradients are summed.
    shares: usize,
    background: bool,
    samples: bool,
    data: u64,
}

impl Run<'_> {
    fn footprint(&self) -> TrainingFootprint {
        let Self { config, keeping, rows, ranks, .. } = *self;
        let floats = |per_row: usize| rows.saturating_mul(4 * wide(per_row));
        let widest = |size: &dyn Fn(&LayerConfig) -> usize| config.layers.iter().map(size).max().unwrap_or(0);
        let layers: Vec<u64> = config.layers.iter().map(|layer| floats(self.kept_per_row(layer))).collect();
        let mut streams = floats((config.layers.len() + 1) * config.model_dim);
        // Where they are rounded, one layer's activations and two of the streams are whole at a time.
        let whole = layers.iter().max().copied().unwrap_or(0);
        let mut whole_again = 0;
        if keeping.bf16_activations {
            whole_again = if keeping.recompute { 0 } else { whole };
            streams = floats(config.layers.len() * config.model_dim) / 2 + 2 * floats(config.model_dim);
        }
        let layers = match (keeping.recompute, keeping.bf16_activations) {
            (true, _) => vec![whole],
            (false, true) => layers.iter().map(|bytes| bytes / 2).collect(),
            (false, false) => layers,
        };
        let loss_rows = rows.min(wide(LOSS_ROWS));
        let weights = 4 * self.trained;
        let moments = if keeping.bf16_moments { weights } else { 2 * weights };
        let sharded = ranks > 1 && self.sharded;
        // Moments are copied as they are written, in f32: those of all ranks together, each rank's widened first.
        let widened = if keeping.bf16_moments { 2 * weights } else { 0 };
        let copied = match sharded {
            true => 2 * weights + widened.div_ceil(wide(ranks)),
            false => widened,
        };
        // An adapter is written from a copy of its own.
        let adapter = if self.rank > 0 { weights } else { 0 };
        let snapshot = adapter + if self.background { 3 * weights } else { copied };
        // A tensor is copied once more while it is encoded.
        let largest = tensor_specs(config).iter().map(|spec| 4 * wide(spec.len())).max().unwrap_or(0);
        let largest = largest.min(weights);
        let sample = if self.rank > 0 { 2 * weights } else { weights };
        TrainingFootprint {
            weights: weights + self.frozen,
            gradients: weights * (1 + wide(levels(self.shares, ranks))),
            moments: if sharded { moments.div_ceil(wide(ranks)) } else { moments },
            layers,
            streams,
            logits: loss_rows * 4 * wide(config.vocab_size),
            scratch: (floats(self.scratch_per_row(&widest)) + loss_rows * 4 * wide(config.model_dim))
                .saturating_add(whole_again)
                .saturating_add(self.rounded_factors(&widest))
                .saturating_add(workspace(config, self.time)),
            snapshot: 2 * largest + snapshot,
            samples: if self.samples { sample } else { 0 },
            data: self.data,
        }
    }

    /// Elements of [`openelm_model::block::Activations`] per row.
    fn kept_per_row(&self, layer: &LayerConfig) -> usize {
        let config = self.config;
        let (query_dim, kv_dim) = (layer.query_heads * config.head_dim, layer.kv_heads * config.head_dim);
        let given = if self.dora { config.model_dim } else { normed_per_row(config) };
        config.qkv_dim(layer)
            + 2 * query_dim
            + kv_dim
            + layer.query_heads
            + config.model_dim
            + config.ffn_hidden_dim(layer)
            + 2 * given
    }

    /// Elements per row of derivatives and what is computed on the way.
    fn scratch_per_row(&self, widest: &Widest<'_>) -> usize {
        let config = self.config;
        // Derivatives mirror a layer's activations; beside them the normed stream twice, and the derivative by the stream.
        let query = |layer: &LayerConfig| layer.query_heads * config.head_dim;
        let key = |layer: &LayerConfig| layer.kv_heads * config.head_dim;
        let scratch = 2 * widest(&|layer| layer.ffn_dim)
            + widest(&|layer| config.ffn_hidden_dim(layer))
            + 2 * widest(&query)
            + 2 * widest(&key)
            + widest(&|layer| config.qkv_dim(layer))
            + 3 * config.model_dim
            + normed_per_row(config);
        if self.rank == 0 {
            return scratch;
        }
        // The input, what is left of it and the output, forward; the same and two derivatives, backward; and what is inside.
        let input = widest(&|layer| layer.ffn_dim.max(query(layer))).max(config.model_dim);
        let output = widest(&|layer| config.ffn_hidden_dim(layer).max(config.qkv_dim(layer))).max(config.model_dim);
        scratch + 3 * input + 2 * output + config.model_dim + 3 * self.rank
    }

    /// Forward and backward each have the factors of the largest product once more. While the output projection is kept rounded for all
    /// chunks of logits, in that memory, the input of a chunk has its own.
    fn rounded_factors(&self, widest: &Widest<'_>) -> u64 {
        if !self.rounded {
            return 0;
        }
        let config = self.config;
        let matrix = tensor_specs(config).iter().map(|spec| wide(spec.len())).max().unwrap_or(0);
        let row = widest(&|layer| config.ffn_hidden_dim(layer).max(config.qkv_dim(layer))).max(config.model_dim);
        let activations = self.rows.saturating_mul(wide(row));
        let chunk = self.rows.min(wide(LOSS_ROWS)) * wide(config.model_dim);
        2 * (2 * (activations + matrix.max(activations)) + chunk)
    }
}

/// Levels of the tree in which one of `ranks` ranks sums its part of `shares`.
fn levels(shares: usize, ranks: usize) -> usize {
    (shares / ranks.max(1)).max(1).ilog2() as usize
}

/// Bytes that the operations keep, on as many threads as the machine runs.
fn workspace(config: &ModelConfig, time: usize) -> u64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let shape = |layer: &LayerConfig| Shape { sequences: 1, time, heads: config.heads(layer) };
    let attention = config.layers.iter().map(|layer| attention::backward_scratch(shape(layer)));
    wide(Threads::workspace(threads)) + wide(threads) * wide(attention.max().unwrap_or(0))
}

/// The largest of what a function gives for each layer.
type Widest<'a> = dyn Fn(&dyn Fn(&LayerConfig) -> usize) -> usize + 'a;

/// Elements per row that are normalised behind a layer.
fn normed_per_row(config: &ModelConfig) -> usize {
    match config.norms.placement {
        NormPlacement::Before => 0,
        NormPlacement::Behind => config.model_dim,
    }
}

fn wide(number: usize) -> u64 {
    number as u64
}

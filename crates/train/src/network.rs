//! The whole model for training: forward, loss and backward over a batch.

use openelm_kernels::cross_entropy::{self, LossSums};
use openelm_kernels::rope::RopeTable;
use openelm_kernels::{Threads, embedding, linear, rms_norm};
use openelm_model::block::{self, Activations, BlockBuffers, KeysAndValues, Pass, Sequences, fit};
use openelm_model::{Buffers, LinearScratch, ModelConfig, NORM_EPS, Weights, forward};

use crate::backward::{Derivatives, backward};
use crate::data::Batch;
use crate::memory::Keeping;
use crate::parameters::{Gradients, Parameters};
use crate::rounded::Rounded;

/// Rows whose logits are in memory at a time.
pub(crate) const LOSS_ROWS: usize = 256;

/// What the loss is made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossOptions {
    /// Targets with this id do not count, and as an input it has no embedding to learn (CoreNet's `padding_index`).
    pub ignore: Option<u32>,
    /// Weight of the squared logarithm of the softmax denominator (z-loss).
    pub z_weight: f32,
}

/// Which buffers a block uses: the streams of its input and its output, and its activations.
struct Place {
    from: usize,
    to: usize,
    kept: usize,
}

/// Buffers of the blocks; they are kept from step to step.
struct Blocks {
    /// The residual stream before each block and behind the last, `[N, dim]` each; where it is kept rounded, the first two
    /// serve all.
    streams: Vec<Vec<f32>>,
    /// Of each layer; where blocks are computed again or kept rounded, the first one serves all.
    kept: Vec<Activations>,
    /// Of each layer; empty where nothing is rounded.
    rounded: Vec<Rounded>,
    recompute: bool,
    scratch: LinearScratch,
}

impl Blocks {
    /// The buffers of the block `layer`, in a pass that a backward pass follows if `keep`.
    fn place(&self, layer: usize, keep: bool) -> Place {
        let (from, to) = match keep && self.rounded.is_empty() {
            true => (layer, layer + 1),
            false => (layer % 2, (layer + 1) % 2),
        };
        let kept = if keep && self.rounded.is_empty() && !self.recompute { layer } else { 0 };
        Place { from, to, kept }
    }

    /// The buffers at `place` of a pass over `sequences`.
    fn buffers<'a>(&'a mut self, place: &Place, sequences: Sequences<'a>) -> BlockBuffers<'a> {
        let Self { streams, kept, scratch, .. } = self;
        let [x, out] = streams
            .get_disjoint_mut([place.from, place.to])
            .unwrap_or_else(|_| unreachable!("a block reads one stream and writes another"));
        let keys_and_values = KeysAndValues::InPass(sequences);
        BlockBuffers { x, out, kept: &mut kept[place.kept], scratch, keys_and_values }
    }
}

/// The blocks' buffers in a forward pass over a batch.
struct BatchBuffers<'a> {
    blocks: &'a mut Blocks,
    threads: &'a Threads,
    sequences: Sequences<'a>,
    keep: bool,
}

impl Buffers for BatchBuffers<'_> {
    fn embeddings(&mut self) -> &mut Vec<f32> {
        &mut self.blocks.streams[0]
    }

    fn layer(&mut self, index: usize) -> BlockBuffers<'_> {
        let place = self.blocks.place(index, self.keep);
        self.blocks.buffers(&place, self.sequences)
    }

    fn computed(&mut self, index: usize) {
        let place = self.blocks.place(index, self.keep);
        let Blocks { streams, kept, rounded, recompute, .. } = &mut *self.blocks;
        if let (true, Some(rounded)) = (self.keep, rounded.get_mut(index)) {
            rounded.keep_input(self.threads, &streams[place.from]);
            if !*recompute {
                rounded.keep(self.threads, &mut kept[place.kept]);
            }
        }
    }
}

/// Buffers for passes over batches; they are kept from step to step.
pub struct Network {
    config: ModelConfig,
    threads: Threads,
    rope: RopeTable,
    positions: Vec<u32>,
    blocks: Blocks,
    derivatives: Derivatives,
    /// Output of the last norm, `[N, dim]`.
    normed: Vec<f32>,
    /// Derivative by the residual stream.
    stream: Vec<f32>,
    logits: Vec<f32>,
}

impl Network {
    /// Empty buffers; the first batch sizes them.
    pub fn new(config: ModelConfig, threads: Threads) -> Self {
        let layers = config.layers.len();
        Self {
            rope: RopeTable::new(config.head_dim, config.rope_theta),
            positions: Vec::new(),
            blocks: Blocks {
                streams: vec![Vec::new(); layers + 1],
                kept: (0..layers).map(|_| Activations::default()).collect(),
                rounded: Vec::new(),
                recompute: false,
                scratch: LinearScratch::default(),
            },
            derivatives: Derivatives::default(),
            normed: Vec::new(),
            stream: Vec::new(),
            logits: Vec::new(),
            config,
            threads,
        }
    }

    /// The same network, which keeps between its forward and its backward pass what `keeping` says.
    #[must_use]
    pub fn keeping(self, keeping: Keeping) -> Self {
        let rounded = if keeping.bf16_activations { self.config.layers.len() } else { 0 };
        let rounded = (0..rounded).map(|_| Rounded::default()).collect();
        Self { blocks: Blocks { rounded, recompute: keeping.recompute, ..self.blocks }, ..self }
    }

    /// Sums of the losses of `batch`, without a backward pass.
    pub fn loss(&mut self, parameters: &Parameters, batch: &Batch, options: LossOptions) -> LossSums {
        let config = self.config.clone();
        let weights = parameters.weights(&config);
        // One set of activations serves all layers where nothing is kept.
        self.forward(&weights, batch, false);
        let mut sums = LossSums::default();
        for_each_chunk(batch, |rows, targets| {
            let normed = &self.normed[rows.start * config.model_dim..rows.end * config.model_dim];
            fit(&mut self.logits, targets.len() * config.vocab_size);
            linear::forward(&self.threads, &mut self.logits, normed, weights.head, config.model_dim, false);
            sums += cross_entropy::forward(&self.threads, &self.logits, targets, options.ignore);
        });
        sums
    }

    /// Adds the derivatives of `scale` times the summed loss of `batch` to `gradients`; gives the (unscaled) sums. As soon
    /// as a segment of the gradients is complete, `ready` gets it and its place among all of them: what follows the
    /// layers, the layers from last to first, the embedding table.
    pub fn gradients<'g>(
        &mut self,
        parameters: &Parameters,
        gradients: &'g mut Parameters,
        batch: &Batch,
        options: LossOptions,
        scale: f32,
        ready: &mut dyn FnMut(usize, &'g mut [f32]),
    ) -> LossSums {
        let config = self.config.clone();
        let weights = parameters.weights(&config);
        let mut gradients = gradients.gradients();
        self.forward(&weights, batch, true);
        let sums = self.head(&weights, &mut gradients, batch, options, scale);
        let Self { threads, rope, positions, blocks, derivatives, stream, .. } = self;
        let pass = Pass { threads, config: &config, rope, positions, changes: &[] };
        let sequences = sequences(batch);
        ready(gradients.tail.start, gradients.tail.values);
        for ((i, layer), mut segment) in config.layers.iter().enumerate().zip(gradients.layers).rev() {
            let place = blocks.place(i, true);
            let Blocks { streams, kept, rounded, recompute, .. } = &mut *blocks;
            if let Some(rounded) = rounded.get(i) {
                rounded.input(threads, &mut streams[place.from]);
            }
            // The last block's activations are still there.
            if *recompute && i + 1 < config.layers.len() {
                // What the block after this one began with is not needed any more.
                block::forward(&pass, i, &weights.layers[i], blocks.buffers(&place, sequences));
            } else if let (false, Some(rounded)) = (*recompute, rounded.get(i)) {
                rounded.activations(threads, &mut kept[place.kept]);
            }
            backward(
                &pass,
                layer,
                &weights.layers[i],
                &mut segment.layer(config.qk_norm),
                &blocks.streams[place.from],
                &blocks.kept[place.kept],
                sequences,
                stream,
                derivatives,
            );
            ready(segment.start, segment.values);
        }
        let (dim, table) = (config.model_dim, gradients.embedding);
        embedding::backward(threads, table.values, &batch.inputs, stream, dim, options.ignore);
        ready(table.start, table.values);
        sums
    }

    /// Runs all blocks and the last norm, whose output is left in `normed`.
    fn forward(&mut self, weights: &Weights<'_>, batch: &Batch, keep: bool) {
        let Self { config, threads, rope, positions, blocks, normed, .. } = self;
        rope.grow_to(batch.time);
        positions.clear();
        positions.extend((0..batch.sequences).flat_map(|_| 0..batch.time as u32));
        let pass = Pass { threads, config, rope, positions, changes: &[] };
        let mut buffers = BatchBuffers { blocks, threads, sequences: sequences(batch), keep };
        let Ok(()) = forward(&pass, weights, &batch.inputs, &mut buffers);
        fit(normed, pass.rows() * config.model_dim);
        let last = &blocks.streams[blocks.place(config.layers.len(), keep).from];
        rms_norm::forward(threads, normed, last, weights.norm, NORM_EPS);
    }

    /// Output projection and loss, chunk by chunk, forward and backward; the derivative by the last residual stream is
    /// left in `self.stream`.
    fn head(
        &mut self,
        weights: &Weights<'_>,
        gradients: &mut Gradients<'_>,
        batch: &Batch,
        options: LossOptions,
        scale: f32,
    ) -> LossSums {
        let (dim, vocabulary) = (self.config.model_dim, self.config.vocab_size);
        let mut sums = LossSums::default();
        let (norm_gradient, head_gradient) = gradients.tail.norm_and_head();
        let head_gradient = head_gradient.unwrap_or(gradients.embedding.values);
        // The derivative by the norm's output takes the place of that output, chunk by chunk.
        let mut dnormed = vec![0.0; LOSS_ROWS * dim];
        for_each_chunk(batch, |rows, targets| {
            let normed = &mut self.normed[rows.start * dim..rows.end * dim];
            fit(&mut self.logits, targets.len() * vocabulary);
            linear::forward(&self.threads, &mut self.logits, normed, weights.head, dim, false);
            let (ignore, z_weight) = (options.ignore, options.z_weight);
            sums += cross_entropy::forward_backward(&self.threads, &mut self.logits, targets, ignore, z_weight, scale);
            linear::backward_weight(&self.threads, head_gradient, &self.logits, normed, dim, true);
            let dnormed = &mut dnormed[..normed.len()];
            linear::backward_input(&self.threads, dnormed, &self.logits, weights.head, dim, false);
            normed.copy_from_slice(dnormed);
        });
        self.stream.clear();
        self.stream.resize(batch.inputs.len() * dim, 0.0);
        let last = &self.blocks.streams[self.blocks.place(self.config.layers.len(), true).from];
        rms_norm::backward(&self.threads, &mut self.stream, norm_gradient, &self.normed, last, weights.norm, NORM_EPS);
        sums
    }
}

fn sequences(batch: &Batch) -> Sequences<'_> {
    Sequences { count: batch.sequences, time: batch.time, document_starts: batch.document_starts.as_deref() }
}

fn for_each_chunk(batch: &Batch, mut task: impl FnMut(std::ops::Range<usize>, &[u32])) {
    for (chunk, targets) in batch.targets.chunks(LOSS_ROWS).enumerate() {
        task(chunk * LOSS_ROWS..chunk * LOSS_ROWS + targets.len(), targets);
    }
}

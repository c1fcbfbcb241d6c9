//! The whole model for training: forward, loss and backward over a batch.

use openelm_kernels::cross_entropy::{self, LossSums};
use openelm_kernels::rope::RopeTable;
use openelm_kernels::{Threads, embedding, linear, rms_norm};
use openelm_model::block::{self, Activations, Memory, Pass, Scratch, Span, fit};
use openelm_model::{ModelConfig, NORM_EPS, Weights};

use crate::backward::{Derivatives, backward};
use crate::data::Batch;
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

/// What is kept how in a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Whether a block's activations are computed again in its backward pass instead of kept from its forward pass.
    pub recompute: bool,
    /// Whether what the forward pass keeps for the backward pass is kept in bf16 instead of f32.
    pub bf16_activations: bool,
    /// Whether the optimiser's moments are kept in bf16 instead of f32.
    pub bf16_moments: bool,
}

/// Which buffers a block uses: the streams of its input and its output, and its activations.
struct Place {
    from: usize,
    to: usize,
    kept: usize,
}

/// Buffers for passes over batches; they are kept from step to step.
pub struct Network {
    config: ModelConfig,
    threads: Threads,
    rope: RopeTable,
    /// The residual stream before each block and behind the last, `[N, dim]` each; where it is kept rounded, the first two
    /// serve all.
    streams: Vec<Vec<f32>>,
    /// Of each layer; where blocks are computed again or kept rounded, the first one serves all.
    kept: Vec<Activations>,
    /// Of each layer; empty where nothing is rounded.
    rounded: Vec<Rounded>,
    recompute: bool,
    scratch: Scratch,
    derivatives: Derivatives,
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
            streams: vec![Vec::new(); layers + 1],
            kept: (0..layers).map(|_| Activations::default()).collect(),
            rounded: Vec::new(),
            recompute: false,
            scratch: Scratch::default(),
            derivatives: Derivatives::default(),
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
        Self { rounded: (0..rounded).map(|_| Rounded::default()).collect(), recompute: keeping.recompute, ..self }
    }

    /// Sums of the losses of `batch`, without a backward pass.
    pub fn loss(&mut self, parameters: &Parameters, batch: &Batch, options: LossOptions) -> LossSums {
        let config = self.config.clone();
        let weights = parameters.weights(&config);
        // One set of activations serves all layers where nothing is kept.
        self.forward(&weights, batch, false);
        let mut sums = LossSums::default();
        for_each_chunk(batch, |rows, targets| {
            let normed = &self.scratch.normed[rows.start * config.model_dim..rows.end * config.model_dim];
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
        let span = Span { sequences: batch.sequences, time: batch.time, past: 0 };
        let pass = Pass {
            threads: &self.threads,
            config: &config,
            rope: &self.rope,
            span,
            document_starts: batch.document_starts.as_deref(),
        };
        ready(gradients.tail.start, gradients.tail.values);
        for ((i, layer), mut segment) in config.layers.iter().enumerate().zip(gradients.layers).rev() {
            let Place { from, to, kept } = self.place(i, true);
            if let Some(rounded) = self.rounded.get(i) {
                rounded.input(&self.threads, &mut self.streams[from]);
            }
            // The last block's activations are still there.
            if self.recompute && i + 1 < config.layers.len() {
                // What the block after this one began with is not needed any more.
                let mut out = std::mem::take(&mut self.streams[to]);
                let (x, kept, scratch) = (&self.streams[from], &mut self.kept[kept], &mut self.scratch);
                block::forward(&pass, layer, &weights.layers[i], x, &mut out, kept, scratch, Memory::Backward);
                self.streams[to] = out;
            } else if let (false, Some(rounded)) = (self.recompute, self.rounded.get(i)) {
                rounded.activations(&self.threads, &mut self.kept[kept]);
            }
            backward(
                &pass,
                layer,
                &weights.layers[i],
                &mut segment.layer(config.qk_norm),
                &self.streams[from],
                &self.kept[kept],
                &mut self.stream,
                &mut self.scratch,
                &mut self.derivatives,
            );
            ready(segment.start, segment.values);
        }
        let (dim, table) = (config.model_dim, gradients.embedding);
        embedding::backward(&self.threads, table.values, &batch.inputs, &self.stream, dim, options.ignore);
        ready(table.start, table.values);
        sums
    }

    /// The buffers of the block `layer`, in a pass that a backward pass follows if `keep`.
    fn place(&self, layer: usize, keep: bool) -> Place {
        let (from, to) = match keep && self.rounded.is_empty() {
            true => (layer, layer + 1),
            false => (layer % 2, (layer + 1) % 2),
        };
        let kept = if keep && self.rounded.is_empty() && !self.recompute { layer } else { 0 };
        Place { from, to, kept }
    }

    /// Runs all blocks and the last norm, whose output is left in `scratch.normed`.
    fn forward(&mut self, weights: &Weights<'_>, batch: &Batch, keep: bool) {
        let dim = self.config.model_dim;
        let span = Span { sequences: batch.sequences, time: batch.time, past: 0 };
        self.rope.grow_to(batch.time);
        let pass = Pass {
            threads: &self.threads,
            config: &self.config,
            rope: &self.rope,
            span,
            document_starts: batch.document_starts.as_deref(),
        };
        fit(&mut self.streams[0], span.rows() * dim);
        embedding::forward(&self.threads, &mut self.streams[0], &batch.inputs, weights.embedding, dim);
        for (i, (layer, weights)) in self.config.layers.iter().zip(&weights.layers).enumerate() {
            let Place { from, to, kept } = self.place(i, keep);
            let mut out = std::mem::take(&mut self.streams[to]);
            fit(&mut out, span.rows() * dim);
            let (x, kept, scratch) = (&self.streams[from], &mut self.kept[kept], &mut self.scratch);
            block::forward(&pass, layer, weights, x, &mut out, kept, scratch, Memory::Backward);
            if let (true, Some(rounded)) = (keep, self.rounded.get_mut(i)) {
                rounded.keep_input(&self.threads, x);
                if !self.recompute {
                    rounded.keep(&self.threads, kept);
                }
            }
            self.streams[to] = out;
        }
        fit(&mut self.scratch.normed, span.rows() * dim);
        let last = &self.streams[self.place(self.config.layers.len(), keep).from];
        rms_norm::forward(&self.threads, &mut self.scratch.normed, last, weights.norm, NORM_EPS);
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
            let normed = &mut self.scratch.normed[rows.start * dim..rows.end * dim];
            fit(&mut self.logits, targets.len() * vocabulary);
            linear::forward(&self.threads, &mut self.logits, normed, weights.head, dim, false);
            let (ignore, z_weight) = (options.ignore, options.z_weight);
            sums += cross_entropy::forward_backward(&self.threads, &mut self.logits, targets, ignore, z_weight, scale);
            linear::backward_weight(&self.threads, head_gradient, &self.logits, normed, dim);
            let dnormed = &mut dnormed[..normed.len()];
            linear::backward_input(&self.threads, dnormed, &self.logits, weights.head, dim, false);
            normed.copy_from_slice(dnormed);
        });
        self.stream.clear();
        self.stream.resize(batch.inputs.len() * dim, 0.0);
        let last = &self.streams[self.place(self.config.layers.len(), true).from];
        rms_norm::backward(
            &self.threads,
            &mut self.stream,
            norm_gradient,
            &self.scratch.normed,
            last,
            weights.norm,
            NORM_EPS,
        );
        sums
    }
}

fn for_each_chunk(batch: &Batch, mut task: impl FnMut(std::ops::Range<usize>, &[u32])) {
    for (chunk, targets) in batch.targets.chunks(LOSS_ROWS).enumerate() {
        task(chunk * LOSS_ROWS..chunk * LOSS_ROWS + targets.len(), targets);
    }
}

//! The whole model for training: forward, loss and backward over a batch.

use std::ops::Range;

use openelm_kernels::cross_entropy::{self, LossSums};
use openelm_kernels::rope::RopeTable;
use openelm_kernels::rounded::Products;
use openelm_kernels::{Input, Matrix, Threads, embedding};
use openelm_model::block::{self, Activations, BlockBuffers, KeysAndValues, Pass, Sequences, fit};
use openelm_model::{Buffers, Change, Linear, LinearScratch, ModelConfig, Role, Site, Weights, forward};

use crate::backward::{BlockBackward, Derivatives, LayerGradients, norm_backward};
use crate::data::Batch;
use crate::linear::{self, LinearGradients};
use crate::objective::{Loss, Objective, TargetWeights, Weighed};
use crate::parameters::{Parameters, Parts, Segment};
use crate::rounded::Rounded;
use crate::trainable::{RowLengths, TrainableModel};

/// Rows whose logits are in memory at a time.
pub(crate) const LOSS_ROWS: usize = 256;
/// Numbers that a task sets to zero.
const CLEARED: usize = 1 << 18;

const EMBEDDING: Site = Site::outside(Role::Embedding);
const HEAD: Site = Site::outside(Role::Head);

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
struct Slots {
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
    fn slots(&self, layer: usize, keep: bool) -> Slots {
        let (from, to) = match keep && self.rounded.is_empty() {
            true => (layer, layer + 1),
            false => (layer % 2, (layer + 1) % 2),
        };
        let kept = if keep && self.rounded.is_empty() && !self.recompute { layer } else { 0 };
        Slots { from, to, kept }
    }

    /// The buffers in `slots` of a pass over `sequences`.
    fn buffers<'a>(&'a mut self, slots: &Slots, sequences: Sequences<'a>) -> BlockBuffers<'a> {
        let Self { streams, kept, scratch, .. } = self;
        let [x, out] = streams
            .get_disjoint_mut([slots.from, slots.to])
            .unwrap_or_else(|_| unreachable!("a block reads one stream and writes another"));
        let keys_and_values = KeysAndValues::InPass(sequences);
        BlockBuffers { x, out, kept: &mut kept[slots.kept], scratch, keys_and_values }
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
        let slots = self.blocks.slots(index, self.keep);
        self.blocks.buffers(&slots, self.sequences)
    }

    fn computed(&mut self, index: usize) {
        let slots = self.blocks.slots(index, self.keep);
        let Blocks { streams, kept, rounded, recompute, .. } = &mut *self.blocks;
        if let (true, Some(rounded)) = (self.keep, rounded.get_mut(index)) {
            rounded.keep_input(self.threads, &streams[slots.from]);
            if !*recompute {
                rounded.keep(self.threads, &mut kept[slots.kept]);
            }
        }
    }
}

/// A model as a pass over a batch sees it.
struct View<'a> {
    config: &'a ModelConfig,
    weights: Weights<'a>,
    /// The change of all rows, if an adapter is trained.
    changes: &'a [Change<'a>],
    lengths: &'a RowLengths,
}

/// Buffers for passes over batches; they are kept from step to step.
pub struct Network {
    threads: Threads,
    rope: RopeTable,
    positions: Vec<u32>,
    padding: Option<u32>,
    products: Products,
    blocks: Blocks,
    derivatives: Derivatives,
    /// Output of the last norm, `[N, dim]`.
    normed: Vec<f32>,
    /// Derivative by the residual stream.
    stream: Vec<f32>,
    logits: Vec<f32>,
}

impl Network {
    /// Empty buffers for models of the geometry `config`; the first batch sizes them. Between a forward and its backward
    /// pass they keep what `keeping` says. The input `padding` has no embedding to learn (CoreNet's `padding_index`).
    pub fn new(config: &ModelConfig, threads: Threads, keeping: Keeping, padding: Option<u32>) -> Self {
        let layers = config.layers.len();
        let rounded = if keeping.bf16_activations { layers } else { 0 };
        Self {
            threads,
            rope: config.rope_table(),
            positions: Vec::new(),
            padding,
            products: Products::F32,
            blocks: Blocks {
                streams: vec![Vec::new(); layers + 1],
                kept: (0..layers).map(|_| Activations::default()).collect(),
                rounded: (0..rounded).map(|_| Rounded::default()).collect(),
                recompute: keeping.recompute,
                scratch: LinearScratch::default(),
            },
            derivatives: Derivatives::default(),
            normed: Vec::new(),
            stream: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// The same network, which multiplies in other numbers.
    #[must_use]
    pub fn with_products(self, products: Products) -> Self {
        Self { products, ..self }
    }

    /// The threads that it uses.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// The logarithm of the probability of each target of `batch`, in nats, `[sequences, time]`.
    pub fn log_probabilities(&mut self, model: &TrainableModel, batch: &Batch) -> Vec<f64> {
        with_view(model, &self.threads.clone(), batch, None, |view| {
            self.forward(view, batch, false);
            self.target_log_probabilities(view, batch)
        })
    }

    /// The loss of `batch`, without a backward pass.
    pub fn loss<O: Objective>(&mut self, model: &TrainableModel, objective: &O, batch: &O::Batch) -> Loss {
        let sequences = objective.sequences(batch);
        with_view(model, &self.threads.clone(), sequences, None, |view| {
            self.forward(view, sequences, false);
            let weighed = objective.weigh(batch, &mut || self.target_log_probabilities(view, sequences));
            let mut sums = LossSums::default();
            let rows = weighed.weights.rows();
            self.for_each_chunk(view, sequences, |network, range, targets| {
                sums += cross_entropy::forward(&network.threads, &mut network.logits, targets, rows.rows(range));
            });
            loss(weighed, objective.amount(batch), sums)
        })
    }

    /// Writes the derivatives of `scale` times the summed loss of `batch` to `gradients`, or adds them if `accumulate`; gives the
    /// (unscaled) loss. As soon as a segment of the gradients is complete, `ready` gets it and its place among all of them: what
    /// follows the layers, the layers from last to first, the embedding table. With a key for `dropout`, an adapter drops inputs by
    /// it.
    pub fn gradients<'g, O: Objective>(
        &mut self,
        model: &TrainableModel,
        (gradients, accumulate): (&'g mut Parameters, bool),
        objective: &O,
        batch: &O::Batch,
        (scale, dropout): (f32, Option<u64>),
        ready: &mut dyn FnMut(usize, &'g mut [f32]),
    ) -> Loss {
        let sequences = objective.sequences(batch);
        with_view(model, &self.threads.clone(), sequences, dropout, |view| {
            let layers = view.config.layers.len();
            if !accumulate {
                // They are small, and only ever added to.
                gradients.clear_vectors();
            }
            let mut gradients = gradients.parts(layers);
            self.forward(view, sequences, true);
            let weighed = objective.weigh(batch, &mut || self.target_log_probabilities(view, sequences));
            let derivative = HeadDerivative { weights: &weighed.weights, z_weight: objective.z_weight(), scale };
            let sums = self.head(view, (&mut gradients, accumulate), sequences, derivative);
            ready(gradients.tail.start, gradients.tail.values);
            // Nobody asks for derivatives below the first tensor that is trained.
            let first = match gradients.embedding.is_empty() {
                true => gradients.layers.iter().position(|layer| !layer.is_empty()).unwrap_or(layers),
                false => 0,
            };
            for (i, mut segment) in gradients.layers.into_iter().enumerate().skip(first).rev() {
                self.block_backward(view, sequences, i, (&mut LayerGradients::of(&mut segment), accumulate));
                ready(segment.start, segment.values);
            }
            let mut table = gradients.embedding;
            if !table.is_empty() {
                self.embedding_backward(view, &sequences.inputs, (&mut table, accumulate));
                ready(table.start, table.values);
            }
            loss(weighed, objective.amount(batch), sums)
        })
    }

    /// Runs all blocks and the last norm, whose output is left in `normed`.
    fn forward(&mut self, view: &View<'_>, batch: &Batch, keep: bool) {
        let View { config, ref weights, changes, .. } = *view;
        let Self { threads, rope, positions, blocks, normed, products, .. } = self;
        rope.grow_to(batch.time);
        positions.clear();
        positions.extend((0..batch.sequences).flat_map(|_| 0..batch.time as u32));
        let pass = Pass { threads, config, rope, positions, changes, products: *products };
        let mut buffers = BatchBuffers { blocks, threads, sequences: sequences(batch), keep };
        let Ok(()) = forward(&pass, weights, &batch.inputs, &mut buffers);
        fit(normed, pass.rows() * config.model_dim);
        let last = &blocks.streams[blocks.slots(config.layers.len(), keep).from];
        weights.norm.forward(threads, normed, last);
    }

    /// Computes the logits of a chunk of rows after the other, from the output of the last norm, and shows `task` each with its
    /// targets.
    fn for_each_chunk(
        &mut self,
        view: &View<'_>,
        batch: &Batch,
        mut task: impl FnMut(&mut Self, Range<usize>, &[u32]),
    ) {
        let rounded = match (self.products, view.weights.head) {
            (Products::BF16, Matrix::F32(weight)) => {
                Some(self.blocks.scratch.rounded().take_rounded(&self.threads, weight))
            }
            _ => None,
        };
        let head = rounded.as_deref().map_or(view.weights.head, Matrix::BF16);
        for (chunk, targets) in batch.targets.chunks(LOSS_ROWS).enumerate() {
            let range = chunk * LOSS_ROWS..chunk * LOSS_ROWS + targets.len();
            self.project(view, head, range.clone());
            task(self, range, targets);
        }
        if let Some(rounded) = rounded {
            self.blocks.scratch.rounded().put_back(rounded);
        }
    }

    /// Logits of the rows in `range`, from the output of the last norm, by the output projection `head`.
    fn project(&mut self, view: &View<'_>, head: Matrix<'_>, range: Range<usize>) {
        let View { config, changes, .. } = *view;
        let (dim, rows) = (config.model_dim, range.len());
        fit(&mut self.logits, rows * config.vocab_size);
        let x = &self.normed[range.start * dim..range.end * dim];
        let changes: Vec<Change<'_>> = changes.iter().filter_map(|change| change.within(range.clone())).collect();
        let head = Linear { matrix: head, site: HEAD, changes: &changes, products: self.products };
        let (input, scratch) = (Input::Rows { x, inputs: dim }, &mut self.blocks.scratch);
        head.forward(&self.threads, &mut self.logits, input, scratch, false);
    }

    /// The logarithm of each target's probability, from the output of the last norm.
    fn target_log_probabilities(&mut self, view: &View<'_>, batch: &Batch) -> Vec<f64> {
        let mut found = vec![0.0; batch.targets.len()];
        self.for_each_chunk(view, batch, |network, range, targets| {
            cross_entropy::log_probabilities(&network.threads, &mut found[range], &mut network.logits, targets);
        });
        found
    }

    /// Output projection and loss, chunk by chunk, forward and backward; the derivative by the last residual stream is
    /// left in `self.stream`.
    fn head(
        &mut self,
        view: &View<'_>,
        (gradients, mut accumulate): (&mut Parts<'_>, bool),
        batch: &Batch,
        derivative: HeadDerivative<'_>,
    ) -> LossSums {
        let HeadDerivative { weights: rows, z_weight, scale } = derivative;
        let View { config, ref weights, changes, lengths } = *view;
        let dim = config.model_dim;
        let mut sums = LossSums::default();
        let (mut norm_gradient, mut head_gradients) = (None, LinearGradients::default());
        for (name, values) in gradients.tail.tensors() {
            let gradient = match name.rsplit_once('.') {
                Some(("norm", "weight")) => Some(&mut norm_gradient),
                Some(("classifier", part)) => head_gradients.part(part),
                _ => None,
            };
            *gradient.unwrap_or_else(|| panic!("nothing behind the blocks is called {name}")) = Some(values);
        }
        if config.tied_embeddings {
            // A change to the table acts on the input side alone.
            head_gradients.weight = LinearGradients::of(&mut gradients.embedding).weight;
        }
        // The derivative by the norm's output takes the place of that output, chunk by chunk.
        let mut dnormed = vec![0.0; LOSS_ROWS * dim];
        let head = Linear { matrix: weights.head, site: HEAD, changes, products: self.products };
        let across = match (self.products, weights.head) {
            (Products::BF16, Matrix::F32(weight)) => {
                Some(self.derivatives.scratch().rounded().take_across(&self.threads, weight, dim))
            }
            _ => None,
        };
        self.for_each_chunk(view, batch, |network, range, targets| {
            let Self { threads, derivatives, normed, logits, .. } = network;
            let normed = &mut normed[range.start * dim..range.end * dim];
            let rows = rows.rows().rows(range);
            sums += cross_entropy::forward_backward(threads, logits, targets, rows, z_weight, scale);
            let (logits, scratch) = (&logits[..], derivatives.scratch());
            let derivative = (logits, &*normed, dim);
            linear::backward_weights(
                threads,
                &head,
                &mut head_gradients,
                accumulate,
                derivative,
                (lengths.of(HEAD), None),
                scratch,
            );
            let dnormed = &mut dnormed[..normed.len()];
            linear::backward_input_across(threads, &head, across.as_deref(), dnormed, logits, dim, scratch);
            normed.copy_from_slice(dnormed);
            accumulate = true;
        });
        if let Some(across) = across {
            self.derivatives.scratch().rounded().put_back(across);
        }
        self.stream.clear();
        self.stream.resize(batch.inputs.len() * dim, 0.0);
        let last = &self.blocks.streams[self.blocks.slots(config.layers.len(), true).from];
        norm_backward(&self.threads, &mut self.stream, norm_gradient, &self.normed, last, weights.norm);
        sums
    }

    /// From the derivative by the first residual stream to those by the embedding table, or by the change to it.
    fn embedding_backward(&mut self, view: &View<'_>, ids: &[u32], (table, accumulate): (&mut Segment<'_>, bool)) {
        let Self { threads, derivatives, stream, padding, .. } = self;
        let mut gradients = LinearGradients::of(table);
        if let Some(weight) = &mut gradients.weight {
            // What a tied table is as an output projection is there already.
            if !accumulate && !view.config.tied_embeddings {
                // Most rows meet no id.
                threads.for_each_chunk(weight, CLEARED, |_, rows| rows.fill(0.0));
            }
            embedding::backward(threads, weight, ids, stream, view.config.model_dim, *padding);
        }
        if let Some(delta) = view.changes.first().and_then(|change| change.deltas.get(&EMBEDDING)) {
            let derivative = (&stream[..], ids, *padding);
            linear::backward_embeddings(threads, delta, &mut gradients, accumulate, derivative, derivatives.scratch());
        }
    }

    /// The backward pass of the block `i`, with `self.stream` as the derivative by its output.
    fn block_backward(
        &mut self,
        view: &View<'_>,
        batch: &Batch,
        i: usize,
        (gradients, accumulate): (&mut LayerGradients<'_>, bool),
    ) {
        let View { config, weights: ref all, changes, lengths } = *view;
        let Self { threads, rope, positions, blocks, derivatives, stream, products, .. } = self;
        let (pass, sequences) =
            (Pass { threads, config, rope, positions, changes, products: *products }, sequences(batch));
        let (weights, slots) = (&all.layers[i], blocks.slots(i, true));
        let Blocks { streams, kept, rounded, recompute, .. } = &mut *blocks;
        if let Some(rounded) = rounded.get(i) {
            rounded.input(threads, &mut streams[slots.from]);
        }
        // The last block's activations are still there.
        if *recompute && i + 1 < config.layers.len() {
            // What the block after this one began with is not needed any more.
            block::forward(&pass, i, weights, blocks.buffers(&slots, sequences));
        } else if let (false, Some(rounded)) = (*recompute, rounded.get(i)) {
            rounded.activations(threads, &mut kept[slots.kept]);
        }
        let (x, kept) = (&blocks.streams[slots.from], &blocks.kept[slots.kept]);
        let block = BlockBackward { pass: &pass, index: i, lengths, weights, x, kept, sequences, accumulate };
        block.run(gradients, stream, derivatives);
    }
}

/// What the derivative of the loss by the logits is made of.
struct HeadDerivative<'a> {
    weights: &'a TargetWeights,
    z_weight: f32,
    scale: f32,
}

/// Shows `user` the model as its parameters are now; with a key for `dropout` in training.
fn with_view<T>(
    model: &TrainableModel,
    threads: &Threads,
    batch: &Batch,
    dropout: Option<u64>,
    user: impl FnOnce(&View<'_>) -> T,
) -> T {
    let lengths = model.row_lengths(threads);
    let deltas = model.deltas(&lengths, dropout);
    let change = Change { start: 0, end: batch.inputs.len(), deltas: &deltas };
    let changes = if deltas.is_empty() { &[][..] } else { std::slice::from_ref(&change) };
    user(&View { config: model.config(), weights: model.weights(), changes, lengths: &lengths })
}

fn sequences(batch: &Batch) -> Sequences<'_> {
    Sequences { count: batch.sequences, time: batch.time, document_starts: batch.document_starts.as_deref() }
}

/// The loss of a micro-batch from the sums over its rows.
fn loss(weighed: Weighed, amount: f64, sums: LossSums) -> Loss {
    Loss {
        sum: weighed.loss.unwrap_or(sums.cross_entropy),
        amount,
        tokens: sums.rows,
        squared_log_partition: sums.squared_log_partition,
        metrics: weighed.metrics,
    }
}

//! Linear layers that may carry a change for some of their rows: LoRA's (Hu et al. 2021) or DoRA's (Liu et al. 2024).
//!
//! ```text
//! y = W x                                          without a change
//! y = W x + scale B (A x)                          LoRA
//! y = gain (W x + scale B (A x))                   DoRA, gain = magnitude / |rows of W + scale B A|
//! ```
//!
//! In training the `x` that `A` meets may be dropped here and there. That `W` meets never is: in DoRA's line it is the same product,
//! where PEFT and CoreNet take one more, of `W` with what is left of `x`.
//!
//! `W + scale B A` is never formed, so `W` may be quantised. A row's result does not depend on the other rows of a pass nor on
//! their changes.

use std::collections::BTreeMap;
use std::ops::Range;

use openelm_kernels::dropout::{self, Dropout};
use openelm_kernels::rounded::{self, Products};
use openelm_kernels::{Input, Matrix, Threads, gains, linear, residual};

use crate::layout::Site;

/// What an adapter changes in one linear layer.
#[derive(Debug, Clone, Copy)]
pub struct Delta<'a> {
    /// Rows of A.
    pub rank: usize,
    /// `[rank, inputs]`; of the embedding table `[rank, vocabulary]`.
    pub a: &'a [f32],
    /// `[outputs, rank]`.
    pub b: &'a [f32],
    /// What the product of both is multiplied by.
    pub scale: f32,
    /// DoRA's factor of each output, `[outputs]`.
    pub gains: Option<&'a [f32]>,
    /// What of the input is dropped before A meets it, in training.
    pub dropout: Option<Dropout>,
}

/// What an adapter changes in a model.
pub type Deltas<'a> = BTreeMap<Site, Delta<'a>>;

/// An adapter at work on some of the rows of a pass.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// First row.
    pub start: usize,
    /// Behind the last row.
    pub end: usize,
    /// What it changes.
    pub deltas: &'a Deltas<'a>,
}

impl Change<'_> {
    /// The same change to those of its rows that are among `rows`, counted from the first of them.
    pub fn within(&self, rows: Range<usize>) -> Option<Self> {
        let (start, end) = (self.start.max(rows.start), self.end.min(rows.end));
        (start < end).then(|| Self { start: start - rows.start, end: end - rows.start, deltas: self.deltas })
    }
}

/// A weight matrix, and the changes to it.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// `[outputs, inputs]`.
    pub matrix: Matrix<'a>,
    /// Where it stands in the model.
    pub site: Site,
    /// The adapters of the pass, each with rows of its own.
    pub changes: &'a [Change<'a>],
    /// In which numbers a matrix that is not quantised is multiplied.
    pub products: Products,
}

/// Buffers of layers with changes.
#[derive(Default)]
pub struct LinearScratch {
    /// The input, where it is computed.
    input: Vec<f32>,
    /// The input with some of it dropped.
    dropped: Vec<f32>,
    /// `A x`, `[N, rank]`.
    inner: Vec<f32>,
    /// The output, where it is added to something else.
    output: Vec<f32>,
    rounded: rounded::Buffers,
}

impl LinearScratch {
    /// Buffers of products with rounded factors.
    pub fn rounded(&mut self) -> &mut rounded::Buffers {
        &mut self.rounded
    }
}

impl<'a> Linear<'a> {
    /// The changes to this layer, with their rows.
    fn deltas(&self) -> impl Iterator<Item = (Range<usize>, Delta<'a>)> + use<'a> {
        let site = self.site;
        self.changes.iter().filter_map(move |change| Some((change.start..change.end, *change.deltas.get(&site)?)))
    }

    /// Whether some outputs are scaled, as DoRA does it: training needs those outputs.
    pub fn has_gains(&self) -> bool {
        self.deltas().any(|(_, delta)| delta.gains.is_some())
    }

    /// `out (+)= y`, with `out` `[N, outputs]`; adds if `accumulate`, as a residual connection does.
    pub fn forward(
        &self,
        threads: &Threads,
        out: &mut [f32],
        input: Input<'_>,
        scratch: &mut LinearScratch,
        accumulate: bool,
    ) {
        let LinearScratch { input: computed, dropped, inner, output, rounded } = scratch;
        let (rows, inputs) = input.shape();
        if self.deltas().next().is_none() {
            match (self.products, self.matrix) {
                (Products::BF16, Matrix::F32(_) | Matrix::F16(_) | Matrix::BF16(_) | Matrix::Joined(_)) => {
                    let x = input.rows(threads, computed);
                    rounded::forward(threads, out, x, self.matrix, inputs, accumulate, rounded);
                }
                _ => linear::forward_fused(threads, out, input, computed, self.matrix, accumulate),
            }
            return;
        }
        let outputs = out.len() / rows.max(1);
        let x = input.rows(threads, computed);
        // A row's change is added to its own product before that is added to anything else, whether or not another row's
        // change scales both.
        let y = if accumulate {
            output.resize(rows * outputs, 0.0);
            &mut output[..]
        } else {
            &mut *out
        };
        match self.products {
            Products::BF16 => rounded::forward(threads, y, x, self.matrix, inputs, false, rounded),
            Products::F32 => linear::forward(threads, y, x, self.matrix, inputs, false),
        }
        for (rows, delta) in self.deltas() {
            let y = &mut y[rows.start * outputs..rows.end * outputs];
            let x = delta.dropped(threads, &x[rows.start * inputs..rows.end * inputs], dropped);
            delta.add(threads, y, x, inner);
            if let Some(gains) = delta.gains {
                gains::forward(threads, y, gains);
            }
        }
        if accumulate {
            residual::add(threads, out, output);
        }
    }
}

impl Delta<'_> {
    /// What A meets of the input `x`, `[N, inputs]`: with dropout some of it, in `buffer`.
    pub fn dropped<'x>(&self, threads: &Threads, x: &'x [f32], buffer: &'x mut Vec<f32>) -> &'x [f32] {
        let Some(dropout) = self.dropout else { return x };
        buffer.resize(x.len(), 0.0);
        dropout::forward(threads, buffer, x, self.a.len() / self.rank, dropout);
        buffer
    }

    /// `y += scale B (A x)`, with `x` `[N, inputs]` and `y` `[N, outputs]`; `inner` becomes `scale A x`.
    pub fn add(&self, threads: &Threads, y: &mut [f32], x: &[f32], inner: &mut Vec<f32>) {
        let inputs = self.a.len() / self.rank;
        inner.resize(x.len() / inputs * self.rank, 0.0);
        linear::forward(threads, inner, x, Matrix::F32(self.a), inputs, false);
        inner.iter_mut().for_each(|x| *x *= self.scale);
        linear::forward(threads, y, inner, Matrix::F32(self.b), self.rank, true);
    }

    /// `x += scale B A[:, id]` of each id, with `x` `[ids, dim]`: the change to an embedding table.
    pub fn add_to_embeddings(&self, threads: &Threads, x: &mut [f32], ids: &[u32]) {
        let vocabulary = self.a.len() / self.rank;
        let factors = |&id: &u32| (0..self.rank).map(move |r| self.scale * self.a[r * vocabulary + id as usize]);
        let inner: Vec<f32> = ids.iter().flat_map(factors).collect();
        linear::forward(threads, x, &inner, Matrix::F32(self.b), self.rank, true);
    }
}

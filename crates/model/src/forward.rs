//! The walk over the blocks: from token ids to the residual stream behind the last layer. Generating, training and looking at
//! a file layer by layer differ in where the weights come from and in which buffers are used, and share this.

use std::convert::Infallible;

use openelm_kernels::{Matrix, embedding};

use crate::block::{self, BlockBuffers, Pass, fit};
use crate::layout::{Role, Site};
use crate::weights::{LayerWeights, Weights};

/// What hands out a model's weights, a part at a time: a part need not be in memory before it is asked for.
pub trait Layers {
    /// Why a part cannot be had.
    type Error;

    /// Lends the embedding table, `[vocabulary, dim]`, to `user`.
    ///
    /// # Errors
    /// If it cannot be had.
    fn embedding(&self, user: impl FnOnce(Matrix<'_>)) -> Result<(), Self::Error>;

    /// Lends the weights of the layer `index` to `user`.
    ///
    /// # Errors
    /// If they cannot be had.
    fn layer(&self, index: usize, user: impl FnOnce(&LayerWeights<'_>)) -> Result<(), Self::Error>;
}

impl Layers for Weights<'_> {
    type Error = Infallible;

    fn embedding(&self, user: impl FnOnce(Matrix<'_>)) -> Result<(), Infallible> {
        user(self.embedding);
        Ok(())
    }

    fn layer(&self, index: usize, user: impl FnOnce(&LayerWeights<'_>)) -> Result<(), Infallible> {
        user(&self.layers[index]);
        Ok(())
    }
}

/// The buffers of a pass.
pub trait Buffers {
    /// Where the embeddings go: what the first block reads.
    fn embeddings(&mut self) -> &mut Vec<f32>;

    /// The buffers of the layer `index`; it reads what the one before has written.
    fn layer(&mut self, index: usize) -> BlockBuffers<'_>;

    /// The layer `index` has been computed.
    fn computed(&mut self, _index: usize) {}
}

/// Runs `ids`, one per row of `pass`, through all blocks; the last one's output is the residual stream behind them.
///
/// # Errors
/// If weights cannot be had.
pub fn forward<L: Layers>(
    pass: &Pass<'_>,
    layers: &L,
    ids: &[u32],
    buffers: &mut impl Buffers,
) -> Result<(), L::Error> {
    let (rows, dim) = (pass.rows(), pass.config.model_dim);
    let x = buffers.embeddings();
    fit(x, rows * dim);
    layers.embedding(|table| embedding::forward(pass.threads, x, ids, table, dim))?;
    let site = Site::outside(Role::Embedding);
    for change in pass.changes {
        if let Some(delta) = change.deltas.get(&site) {
            let rows = change.start..change.end;
            delta.add_to_embeddings(pass.threads, &mut x[rows.start * dim..rows.end * dim], &ids[rows]);
        }
    }
    for index in 0..pass.config.layers.len() {
        layers.layer(index, |weights| {
            let buffers = buffers.layer(index);
            fit(buffers.out, rows * dim);
            block::forward(pass, index, weights, buffers);
        })?;
        buffers.computed(index);
    }
    Ok(())
}

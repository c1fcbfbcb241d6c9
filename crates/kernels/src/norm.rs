//! The norms of the residual stream, one of which a model has.

use crate::simd::dispatch;
use crate::{Threads, layer_norm, rms_norm};

/// Rows in a task.
const TASK_ROWS: usize = 32;

/// A norm of rows of `dim` elements.
#[derive(Debug, Clone, Copy)]
pub enum Norm<'a> {
    /// [`rms_norm`].
    Rms {
        /// `[dim]`.
        weight: &'a [f32],
        /// Added to the mean square.
        eps: f32,
    },
    /// [`layer_norm`].
    Layer {
        /// Length of a row.
        dim: usize,
        /// Added to the variance.
        eps: f32,
    },
}

impl Norm<'_> {
    /// Length of a row.
    pub fn dim(&self) -> usize {
        match *self {
            Norm::Rms { weight, .. } => weight.len(),
            Norm::Layer { dim, .. } => dim,
        }
    }

    /// `out = norm(x)`, both `[N, dim]`.
    pub fn forward(&self, threads: &Threads, out: &mut [f32], x: &[f32]) {
        match *self {
            Norm::Rms { weight, eps } => rms_norm::forward(threads, out, x, weight, eps),
            Norm::Layer { dim, eps } => layer_norm::forward(threads, out, x, dim, eps),
        }
    }

    /// `out += norm(x)`, both `[N, dim]`.
    pub fn forward_added(&self, threads: &Threads, out: &mut [f32], x: &[f32]) {
        let dim = self.dim();
        assert_eq!(out.len(), x.len(), "x is not as long as out");
        threads.for_each_chunk(out, dim * TASK_ROWS, |task, out| {
            let x = &x[task * TASK_ROWS * dim..][..out.len()];
            let mut normed = vec![0.0; dim];
            dispatch(
                #[inline(always)]
                || {
                    for (out, x) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
                        self.row(&mut normed, x);
                        for (out, normed) in out.iter_mut().zip(&normed) {
                            *out += normed;
                        }
                    }
                },
            );
        });
    }

    /// One row of [`Norm::forward`].
    #[inline(always)]
    pub(crate) fn row(&self, out: &mut [f32], x: &[f32]) {
        match *self {
            Norm::Rms { weight, eps } => rms_norm::normalise(out, x, weight, eps),
            Norm::Layer { eps, .. } => {
                layer_norm::normalise(out, x, eps);
            }
        }
    }

    /// Adds the derivatives of [`Norm::forward`] to `dx`, `[N, dim]`, and to `dweight`, `[dim]` or empty where there are no weights.
    pub fn backward(&self, threads: &Threads, dx: &mut [f32], dweight: &mut [f32], dout: &[f32], x: &[f32]) {
        match *self {
            Norm::Rms { weight, eps } => rms_norm::backward(threads, dx, dweight, dout, x, weight, eps),
            Norm::Layer { dim, eps } => layer_norm::backward(threads, dx, dout, x, dim, eps),
        }
    }
}

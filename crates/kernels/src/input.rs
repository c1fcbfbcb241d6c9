//! What a linear layer is given: rows, or what is computed on the way from rows that are read once.

use crate::swiglu::{self, FeedForward};
use crate::{Norm, Threads};

/// The input of a linear layer, `[N, inputs]`.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// The rows themselves.
    Rows {
        /// `[N, inputs]`.
        x: &'a [f32],
        /// Length of a row.
        inputs: usize,
    },
    /// What [`Norm::forward`] gives.
    Normed {
        /// `[N, inputs]`.
        x: &'a [f32],
        /// Of rows of `inputs` elements.
        norm: Norm<'a>,
    },
    /// What [`swiglu::forward`] gives.
    Gated {
        /// Gate, then up, `[N, 2 * inner]`, or `[N, inner]` without a gate.
        hidden: &'a [f32],
        /// What is computed.
        network: FeedForward,
    },
}

impl<'a> Input<'a> {
    /// Rows and their length.
    pub fn shape(&self) -> (usize, usize) {
        match *self {
            Input::Rows { x, inputs } => (x.len() / inputs, inputs),
            Input::Normed { x, norm } => (x.len() / norm.dim(), norm.dim()),
            Input::Gated { hidden, network } => (hidden.len() / network.hidden_dim(), network.inner),
        }
    }

    /// All rows, in `buffer` if they are computed.
    pub fn rows(self, threads: &Threads, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let (rows, inputs) = self.shape();
        if !matches!(self, Input::Rows { .. }) {
            buffer.resize(rows * inputs, 0.0);
        }
        match self {
            Input::Rows { x, .. } => return x,
            Input::Normed { x, norm } => norm.forward(threads, buffer, x),
            Input::Gated { hidden, network } => swiglu::forward(threads, buffer, hidden, network),
        }
        buffer
    }

    /// The row `index`, in `buffer` if it is computed; the same bits as those of [`Input::rows`].
    #[inline(always)]
    pub(crate) fn row(self, index: usize, buffer: &'a mut Vec<f32>) -> &'a [f32] {
        let (_, inputs) = self.shape();
        buffer.resize(inputs, 0.0);
        match self {
            Input::Rows { x, .. } => return &x[index * inputs..][..inputs],
            Input::Normed { x, norm } => norm.row(buffer, &x[index * inputs..][..inputs]),
            Input::Gated { hidden, network } => {
                let width = network.hidden_dim();
                swiglu::gate(buffer, &hidden[index * width..][..width], network.activation, network.gated);
            }
        }
        buffer
    }
}

//! What a linear layer is given: rows, or what is computed on the way from rows that are read once.

use crate::Threads;
use crate::rms_norm;
use crate::swiglu::{self, FeedForward};

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
    /// What [`rms_norm::forward`] gives.
    Normed {
        /// `[N, inputs]`.
        x: &'a [f32],
        /// `[inputs]`.
        weight: &'a [f32],
        /// Added to the mean square.
        eps: f32,
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
            Input::Normed { x, weight, .. } => (x.len() / weight.len(), weight.len()),
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
            Input::Normed { x, weight, eps } => rms_norm::forward(threads, buffer, x, weight, eps),
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
            Input::Normed { x, weight, eps } => {
                rms_norm::normalise(buffer, &x[index * inputs..][..inputs], weight, eps);
            }
            Input::Gated { hidden, network } => {
                let width = network.hidden_dim();
                swiglu::gate(buffer, &hidden[index * width..][..width], network.activation, network.gated);
            }
        }
        buffer
    }
}

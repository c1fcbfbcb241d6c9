//! The residual stream between the blocks, for those who look into a model.

use std::ops::Range;

use crate::block::{BlockBuffers, KeysAndValues, Pass};
use crate::engine::{BlockWorkspace, Engine, EngineError};
use crate::forward::{Buffers, forward};
use crate::sequence::Sequence;

impl Engine {
    /// The hidden states of `tokens`, `[layers + 1, tokens, dim]`, as Hugging Face's `transformers` counts them: the embeddings,
    /// then what each block leaves; what the last one leaves is normalised. They are those that logits are computed from, to
    /// the bit.
    ///
    /// # Errors
    /// If there is no token, or one out of range.
    pub fn hidden_states(&self, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::Empty);
        }
        let config = self.model().config();
        let (count, dim) = (tokens.len(), config.model_dim);
        let mut sequence = self.sequence(count);
        sequence.check(tokens, config.vocab_size)?;
        let mut rope = config.rope_table();
        rope.grow_to(count);
        let mut states = vec![0.0; (config.layers.len() + 1) * count * dim];
        let mut blocks = BlockWorkspace::default();
        for (chunk, ids) in tokens.chunks(self.pass_rows()).enumerate() {
            let first = chunk * self.pass_rows();
            let positions: Vec<u32> = (first as u32..).take(ids.len()).collect();
            let (threads, products) = (self.threads(), self.model().products());
            let pass = Pass { threads, config, rope: &rope, positions: &positions, changes: &[], products };
            let rows = first..first + ids.len();
            let mut buffers = Observed { blocks: &mut blocks, sequence: &mut sequence, rows, states: &mut states };
            let Ok(()) = forward(&pass, &**self.model(), ids, &mut buffers);
        }
        let (norm, _) = self.model().norm_and_head();
        let last = &mut states[config.layers.len() * count * dim..];
        let stream = last.to_vec();
        norm.forward(self.threads(), last, &stream);
        Ok(states)
    }
}

/// Buffers of a pass over the next rows of a sequence, that keep the residual stream.
struct Observed<'a> {
    blocks: &'a mut BlockWorkspace,
    sequence: &'a mut Sequence,
    /// The rows of this pass among all tokens.
    rows: Range<usize>,
    /// `[layers + 1, tokens, dim]`.
    states: &'a mut [f32],
}

impl Observed<'_> {
    fn keep(&mut self, layer: usize) {
        let stream = self.blocks.stream(layer);
        let (dim, size) = (stream.len() / self.rows.len(), self.states.len() / (self.sequence.layers.len() + 1));
        self.states[layer * size + self.rows.start * dim..][..stream.len()].copy_from_slice(stream);
    }
}

impl Buffers for Observed<'_> {
    fn embeddings(&mut self) -> &mut Vec<f32> {
        self.blocks.embeddings()
    }

    fn layer(&mut self, index: usize) -> BlockBuffers<'_> {
        if index == 0 {
            self.keep(0);
        }
        let cache = (&mut self.sequence.layers[index], self.rows.len());
        self.blocks.layer(index, KeysAndValues::Cached(vec![cache]))
    }

    fn computed(&mut self, index: usize) {
        self.keep(index + 1);
    }
}

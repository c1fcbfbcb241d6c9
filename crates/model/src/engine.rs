//! A model at work on many sequences.
//!
//! ```text
//! feeds: (sequence, tokens, which rows' logits) ... ── passes of at most a few hundred rows ──> blocks ──> wanted rows ──> logits
//! ```
//!
//! The logits of a token are the same to the bit however its prompt was cut into passes, whatever other sequences share a
//! pass, and whether its prefix was computed or shared: each operation forms the sums of a row in one order, whatever the
//! number of rows. Batching, forking and reuse of prefixes are exact.

use std::sync::{Arc, Mutex, PoisonError};

use openelm_kernels::attention::{CacheType, KvCache};
use openelm_kernels::rope::RopeTable;
use openelm_kernels::{Input, Threads};

use crate::adapter::AdapterWeights;
use crate::block::{Activations, BlockBuffers, KeysAndValues, Pass};
use crate::config::{LayerConfig, ModelConfig};
use crate::forward::{Buffers, forward};
use crate::layout::{Role, Site};
use crate::linear::{Change, Deltas, Linear, LinearScratch};
use crate::model::Model;
use crate::sequence::Sequence;

/// Rows of a pass, which bounds the memory for activations: more of them share the reading of weights in floats, fewer keep
/// the buffers small beside quantised weights.
pub(crate) fn pass_rows(config: &ModelConfig, weight_bytes: usize) -> usize {
    let quantised = weight_bytes / 2 < config.parameters();
    if quantised { 256 } else { 512 }
}

/// Rows that are projected to logits together.
pub(crate) const LOGITS_ROWS: usize = 64;

/// Tokens that an engine cannot take.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EngineError {
    /// A token id that the vocabulary does not have.
    #[error("token id {id} is out of range: the model's vocabulary has {vocabulary} tokens")]
    Id {
        /// The id.
        id: u32,
        /// Rows of the embedding table.
        vocabulary: usize,
    },
    /// More tokens than the sequence may have.
    #[error("{tokens} tokens do not fit the context of {limit}; shorten the prompt or allow a longer context")]
    ContextFull {
        /// Tokens that there would be.
        tokens: usize,
        /// Tokens that the sequence was made for.
        limit: usize,
    },
    /// Logits are wanted, but there is no token that they would follow.
    #[error("there is no token to start from; the prompt needs at least one")]
    Empty,
    /// Logits are wanted of a row that was not fed.
    #[error("logits of row {row} are wanted, but only {rows} tokens are fed")]
    Row {
        /// The row.
        row: usize,
        /// Tokens fed.
        rows: usize,
    },
    /// A sequence that another engine made, for a model of another geometry or with another kind of cache.
    #[error("the sequence was made by an engine with another model or another kind of cache")]
    Foreign,
}

/// The rows of a feed whose logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows<'a> {
    /// None: the tokens are taken in for later.
    None,
    /// The last one: what follows the sequence.
    Last,
    /// Those of all tokens fed.
    All,
    /// Some, in ascending order, counted from the first token fed.
    Some(&'a [usize]),
}

/// Tokens for a sequence.
pub struct Feed<'a> {
    /// The sequence that they are appended to. Tokens of it that were not computed yet are computed before them.
    pub sequence: &'a mut Sequence,
    /// The tokens; may be empty where others still wait to be computed.
    pub tokens: &'a [u32],
    /// The logits wanted.
    pub logits: Rows<'a>,
}

/// The logits that a step gave.
#[derive(Debug, Default)]
pub struct Logits {
    vocabulary: usize,
    values: Vec<f32>,
    /// Behind the last row of each feed.
    ends: Vec<usize>,
}

impl Logits {
    /// The rows of all feeds, `[rows, vocabulary]`.
    pub fn into_values(self) -> Vec<f32> {
        self.values
    }

    /// The rows of a feed, `[rows, vocabulary]`; empty if none were wanted.
    pub fn of(&self, feed: usize) -> &[f32] {
        let start = if feed == 0 { 0 } else { self.ends[feed - 1] };
        &self.values[start * self.vocabulary..self.ends[feed] * self.vocabulary]
    }
}

/// A model, the threads it runs on and the memory of a pass. Sessions share one; steps take turns.
///
/// ```
/// # use std::collections::HashMap;
/// use openelm_model::{Engine, Feed, Geometry, Logits, Model, Rows, Tensor, tensor_specs};
/// use openelm_model::kernels::Threads;
///
/// let config = Geometry { layers: 2, dim: 64, head_dim: 16, gqa_groups: 2, ..Geometry::default() }.build(100)?;
/// let mut tensors = HashMap::new();
/// for spec in tensor_specs(&config) {
///     let values = (0..spec.len()).map(|i| (i as f32).sin()).collect();
///     tensors.insert(spec.name, Tensor::from_f32(spec.shape, values)?);
/// }
/// let engine = Engine::new(Model::new(config, tensors)?, Threads::new(2));
/// let mut first = engine.sequence(2048);
/// let mut logits = Logits::default();
/// let feed = Feed { sequence: &mut first, tokens: &[1, 5, 7], logits: Rows::Last };
/// engine.step(&mut [feed], &mut logits)?;
/// assert_eq!(logits.of(0).len(), 100);
///
/// // Another continuation of the same beginning, in one pass with the first one.
/// let mut second = first.clone();
/// let feed = |sequence, tokens| Feed { sequence, tokens, logits: Rows::Last };
/// engine.step(&mut [feed(&mut first, &[8]), feed(&mut second, &[9])], &mut logits)?;
/// assert_eq!(second.tokens(), [1, 5, 7, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    model: Arc<Model>,
    threads: Threads,
    cache_type: CacheType,
    rows: usize,
    workspace: Mutex<Workspace>,
}

/// Buffers that are kept from pass to pass.
struct Workspace {
    rope: RopeTable,
    ids: Vec<u32>,
    positions: Vec<u32>,
    blocks: BlockWorkspace,
    /// Rows of the residual stream whose logits are wanted, `[rows, dim]`.
    selected: Vec<f32>,
}

/// Buffers of the blocks: one set serves all layers.
#[derive(Default)]
pub struct BlockWorkspace {
    /// The residual stream before and behind a block, `[N, dim]`.
    streams: [Vec<f32>; 2],
    kept: Activations,
    scratch: LinearScratch,
}

impl BlockWorkspace {
    /// The residual stream before the layer `index`, `[N, dim]`; behind the last one if there are `index` layers.
    pub fn stream(&self, index: usize) -> &[f32] {
        &self.streams[index % 2]
    }

    /// The buffers of the layer `index`, with `keys_and_values`.
    pub fn layer<'a>(&'a mut self, index: usize, keys_and_values: KeysAndValues<'a>) -> BlockBuffers<'a> {
        let Self { streams: [even, odd], kept, scratch } = self;
        let (x, out) = if index.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        BlockBuffers { x, out, kept, scratch, keys_and_values }
    }

    /// Where the embeddings go.
    pub fn embeddings(&mut self) -> &mut Vec<f32> {
        &mut self.streams[0]
    }
}

/// Some rows of a pass that belong to one feed, which are the next of its sequence.
#[derive(Clone, Copy)]
struct Part {
    feed: usize,
    /// Their position in the sequence.
    position: usize,
    rows: usize,
}

impl Engine {
    /// An engine for `model` with keys and values in `f32`.
    pub fn new(model: impl Into<Arc<Model>>, threads: Threads) -> Self {
        let model = model.into();
        let config = model.config();
        let workspace = Workspace {
            rope: config.rope_table(),
            ids: Vec::new(),
            positions: Vec::new(),
            blocks: BlockWorkspace::default(),
            selected: Vec::new(),
        };
        let rows = pass_rows(config, model.weight_bytes());
        Self { model, threads, cache_type: CacheType::default(), rows, workspace: Mutex::new(workspace) }
    }

    /// The same engine, which stores keys and values as `cache_type`.
    #[must_use]
    pub fn with_cache(self, cache_type: CacheType) -> Self {
        Self { cache_type, ..self }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The threads that steps run on.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Rows of a pass.
    pub(crate) fn pass_rows(&self) -> usize {
        self.rows
    }

    /// An empty sequence of at most `limit` tokens. Beyond the context that the model was trained with it works, but the
    /// model has never seen such positions.
    pub fn sequence(&self, limit: usize) -> Sequence {
        Sequence::new(self.model.config(), self.cache_type, limit)
    }

    /// An empty sequence that `adapter` changes.
    ///
    /// # Errors
    /// If the adapter was made for a model of another geometry.
    pub fn adapted_sequence(&self, limit: usize, adapter: Arc<AdapterWeights>) -> Result<Sequence, EngineError> {
        if !adapter.fits(self.model.config()) {
            return Err(EngineError::Foreign);
        }
        Ok(Sequence { adapter: Some(adapter), ..self.sequence(limit) })
    }

    /// Takes in the tokens of all `feeds`, each of another sequence, and leaves the logits wanted in `logits`.
    ///
    /// # Errors
    /// See [`EngineError`]; all sequences are then as they were.
    pub fn step(&self, feeds: &mut [Feed<'_>], logits: &mut Logits) -> Result<(), EngineError> {
        for feed in feeds.iter() {
            self.check(feed)?;
        }
        for Feed { sequence, tokens, .. } in feeds.iter_mut() {
            sequence.tokens.extend_from_slice(tokens);
            // A pass that ended in a panic may have left some layers longer than others.
            let computed = sequence.computed();
            sequence.layers.iter_mut().for_each(|layer| layer.truncate(computed));
        }
        logits.vocabulary = self.model.config().vocab_size;
        logits.values.clear();
        logits.ends.clear();
        // Each pass fills its buffers anew, whatever a panic in another left there.
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut next, mut parts) = (0, Vec::new());
        while next < feeds.len() {
            parts.clear();
            let mut free = self.rows;
            while next < feeds.len() && free > 0 {
                let sequence = &feeds[next].sequence;
                let position = sequence.computed();
                let rows = free.min(sequence.len() - position);
                parts.push(Part { feed: next, position, rows });
                free -= rows;
                if position + rows < sequence.len() {
                    break;
                }
                next += 1;
            }
            if free == self.rows {
                // Feeds without a token, that wait for none.
                logits.ends.resize(next, logits.values.len() / logits.vocabulary);
            } else {
                self.pass(&mut workspace, feeds, &parts, logits);
            }
        }
        Ok(())
    }

    fn check(&self, feed: &Feed<'_>) -> Result<(), EngineError> {
        let Feed { sequence, tokens, logits } = feed;
        let config = self.model.config();
        let fits = |(cache, layer): (&KvCache, &LayerConfig)| {
            (cache.cache_type(), cache.kv_heads(), cache.head_dim())
                == (self.cache_type, layer.kv_heads, config.head_dim)
        };
        if sequence.layers.len() != config.layers.len() || !sequence.layers.iter().zip(&config.layers).all(fits) {
            return Err(EngineError::Foreign);
        }
        sequence.check(tokens, config.vocab_size)?;
        match logits {
            Rows::Last if sequence.computed() == sequence.len() && tokens.is_empty() => Err(EngineError::Empty),
            Rows::Some(rows) => match rows.iter().find(|&&row| row >= tokens.len()) {
                Some(&row) => Err(EngineError::Row { row, rows: tokens.len() }),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Runs some rows of some feeds through the model and appends the logits wanted.
    fn pass(&self, workspace: &mut Workspace, feeds: &mut [Feed<'_>], parts: &[Part], logits: &mut Logits) {
        let Workspace { rope, ids, positions, blocks, selected } = workspace;
        let config = self.model.config();
        let dim = config.model_dim;
        ids.clear();
        positions.clear();
        selected.clear();
        let mut adapters = Vec::new();
        for &Part { feed, position, rows } in parts {
            let sequence = &feeds[feed].sequence;
            if let Some(adapter) = sequence.adapter.as_ref().filter(|_| rows > 0) {
                adapters.push((ids.len(), ids.len() + rows, adapter.clone()));
            }
            ids.extend_from_slice(&sequence.tokens[position..position + rows]);
            positions.extend(position as u32..(position + rows) as u32);
        }
        rope.grow_to(positions.iter().max().map_or(0, |&last| last as usize + 1));
        let deltas: Vec<Deltas<'_>> = adapters.iter().map(|(.., adapter)| adapter.deltas()).collect();
        let change = |((start, end, _), deltas)| Change { start, end, deltas };
        let changes: Vec<Change<'_>> =
            adapters.iter().map(|&(start, end, _)| (start, end, ())).zip(&deltas).map(change).collect();
        let products = self.model.products();
        let pass = Pass { threads: &self.threads, config, rope, positions, changes: &changes, products };

        let mut sequences = Vec::with_capacity(parts.len());
        let mut rest = &mut *feeds;
        let mut first = 0;
        for part in parts {
            let (feed, behind) = std::mem::take(&mut rest)[part.feed - first..]
                .split_first_mut()
                .unwrap_or_else(|| unreachable!("a part is of a feed"));
            if part.rows > 0 {
                sequences.push((&mut feed.sequence.layers[..], part.rows));
            }
            (rest, first) = (behind, part.feed + 1);
        }
        let Ok(()) = forward(&pass, &*self.model, ids, &mut CachedBuffers { blocks, sequences });

        // Rows that are not wanted are not projected.
        let stream = blocks.stream(config.layers.len());
        let mut selected_changes: Vec<Change<'_>> = Vec::new();
        let mut start = 0;
        for &Part { feed, position, rows } in parts {
            let before = selected.len() / dim;
            for row in (0..rows).filter(|row| feeds[feed].wants(position + row)) {
                selected.extend_from_slice(&stream[(start + row) * dim..][..dim]);
            }
            let rows_here = before..selected.len() / dim;
            selected_changes.extend(changes.iter().filter(|change| change.start == start).map(|change| Change {
                start: rows_here.start,
                end: rows_here.end,
                ..*change
            }));
            start += rows;
            if position + rows == feeds[feed].sequence.len() {
                let wanted = logits.values.len() / logits.vocabulary + rows_here.end;
                logits.ends.push(wanted);
            }
        }
        self.project(&mut blocks.scratch, selected, &selected_changes, logits);
    }

    /// Appends the logits of `rows`, `[rows, dim]`.
    fn project(&self, scratch: &mut LinearScratch, rows: &[f32], changes: &[Change<'_>], logits: &mut Logits) {
        let config = self.model.config();
        let first = logits.values.len();
        logits.values.resize(first + rows.len() / config.model_dim * config.vocab_size, 0.0);
        let (norm, head) = self.model.norm_and_head();
        for (chunk, (x, out)) in rows
            .chunks(LOGITS_ROWS * config.model_dim)
            .zip(logits.values[first..].chunks_mut(LOGITS_ROWS * config.vocab_size))
            .enumerate()
        {
            let here = chunk * LOGITS_ROWS..chunk * LOGITS_ROWS + x.len() / config.model_dim;
            let changes: Vec<Change<'_>> = changes.iter().filter_map(|change| change.within(here.clone())).collect();
            let products = self.model.products();
            let linear = Linear { matrix: head, site: Site::outside(Role::Head), changes: &changes, products };
            linear.forward(&self.threads, out, Input::Normed { x, norm }, scratch, false);
        }
    }
}

impl Feed<'_> {
    /// Whether the logits of the token at `position` of the sequence, which has the tokens fed, are wanted.
    fn wants(&self, position: usize) -> bool {
        let first = self.sequence.len() - self.tokens.len();
        match self.logits {
            Rows::None => false,
            Rows::Last => position + 1 == self.sequence.len(),
            Rows::All => position >= first,
            Rows::Some(rows) => position >= first && rows.contains(&(position - first)),
        }
    }
}

/// The buffers of a pass over sequences with caches.
struct CachedBuffers<'a> {
    blocks: &'a mut BlockWorkspace,
    /// The layers of each sequence, and how many rows are its.
    sequences: Vec<(&'a mut [KvCache], usize)>,
}

impl Buffers for CachedBuffers<'_> {
    fn embeddings(&mut self) -> &mut Vec<f32> {
        self.blocks.embeddings()
    }

    fn layer(&mut self, index: usize) -> BlockBuffers<'_> {
        let caches = self.sequences.iter_mut().map(|(layers, rows)| (&mut layers[index], *rows)).collect();
        self.blocks.layer(index, KeysAndValues::Cached(caches))
    }
}

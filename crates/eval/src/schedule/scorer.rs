//! Waves of branches over the engine's sequences.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openelm_kernels::cross_entropy::{Row, rows};
use openelm_model::{AdapterWeights, Engine, Feed, Logits, Rows, Sequence};

use super::tree::{Branch, Tree};
use crate::EvalError;
use crate::metrics::Outcome;
use crate::request::Query;

/// Tokens of a wave: what they leave in caches is in memory together.
const WAVE: usize = 4096;
/// Logits in memory together.
const LOGITS: usize = 1 << 24;
/// Most rows of logits that a step gives; what more there could be would share no more of the reading of weights.
const ROWS: usize = 512;

/// Scores queries.
pub struct Scorer {
    engine: Engine,
    adapter: Option<Arc<AdapterWeights>>,
    context: usize,
    rows: usize,
    logits: Logits,
    /// Tokens that went through the model.
    computed: usize,
}

/// Tokens whose keys and values can be in memory together where a sequence has `context` at most.
pub fn tokens_in_memory(context: usize) -> usize {
    WAVE + 2 * context
}

/// What is known of a query so far.
#[derive(Clone, Copy)]
struct Partial {
    outcome: Outcome,
    /// Tokens still to be scored.
    left: usize,
}

/// The queries of a call, and what is known of them.
struct Work<'a> {
    queries: &'a [Query],
    order: Vec<usize>,
    partial: Vec<Partial>,
    stop: &'a AtomicBool,
    /// Told of each query that is done, and of how many tokens are.
    done: &'a mut dyn FnMut(Done),
    tokens: usize,
}

/// What is told on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Done {
    /// A query, by its place, is scored.
    Query(usize, Outcome),
    /// So many of all tokens went through the model.
    Tokens {
        /// Tokens that did.
        done: usize,
        /// Tokens in all.
        of: usize,
    },
}

/// A branch whose turn it is, with what was computed before it.
struct Turn<'t> {
    sequence: Sequence,
    branch: &'t Branch,
}

impl Scorer {
    /// A scorer on `engine`, with `adapter` at work if there is one, for queries of at most `context` tokens and one more.
    pub fn new(engine: Engine, adapter: Option<Arc<AdapterWeights>>, context: usize) -> Self {
        let rows = (LOGITS / engine.model().config().vocab_size).clamp(64, ROWS);
        Self { engine, adapter, context, rows, logits: Logits::default(), computed: 0 }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Tokens that went through the model so far; what is shared counts once.
    pub fn computed(&self) -> usize {
        self.computed
    }

    /// Scores `queries`, and tells `done` of each as soon as it is. Equal ones are computed once.
    ///
    /// # Errors
    /// If a token is out of range, logits are not finite, or `stop` is raised: [`EvalError::Stopped`]. What was told stays true.
    pub fn score(&mut self, queries: &[Query], stop: &AtomicBool, done: &mut dyn FnMut(Done)) -> Result<(), EvalError> {
        let Tree { order, branches } = Tree::new(queries);
        let begin =
            |query: &Query| Partial { outcome: Outcome { log_likelihood: 0.0, greedy: true }, left: query.scored };
        let partial = queries.iter().map(begin).collect();
        let tokens = branches.iter().map(|branch| branch.cost).sum();
        let mut work = Work { queries, order, partial, stop, done, tokens };
        let before = std::mem::take(&mut self.computed);
        let root = match &self.adapter {
            Some(adapter) => self.engine.adapted_sequence(self.context, adapter.clone())?,
            None => self.engine.sequence(self.context),
        };
        let result = self.branches(&root, &branches, &mut work);
        self.computed += before;
        result
    }

    /// Computes `branches` behind `parent`, as many at a time as make a wave. One that is too large for that goes first alone.
    fn branches(&mut self, parent: &Sequence, branches: &[Branch], work: &mut Work<'_>) -> Result<(), EvalError> {
        let (mut wave, mut cost) = (Vec::new(), 0);
        for branch in branches {
            if branch.cost > WAVE && !branch.branches.is_empty() {
                let mut alone = [Turn { sequence: parent.clone(), branch }];
                self.level(&mut alone, work)?;
                self.branches(&alone[0].sequence, &branch.branches, work)?;
                continue;
            }
            if cost + branch.cost > WAVE && !wave.is_empty() {
                self.wave(std::mem::take(&mut wave), work)?;
                cost = 0;
            }
            wave.push(Turn { sequence: parent.clone(), branch });
            cost += branch.cost;
        }
        self.wave(wave, work)
    }

    /// Computes whole branches, level by level.
    fn wave(&mut self, mut level: Vec<Turn<'_>>, work: &mut Work<'_>) -> Result<(), EvalError> {
        while !level.is_empty() {
            self.level(&mut level, work)?;
            let mut next = Vec::new();
            for Turn { sequence, branch } in level {
                next.extend(branch.branches.iter().map(|branch| Turn { sequence: sequence.clone(), branch }));
            }
            level = next;
        }
        Ok(())
    }

    /// Computes the tokens of some branches, in steps that give no more rows of logits than there is memory for.
    fn level(&mut self, turns: &mut [Turn<'_>], work: &mut Work<'_>) -> Result<(), EvalError> {
        let mut start = 0;
        while start < turns.len() {
            let (mut end, mut wanted) = (start, 0);
            while end < turns.len() && (end == start || wanted + work.wanted(turns[end].branch).len() <= self.rows) {
                wanted += work.wanted(turns[end].branch).len();
                end += 1;
            }
            let turns = &mut turns[start..end];
            match turns {
                [turn] if wanted > self.rows => {
                    for tokens in pieces(&turn.branch.tokens, &work.wanted(turn.branch), self.rows) {
                        self.step(std::slice::from_mut(turn), Some(tokens), work)?;
                    }
                }
                turns => self.step(turns, None, work)?,
            }
            start = end;
        }
        Ok(())
    }

    /// One step of the engine over the tokens of some branches, or over a piece of those of one.
    fn step(
        &mut self,
        turns: &mut [Turn<'_>],
        piece: Option<std::ops::Range<usize>>,
        work: &mut Work<'_>,
    ) -> Result<(), EvalError> {
        if work.stop.load(Ordering::SeqCst) {
            return Err(EvalError::Stopped);
        }
        let of = |turn: &Turn<'_>| piece.clone().unwrap_or_else(|| turn.branch.tokens.clone());
        let positions: Vec<Vec<usize>> = turns
            .iter()
            .map(|turn| {
                let tokens = of(turn);
                work.wanted(turn.branch).into_iter().filter(|position| tokens.contains(position)).collect()
            })
            .collect();
        let relative: Vec<Vec<usize>> = turns
            .iter()
            .zip(&positions)
            .map(|(turn, positions)| positions.iter().map(|position| position - of(turn).start).collect())
            .collect();
        let mut feeds: Vec<Feed<'_>> = Vec::with_capacity(turns.len());
        for (turn, rows) in turns.iter_mut().zip(&relative) {
            let tokens = of(turn);
            self.computed += tokens.len();
            let query = &work.queries[work.order[turn.branch.queries.start]];
            feeds.push(Feed { sequence: &mut turn.sequence, tokens: &query.tokens[tokens], logits: Rows::Some(rows) });
        }
        self.engine.step(&mut feeds, &mut self.logits)?;
        drop(feeds);
        let vocabulary = self.engine.model().config().vocab_size;
        for (feed, (turn, positions)) in turns.iter().zip(&positions).enumerate() {
            let logits = self.logits.of(feed);
            let summaries = rows(self.engine.threads(), logits, vocabulary);
            if summaries.iter().any(|row| !row.is_finite()) {
                return Err(EvalError::NotFinite);
            }
            work.take_in(turn.branch, positions, logits.chunks(vocabulary), &summaries);
        }
        (work.done)(Done::Tokens { done: self.computed, of: work.tokens });
        Ok(())
    }
}

impl Work<'_> {
    /// The positions that `query` is scored from: each says what it thinks of the next token.
    fn scored(&self, query: usize) -> std::ops::Range<usize> {
        let Query { tokens, scored } = &self.queries[query];
        tokens.len() - 1 - scored..tokens.len() - 1
    }

    /// The positions of `branch` whose logits some query wants, in ascending order.
    fn wanted(&self, branch: &Branch) -> Vec<usize> {
        let first = self.order[branch.queries.clone()].iter().map(|&query| self.scored(query).start).min();
        let mut wanted: Vec<bool> = vec![false; branch.tokens.len()];
        if first.is_some_and(|first| first < branch.tokens.end) {
            for &query in &self.order[branch.queries.clone()] {
                let scored = self.scored(query);
                let (start, end) = (scored.start.max(branch.tokens.start), scored.end.min(branch.tokens.end));
                (start..end).for_each(|position| wanted[position - branch.tokens.start] = true);
            }
        }
        branch.tokens.clone().zip(wanted).filter(|(_, wanted)| *wanted).map(|(position, _)| position).collect()
    }

    /// Adds what the rows of logits at `positions` say of the queries of `branch`.
    fn take_in<'l>(
        &mut self,
        branch: &Branch,
        positions: &[usize],
        logits: impl Iterator<Item = &'l [f32]>,
        summaries: &[Row],
    ) {
        for ((&position, logits), row) in positions.iter().zip(logits).zip(summaries) {
            for place in branch.queries.clone() {
                let query = self.order[place];
                if !self.scored(query).contains(&position) {
                    continue;
                }
                let target = self.queries[query].tokens[position + 1] as usize;
                let Partial { outcome, left } = &mut self.partial[query];
                outcome.log_likelihood += f64::from(logits[target]) - row.log_partition;
                outcome.greedy &= row.argmax == target;
                *left -= 1;
                if *left == 0 {
                    (self.done)(Done::Query(query, *outcome));
                }
            }
        }
    }
}

/// `tokens` cut so that each piece has at most `rows` of the `wanted` positions.
fn pieces(tokens: &std::ops::Range<usize>, wanted: &[usize], rows: usize) -> Vec<std::ops::Range<usize>> {
    let mut ends: Vec<usize> = wanted.chunks(rows).map(|chunk| chunk[chunk.len() - 1] + 1).collect();
    if let Some(last) = ends.last_mut() {
        *last = tokens.end;
    }
    let starts = std::iter::once(tokens.start).chain(ends.iter().copied());
    starts.zip(ends.iter().copied()).map(|(start, end)| start..end).collect()
}

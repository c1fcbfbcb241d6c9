//! Attention over blocks of keys with a running softmax.
//!
//! Keys are met in spans of [`SPAN`] positions, counted from the beginning of the sequence: each row gathers a span by
//! itself and then adds it to what it has. A row's sums therefore have one order, whether it is one of many of a prompt or
//! alone in a decode step, whose spans are shared out among the threads, and whatever other rows share the pass.

use std::cell::RefCell;
use std::ops::Range;

use half::f16;

use super::cache::{CacheElement, CacheType, KvCache};
use super::running::Running;
use super::source::{Cached, Projected, Tiles};
use super::{Inputs, KEYS, Shape, scale};
use crate::cache_line::CacheLine;
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::simd;
use crate::threads::Chunks;
use crate::{Heads, Threads};

/// Rows of queries (of all heads of a group) that a task leads past the keys.
const TASK_ROWS: usize = 256;
/// Up to this many rows, spans are shared out among the tasks, and what is not `f32` is widened row by row in registers.
const FEW_ROWS: usize = 16;
/// Keys whose sums are formed apart.
const SPAN: usize = 4 * KEYS;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// The tasks of a pass, and what those of single spans have gathered until it is merged.
    static TASKS: RefCell<(Vec<Task>, Vec<f32>)> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    running: Vec<f32>,
    span: Vec<f32>,
    buffers: Buffers,
}

#[derive(Default)]
struct Buffers {
    /// Scaled queries, `[rows, head_dim]`.
    queries: Vec<f32>,
    /// A tile laid out, and a tile widened.
    tile: Vec<CacheLine>,
    wide: Vec<CacheLine>,
}

/// `out = softmax(q k^T / sqrt(d)) v`, causal, of whole sequences.
///
/// `out` is like the queries; `log_sums`, `[sequences * time, query_heads]`, receives the logarithm of each softmax's
/// denominator, which [`super::backward`] needs.
pub fn forward(threads: &Threads, out: &mut [f32], log_sums: &mut [f32], inputs: Inputs<'_>) {
    let Inputs { q, k, v, document_starts, shape: Shape { sequences, time, heads } } = inputs;
    assert_eq!(log_sums.len() * heads.head_dim, q.len(), "log_sums do not fit {heads:?}");
    if let Some(starts) = document_starts {
        check_starts(starts, inputs.shape);
    }
    let output = Output { out: Chunks::new(out, 1), log_sums: Some(Chunks::new(log_sums, 1)) };
    let sequence = |s: usize| Sequence { first_row: s * time, queries: time, keys: time };
    let source = Projected { k, v, time, head_dim: heads.head_dim };
    Pass { q, output, starts: document_starts, heads, source: &source }.run(threads, (0..sequences).map(sequence));
}

/// A query that saw no key would have no softmax, and a start before the last one no gradient.
fn check_starts(starts: &[u32], shape: Shape) {
    assert_eq!(starts.len(), shape.sequences * shape.time, "starts do not fit {shape:?}");
    for starts in starts.chunks(shape.time.max(1)) {
        assert!(starts.is_sorted(), "a start lies before the one of the query before");
        assert!((0..).zip(starts).all(|(position, &start)| start <= position), "a start lies behind its query");
    }
}

/// `out = softmax(q k^T / sqrt(d)) v`, causal, of the last tokens of some sequences.
///
/// `q` and `out` are `[queries, query_heads * head_dim]` with the queries of one sequence behind those of another;
/// `sequences` holds each one's cache, the last keys and values of which are those of the queries' own positions, and how many
/// queries it has. The caches are all of one kind.
pub fn cached(threads: &Threads, out: &mut [f32], q: &[f32], query_heads: usize, sequences: &[(&KvCache, usize)]) {
    let Some((cache, _)) = sequences.first() else { return };
    let heads = Heads { query_heads, kv_heads: cache.kv_heads(), head_dim: cache.head_dim() };
    let same = |other: &KvCache| {
        (other.cache_type(), other.kv_heads(), other.head_dim())
            == (cache.cache_type(), cache.kv_heads(), cache.head_dim())
    };
    assert!(sequences.iter().all(|(other, _)| same(other)), "the caches differ in kind");
    let output = Output { out: Chunks::new(out, 1), log_sums: None };
    match cache.cache_type() {
        CacheType::F32 => cached_as::<f32>(threads, output, q, heads, sequences),
        CacheType::F16 => cached_as::<f16>(threads, output, q, heads, sequences),
        CacheType::Int8 => cached_as::<i8>(threads, output, q, heads, sequences),
    }
}

fn cached_as<T: CacheElement>(
    threads: &Threads,
    output: Output,
    q: &[f32],
    heads: Heads,
    sequences: &[(&KvCache, usize)],
) {
    let mut next = 0;
    let places = sequences.iter().map(|&(cache, queries)| {
        let first_row = next;
        next += queries;
        Sequence { first_row, queries, keys: cache.len() }
    });
    let source = Cached::<T>::new(sequences);
    Pass { q, output, starts: None, heads, source: &source }.run(threads, places);
}

/// The queries of one sequence: the last `queries` of `keys` positions, from row `first_row` on.
#[derive(Clone, Copy)]
struct Sequence {
    first_row: usize,
    queries: usize,
    keys: usize,
}

/// What is the same for all tasks.
struct Pass<'a, S> {
    q: &'a [f32],
    output: Output,
    starts: Option<&'a [u32]>,
    heads: Heads,
    source: &'a S,
}

/// Some queries of the query heads that share a key/value head.
#[derive(Clone)]
struct Queries {
    sequence: usize,
    of: Sequence,
    /// The key/value head.
    head: usize,
    queries: Range<usize>,
}

impl Queries {
    /// The position of a query among the keys.
    #[inline(always)]
    fn position(&self, query: usize) -> usize {
        self.of.keys - self.of.queries + query
    }
}

struct Task {
    place: Queries,
    /// The one span to gather, and where; without one the task meets all keys and finishes its queries.
    span: Option<(Range<usize>, usize)>,
}

impl<S: Tiles> Pass<'_, S> {
    fn run(&self, threads: &Threads, sequences: impl Iterator<Item = Sequence>) {
        TASKS.with_borrow_mut(|(tasks, gathered)| {
            tasks.clear();
            let (mut rows, mut length, mut most) = (0, 0, 0);
            for (sequence, of) in sequences.enumerate() {
                assert!(of.keys >= of.queries, "more queries than keys");
                rows += of.queries;
                most = most.max(of.keys);
                self.add_tasks(tasks, sequence, of, &mut length);
            }
            assert_eq!(self.q.len(), rows * self.heads.query_dim(), "q does not fit {:?}", self.heads);
            assert_eq!(self.output.out.total(), self.q.len(), "out does not fit q");
            gathered.resize(gathered.len().max(length), 0.0);
            // One block of keys of a sequence is not worth waking a thread for.
            let alone = Threads::single();
            let few = rows * self.heads.group() <= FEW_ROWS && most <= KEYS;
            let shared = Chunks::new(gathered, 1);
            (if few { &alone } else { threads }).run(tasks.len(), |task| self.task(&tasks[task], &shared));
            self.merge(tasks, &shared);
        });
    }

    /// The tasks of one sequence; `length` counts the elements that single spans gather.
    fn add_tasks(&self, tasks: &mut Vec<Task>, sequence: usize, of: Sequence, length: &mut usize) {
        let Heads { kv_heads, head_dim, .. } = self.heads;
        let rows = of.queries * self.heads.group();
        if rows <= FEW_ROWS && of.keys > SPAN && self.starts.is_none() {
            for head in 0..kv_heads {
                for first in (0..of.keys).step_by(SPAN) {
                    let place = Queries { sequence, of, head, queries: 0..of.queries };
                    tasks.push(Task { place, span: Some((first..of.keys.min(first + SPAN), *length)) });
                    *length += Running::length(rows, head_dim);
                }
            }
            return;
        }
        let task_queries = (TASK_ROWS / self.heads.group()).max(1);
        for head in 0..kv_heads {
            // The last queries see the most keys: they go first, so that the threads end together.
            for first in (0..of.queries).step_by(task_queries).rev() {
                let queries = first..of.queries.min(first + task_queries);
                tasks.push(Task { place: Queries { sequence, of, head, queries }, span: None });
            }
        }
    }

    fn task(&self, task: &Task, gathered: &Chunks<f32>) {
        let place = &task.place;
        let (rows, d) = (place.queries.len() * self.heads.group(), self.heads.head_dim);
        let length = Running::length(rows, d);
        SCRATCH.with_borrow_mut(|Scratch { running, span, buffers }| {
            self.gather(&mut buffers.queries, place);
            if let Some((keys, start)) = &task.span {
                // SAFETY: each task has a place of its own there.
                let running = unsafe { gathered.slice(*start, length) };
                self.attend(buffers, &mut Running::start(running, rows), place, keys.clone());
                return;
            }
            running.resize(length, 0.0);
            span.resize(length, 0.0);
            let end = place.position(place.queries.end);
            let start = self.start(place, place.queries.start);
            let first = start / SPAN * SPAN;
            let mut running = Running::start(running, rows);
            self.attend(buffers, &mut running, place, start..end.min(first + SPAN));
            for first in (first + SPAN..end).step_by(SPAN) {
                let mut span = Running::start(span, rows);
                self.attend(buffers, &mut span, place, first..end.min(first + SPAN));
                merge(&mut running, &span);
            }
            self.finish(place, &running);
        });
    }

    /// Puts together what the tasks of single spans have gathered.
    fn merge(&self, tasks: &[Task], gathered: &Chunks<f32>) {
        let single = |task: &Task| task.span.is_some();
        for spans in tasks.chunk_by(|a, b| single(a) && b.span.as_ref().is_some_and(|(keys, _)| keys.start > 0)) {
            let rows = spans[0].place.queries.len() * self.heads.group();
            let length = Running::length(rows, self.heads.head_dim);
            let mut spans = spans.iter().filter_map(|task| {
                let (_, start) = task.span.as_ref()?;
                // SAFETY: the tasks are done, and each had a place of its own.
                Some((&task.place, Running::view(unsafe { gathered.slice(*start, length) }, rows)))
            });
            let Some((place, mut running)) = spans.next() else { continue };
            for (_, span) in spans {
                merge(&mut running, &span);
            }
            self.finish(place, &running);
        }
    }

    /// The first key that a query sees.
    #[inline(always)]
    fn start(&self, place: &Queries, query: usize) -> usize {
        self.starts.map_or(0, |starts| starts[place.of.first_row + query] as usize)
    }

    /// Copies the queries of `place` as `[queries * group, head_dim]` (the heads of a query side by side), scaled.
    fn gather(&self, target: &mut Vec<f32>, place: &Queries) {
        let (width, factor) = (self.heads.group() * self.heads.head_dim, scale(self.heads));
        target.clear();
        for query in place.queries.clone() {
            let row = place.of.first_row + query;
            let source = &self.q[row * self.heads.query_dim() + place.head * width..][..width];
            target.extend(source.iter().map(|x| x * factor));
        }
    }

    /// Leads the gathered queries of `place` past the blocks of keys that `keys` touches.
    fn attend(&self, buffers: &mut Buffers, running: &mut Running<'_>, place: &Queries, keys: Range<usize>) {
        dispatch(Passage { buffers, running, place, keys, pass: self });
    }

    /// Writes what the queries of `place` have gathered.
    fn finish(&self, place: &Queries, running: &Running<'_>) {
        let Heads { query_heads, head_dim, .. } = self.heads;
        let group = self.heads.group();
        let width = group * head_dim;
        for (i, query) in place.queries.clone().enumerate() {
            let row = place.of.first_row + query;
            let start = row * self.heads.query_dim() + place.head * width;
            // SAFETY: one place alone has these queries of this group of heads, and it is finished once.
            let out = unsafe { self.output.out.slice(start, width) };
            for (g, out) in out.chunks_exact_mut(head_dim).enumerate() {
                running.finish(i * group + g, out);
            }
            if let Some(log_sums) = &self.output.log_sums {
                // SAFETY: as above.
                let log_sums = unsafe { log_sums.slice(row * query_heads + place.head * group, group) };
                for (g, log_sum) in log_sums.iter_mut().enumerate() {
                    *log_sum = running.log_sum(i * group + g);
                }
            }
        }
    }
}

fn merge(running: &mut Running<'_>, other: &Running<'_>) {
    simd::dispatch(
        #[inline(always)]
        || running.merge(other),
    );
}

struct Passage<'a, 'b, S> {
    buffers: &'a mut Buffers,
    running: &'a mut Running<'b>,
    place: &'a Queries,
    keys: Range<usize>,
    pass: &'a Pass<'a, S>,
}

impl<S: Tiles> Kernel for Passage<'_, '_, S> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { buffers: Buffers { queries, tile: laid_out, wide }, running, place, keys, pass } = self;
        let (position, group) = (place.position(place.queries.start), pass.heads.group());
        for block in keys.start / KEYS..keys.end.div_ceil(KEYS) {
            let first_key = block * KEYS;
            // Rows before see none of these keys.
            let first_row = first_key.saturating_sub(position) * group;
            let seen = |row: usize| {
                let end = (position + row / group + 1).saturating_sub(first_key).min(KEYS);
                pass.start(place, place.queries.start + row / group).saturating_sub(first_key).min(end)..end
            };
            let tile = pass.source.tile(block, place.sequence, place.head, laid_out);
            if running.rows() > FEW_ROWS {
                S::Element::widened(lanes, tile, wide).attend(lanes, running, queries, first_row, seen);
            } else {
                tile.attend(lanes, running, queries, first_row, seen);
            }
        }
    }
}

struct Output {
    out: Chunks<f32>,
    log_sums: Option<Chunks<f32>>,
}

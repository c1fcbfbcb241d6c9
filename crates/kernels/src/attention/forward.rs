//! Attention over blocks of keys with a running softmax.

use std::cell::RefCell;
use std::ops::Range;

use half::f16;

use super::cache::{CacheType, KvCache, Stored};
use super::running::Running;
use super::source::{Cached, Projected, Source};
use super::{KEYS, Rows, Shape, gather};
use crate::Threads;
use crate::cache_line::CacheLine;
use crate::lanes::{Job, Lanes, dispatch};
use crate::simd;
use crate::threads::Chunks;

/// Rows of queries (of all heads of a group) that a task leads past the keys.
const TASK_ROWS: usize = 256;
/// Up to this many rows, keys are shared out among the tasks, and what is not `f32` is widened row by row in registers.
const FEW_ROWS: usize = 16;
/// Keys in a task for few rows.
const TASK_KEYS: usize = 2 * KEYS;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// What the tasks of a few rows have gathered, until it is merged.
    static GATHERED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

#[derive(Default)]
struct Scratch {
    running: Vec<f32>,
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

/// `out = softmax(q k^T / sqrt(d)) v`, causal, for sequences without cached keys.
///
/// `q` and `out` are `[sequences * queries, query_heads * head_dim]`; `log_sums`, `[sequences * queries, query_heads]`,
/// receives the logarithm of each softmax's denominator, which [`super::backward`] needs. With `starts`,
/// `[sequences * queries]`, a query sees no key of its sequence before that position, which is not behind its own and does
/// not fall from one query to the next: documents in one sequence stay apart.
pub fn forward(
    threads: &Threads,
    out: &mut [f32],
    log_sums: &mut [f32],
    q: &[f32],
    k: Rows<'_>,
    v: Rows<'_>,
    starts: Option<&[u32]>,
    shape: Shape,
) {
    assert_eq!(log_sums.len() * shape.head_dim, q.len(), "log_sums do not fit {shape:?}");
    if let Some(starts) = starts {
        check_starts(starts, shape);
    }
    run(threads, out, Some(log_sums), q, starts, shape, &Projected { k, v, shape });
}

/// A query that saw no key would have no softmax, and a start before the last one no gradient.
fn check_starts(starts: &[u32], shape: Shape) {
    assert_eq!(starts.len(), shape.sequences * shape.queries, "starts do not fit {shape:?}");
    for starts in starts.chunks(shape.queries.max(1)) {
        assert!(starts.is_sorted(), "a start lies before the one of the query before");
        let seen = (shape.keys - shape.queries..).zip(starts).all(|(position, &start)| start as usize <= position);
        assert!(seen, "a start lies behind its query");
    }
}

/// `out = softmax(q k^T / sqrt(d)) v`, causal, of the last tokens in `cache`.
///
/// `q` and `out` are `[queries, query_heads * head_dim]`; the keys and values of the queries' own positions are the last
/// ones in the cache.
pub fn cached(threads: &Threads, out: &mut [f32], q: &[f32], cache: &KvCache, query_heads: usize) {
    let (kv_heads, head_dim) = (cache.kv_heads(), cache.head_dim());
    let queries = q.len() / (query_heads * head_dim);
    let shape = Shape { sequences: 1, queries, keys: cache.len(), query_heads, kv_heads, head_dim };
    match cache.cache_type() {
        CacheType::F32 => run(threads, out, None, q, None, shape, &Cached::<f32>::new(cache)),
        CacheType::F16 => run(threads, out, None, q, None, shape, &Cached::<f16>::new(cache)),
        CacheType::Int8 => run(threads, out, None, q, None, shape, &Cached::<i8>::new(cache)),
    }
}

fn run<S: Source>(
    threads: &Threads,
    out: &mut [f32],
    log_sums: Option<&mut [f32]>,
    q: &[f32],
    starts: Option<&[u32]>,
    shape: Shape,
    source: &S,
) {
    assert!(shape.keys >= shape.queries && shape.query_heads.is_multiple_of(shape.kv_heads), "impossible {shape:?}");
    assert_eq!(q.len(), shape.sequences * shape.queries * shape.query_dim(), "q does not fit {shape:?}");
    assert_eq!(out.len(), q.len(), "out does not fit {shape:?}");
    let output = Output { out: Chunks::new(out, 1), log_sums: log_sums.map(|sums| Chunks::new(sums, 1)) };
    let heads = shape.sequences * shape.kv_heads;
    let task_queries = (TASK_ROWS / shape.group()).max(1);
    let blocks = shape.queries.div_ceil(task_queries);
    let rows = shape.queries * shape.group();
    let spans = if rows <= FEW_ROWS { shape.keys.div_ceil(TASK_KEYS) } else { 1 };
    if spans > 1 {
        let length = Running::length(rows, shape.head_dim);
        let place = |head| Place { shape: &shape, starts, head, queries: 0..shape.queries };
        return GATHERED.with_borrow_mut(|gathered| {
            gathered.resize(heads * spans * length, 0.0);
            threads.for_each_chunk(gathered, length, |task, gathered| {
                let first = task % spans * TASK_KEYS;
                let keys = first..shape.keys.min(first + TASK_KEYS);
                SCRATCH.with_borrow_mut(|Scratch { buffers, .. }| {
                    attend(buffers, gathered, q, &place(task / spans), keys, source);
                });
            });
            for (head, spans) in gathered.chunks_exact_mut(spans * length).enumerate() {
                let (running, rest) = spans.split_at_mut(length);
                let mut running = Running::view(running, rows);
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for other in rest.chunks_exact_mut(length) {
                            running.merge(&Running::view(other, rows));
                        }
                    },
                );
                output.finish(&place(head), &running);
            }
        });
    }
    // One block of keys is not worth waking a thread for.
    let alone = Threads::single();
    let threads = if rows <= FEW_ROWS && shape.keys <= KEYS { &alone } else { threads };
    threads.run(heads * blocks, |task| {
        // The last blocks see the most keys: they go first, so that the threads end together.
        let first = (blocks - 1 - task % blocks) * task_queries;
        let queries = first..shape.queries.min(first + task_queries);
        let place = Place { shape: &shape, starts, head: task / blocks, queries };
        SCRATCH.with_borrow_mut(|Scratch { running, buffers }| {
            running.resize(Running::length(place.rows(), shape.head_dim), 0.0);
            let keys = place.start(place.queries.start)..place.position(place.queries.end);
            let running = attend(buffers, running, q, &place, keys, source);
            output.finish(&place, &running);
        });
    });
}

/// Some queries of the query heads that share a key/value head.
struct Place<'a> {
    shape: &'a Shape,
    starts: Option<&'a [u32]>,
    /// Counts the key/value heads of all sequences.
    head: usize,
    queries: Range<usize>,
}

impl Place<'_> {
    /// Rows of queries: those of all heads.
    fn rows(&self) -> usize {
        self.queries.len() * self.shape.group()
    }

    /// Sequence, and key/value head within it.
    fn sequence_and_head(&self) -> (usize, usize) {
        (self.head / self.shape.kv_heads, self.head % self.shape.kv_heads)
    }

    /// The first key that a query sees.
    #[inline(always)]
    fn start(&self, query: usize) -> usize {
        self.starts.map_or(0, |starts| starts[self.head / self.shape.kv_heads * self.shape.queries + query] as usize)
    }

    /// The position of a query among the keys.
    #[inline(always)]
    fn position(&self, query: usize) -> usize {
        self.shape.keys - self.shape.queries + query
    }
}

/// Leads the queries of `place` past the blocks of keys that `keys` touches.
fn attend<'b, S: Source>(
    buffers: &mut Buffers,
    running: &'b mut [f32],
    q: &[f32],
    place: &Place<'_>,
    keys: Range<usize>,
    source: &S,
) -> Running<'b> {
    let (sequence, head) = place.sequence_and_head();
    let first = sequence * place.shape.queries + place.queries.start;
    gather(&mut buffers.queries, q, place.shape, head, first, place.queries.len(), place.shape.scale());
    let mut running = Running::start(running, place.rows());
    dispatch(Passage { buffers, running: &mut running, place, keys, source });
    running
}

struct Passage<'a, 'b, S> {
    buffers: &'a mut Buffers,
    running: &'a mut Running<'b>,
    place: &'a Place<'a>,
    keys: Range<usize>,
    source: &'a S,
}

impl<S: Source> Job for Passage<'_, '_, S> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { buffers: Buffers { queries, tile: laid_out, wide }, running, place, keys, source } = self;
        let (sequence, head) = place.sequence_and_head();
        let (position, group) = (place.position(place.queries.start), place.shape.group());
        for block in keys.start / KEYS..keys.end.div_ceil(KEYS) {
            let first_key = block * KEYS;
            // Rows before see none of these keys.
            let first_row = first_key.saturating_sub(position) * group;
            let seen = |row: usize| {
                let end = (position + row / group + 1).saturating_sub(first_key).min(KEYS);
                place.start(place.queries.start + row / group).saturating_sub(first_key).min(end)..end
            };
            let tile = source.tile(block, sequence, head, laid_out);
            if place.rows() > FEW_ROWS {
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

impl Output {
    /// Writes what the queries of `place` have gathered.
    fn finish(&self, place: &Place<'_>, running: &Running<'_>) {
        let (shape, group) = (place.shape, place.shape.group());
        let (sequence, head) = place.sequence_and_head();
        let width = group * shape.head_dim;
        for (i, query) in place.queries.clone().enumerate() {
            let row = sequence * shape.queries + query;
            // SAFETY: one place alone has these queries of this group of heads, and it is finished once.
            let out = unsafe { self.out.slice(row * shape.query_dim() + head * width, width) };
            for (g, out) in out.chunks_exact_mut(shape.head_dim).enumerate() {
                running.finish(i * group + g, out);
            }
            if let Some(log_sums) = &self.log_sums {
                // SAFETY: as above.
                let log_sums = unsafe { log_sums.slice(row * shape.query_heads + head * group, group) };
                for (g, log_sum) in log_sums.iter_mut().enumerate() {
                    *log_sum = running.log_sum(i * group + g);
                }
            }
        }
    }
}

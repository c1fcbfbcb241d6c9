//! Attention over blocks of keys with a running softmax.

use std::cell::RefCell;

use super::{KEYS, QUERIES, Rows, Shape, gather, single};
use crate::Matrix;
use crate::Threads;
use crate::gemm::{Product, View, gemm};
use crate::simd::{dispatch, exp, exp_sum, maximum as largest};
use crate::threads::Chunks;

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    scores: Vec<f32>,
    sums: Vec<f32>,
    maxima: Vec<f32>,
    totals: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// `out = softmax(q k^T / sqrt(d)) v`, causal.
///
/// `q` and `out` are `[sequences * queries, query_heads * head_dim]`. Where `log_sums` is given, `[sequences * queries,
/// query_heads]`, it receives the logarithm of each softmax's denominator, which [`super::backward`] needs.
pub fn forward(
    threads: &Threads,
    out: &mut [f32],
    log_sums: Option<&mut [f32]>,
    q: &[f32],
    k: Rows<'_>,
    v: Rows<'_>,
    shape: Shape,
) {
    assert!(shape.keys >= shape.queries && shape.query_heads.is_multiple_of(shape.kv_heads), "impossible {shape:?}");
    assert_eq!(q.len(), shape.sequences * shape.queries * shape.query_dim(), "q does not fit {shape:?}");
    assert_eq!(out.len(), q.len(), "out does not fit {shape:?}");
    let log_sums = match log_sums {
        None if shape.queries == 1 => return single::forward(threads, out, q, k, v, shape),
        None => &mut [],
        Some(log_sums) => {
            assert_eq!(log_sums.len() * shape.head_dim, q.len(), "log_sums do not fit {shape:?}");
            log_sums
        }
    };
    let keep_log_sums = !log_sums.is_empty();
    let (out, log_sums) = (Chunks::new(out, 1), Chunks::new(log_sums, 1));
    let blocks = shape.queries.div_ceil(QUERIES);
    let group = shape.group();
    threads.run(shape.sequences * shape.kv_heads * blocks, |task| {
        // The last blocks see the most keys: they go first, so that the threads end together.
        let block = blocks - 1 - task % blocks;
        let (sequence, head) = (task / blocks / shape.kv_heads, task / blocks % shape.kv_heads);
        let first = block * QUERIES;
        let count = QUERIES.min(shape.queries - first);
        let first_row = sequence * shape.queries + first;
        SCRATCH.with_borrow_mut(|scratch| {
            gather(&mut scratch.queries, q, &shape, head, first_row, count, shape.scale());
            attend(scratch, k, v, &shape, (sequence, head), first, count);
            for query in 0..count {
                let row = first_row + query;
                let width = group * shape.head_dim;
                // SAFETY: this task alone writes the columns of its group of heads in its rows.
                let target = unsafe { out.slice(row * shape.query_dim() + head * width, width) };
                for (g, target) in target.chunks_exact_mut(shape.head_dim).enumerate() {
                    let r = query * group + g;
                    let factor = 1.0 / scratch.totals[r];
                    let sums = &scratch.sums[r * shape.head_dim..][..shape.head_dim];
                    target.iter_mut().zip(sums).for_each(|(target, sum)| *target = sum * factor);
                }
                if keep_log_sums {
                    // SAFETY: as above.
                    let target = unsafe { log_sums.slice(row * shape.query_heads + head * group, group) };
                    for (g, target) in target.iter_mut().enumerate() {
                        let r = query * group + g;
                        *target = scratch.maxima[r] + scratch.totals[r].ln();
                    }
                }
            }
        });
    });
}

/// Carries `sums` (not yet divided by `totals`), `maxima` and `totals` over all key blocks that the queries see.
fn attend(
    scratch: &mut Scratch,
    k: Rows<'_>,
    v: Rows<'_>,
    shape: &Shape,
    (sequence, head): (usize, usize),
    first: usize,
    count: usize,
) {
    let (alone, d, group) = (Threads::single(), shape.head_dim, shape.group());
    let rows = count * group;
    let past = shape.keys - shape.queries;
    let Scratch { queries, scores, sums, maxima, totals } = scratch;
    sums.clear();
    sums.resize(rows * d, 0.0);
    maxima.clear();
    maxima.resize(rows, f32::NEG_INFINITY);
    totals.clear();
    totals.resize(rows, 0.0);
    let visible = past + first + count;
    for first_key in (0..visible).step_by(KEYS) {
        let keys = KEYS.min(visible - first_key);
        let row = sequence * shape.keys + first_key;
        scores.resize(rows * KEYS, 0.0);
        let a = View::rows(Matrix::F32(queries), d);
        let b = View::rows(Matrix::F32(k.from(row, head, d)), k.stride).transposed();
        gemm(&alone, scores, KEYS, Product { m: rows, n: keys, k: d, a, b, accumulate: false });
        dispatch(
            #[inline(always)]
            || {
                for r in 0..rows {
                    // Keys of this block that the query sees; none if the block lies wholly after it.
                    let seen = (past + first + r / group + 1).saturating_sub(first_key).min(keys);
                    let scores = &mut scores[r * KEYS..][..keys];
                    soften(scores, seen, &mut maxima[r], &mut totals[r], &mut sums[r * d..][..d]);
                }
            },
        );
        let a = View::rows(Matrix::F32(scores), KEYS);
        let b = View::rows(Matrix::F32(v.from(row, head, d)), v.stride);
        gemm(&alone, sums, d, Product { m: rows, n: d, k: keys, a, b, accumulate: true });
    }
}

/// Replaces the first `seen` scores by their exponentials relative to the new maximum and the others by zero; rescales
/// what was summed so far.
#[inline(always)]
fn soften(scores: &mut [f32], seen: usize, maximum: &mut f32, total: &mut f32, sums: &mut [f32]) {
    let (visible, hidden) = scores.split_at_mut(seen);
    hidden.fill(0.0);
    if visible.is_empty() {
        return;
    }
    let new = largest(visible).max(*maximum);
    if new > *maximum {
        let factor = if *total > 0.0 { exp(*maximum - new) } else { 0.0 };
        *total *= factor;
        sums.iter_mut().for_each(|x| *x *= factor);
        *maximum = new;
    }
    *total += exp_sum(visible, *maximum);
}

//! The derivatives of attention, block by block: the probabilities are computed anew from the kept logarithms of the
//! softmax's denominators.
//!
//! ```text
//! P = exp(S - log_sum)   dV = P^T dO   dP = dO V^T   dS = P (dP - rowsum(dO O))   dQ = dS K / sqrt(d)   dK = dS^T Q / sqrt(d)
//! ```

use std::cell::RefCell;

use super::{KEYS, Rows, Shape, gather};
use crate::Matrix;
use crate::Threads;
use crate::gemm::{Product, View, gemm};
use crate::simd::{dispatch, dot, exp};
use crate::threads::Chunks;

/// Queries (time steps) per block.
const QUERIES: usize = 64;

/// Where the derivatives are written.
pub struct Gradients<'a> {
    /// By the queries, `[sequences * queries, query_heads * head_dim]`.
    pub q: &'a mut [f32],
    /// By the keys, `[sequences * keys, kv_heads * head_dim]`.
    pub k: &'a mut [f32],
    /// By the values, `[sequences * keys, kv_heads * head_dim]`.
    pub v: &'a mut [f32],
}

#[derive(Default)]
struct Scratch {
    /// Scaled queries, `[queries * group, d]`; likewise the derivatives by the output and by the queries.
    queries: Vec<f32>,
    dout: Vec<f32>,
    dqueries: Vec<f32>,
    /// `rowsum(dO O)` of each row.
    corrections: Vec<f32>,
    probabilities: Vec<f32>,
    dscores: Vec<f32>,
    dkeys: Vec<f32>,
    dvalues: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Writes the derivatives of [`super::forward`] by `q`, `k` and `v`, for `shape.keys == shape.queries`.
///
/// `dout` and `out` are `[sequences * queries, query_heads * head_dim]`, `log_sums` as the forward pass left them.
pub fn backward(
    threads: &Threads,
    gradients: Gradients<'_>,
    dout: &[f32],
    out: &[f32],
    log_sums: &[f32],
    q: &[f32],
    k: Rows<'_>,
    v: Rows<'_>,
    shape: Shape,
) {
    let Shape { sequences, queries: time, head_dim: d, kv_heads, .. } = shape;
    assert_eq!(shape.keys, time, "a backward pass knows no cached keys");
    assert_eq!(gradients.q.len(), q.len(), "dq does not fit q");
    assert_eq!(gradients.k.len(), sequences * time * kv_heads * d, "dk does not fit {shape:?}");
    assert_eq!(gradients.v.len(), gradients.k.len(), "dv does not fit dk");
    let group = shape.group();
    let (dq, dk, dv) = (Chunks::new(gradients.q, 1), Chunks::new(gradients.k, 1), Chunks::new(gradients.v, 1));
    threads.run(sequences * kv_heads, |task| {
        let (sequence, head) = (task / kv_heads, task % kv_heads);
        let first_row = sequence * time;
        SCRATCH.with_borrow_mut(|scratch| {
            gather(&mut scratch.queries, q, &shape, head, first_row, time, shape.scale());
            gather(&mut scratch.dout, dout, &shape, head, first_row, time, 1.0);
            scratch.corrections.clear();
            for row in 0..time * group {
                let column = (first_row + row / group) * shape.query_dim() + (head * group + row % group) * d;
                scratch.corrections.push(dispatch(|| dot(&scratch.dout[row * d..][..d], &out[column..][..d])));
            }
            scratch.dqueries.clear();
            scratch.dqueries.resize(time * group * d, 0.0);
            for first_key in (0..time).step_by(KEYS) {
                let keys = KEYS.min(time - first_key);
                key_block(scratch, log_sums, k, v, &shape, (sequence, head), first_key, keys);
                for key in 0..keys {
                    let start = (first_row + first_key + key) * kv_heads * d + head * d;
                    // SAFETY: this task alone writes the columns of its head in the rows of its sequence.
                    let (dk, dv) = unsafe { (dk.slice(start, d), dv.slice(start, d)) };
                    dk.copy_from_slice(&scratch.dkeys[key * d..][..d]);
                    dv.copy_from_slice(&scratch.dvalues[key * d..][..d]);
                }
            }
            let width = group * d;
            for (query, row) in scratch.dqueries.chunks_exact(width).enumerate() {
                // SAFETY: this task alone writes the columns of its group of heads in the rows of its sequence.
                let dq = unsafe { dq.slice((first_row + query) * shape.query_dim() + head * width, width) };
                dq.iter_mut().zip(row).for_each(|(dq, x)| *dq = x * shape.scale());
            }
        });
    });
}

/// Sums the derivatives by one block of keys and values over all queries that see it, and its share of those by the
/// queries.
fn key_block(
    scratch: &mut Scratch,
    log_sums: &[f32],
    k: Rows<'_>,
    v: Rows<'_>,
    shape: &Shape,
    (sequence, head): (usize, usize),
    first_key: usize,
    keys: usize,
) {
    let (alone, d, group, time) = (Threads::single(), shape.head_dim, shape.group(), shape.queries);
    let Scratch { queries, dout, dqueries, corrections, probabilities, dscores, dkeys, dvalues } = scratch;
    for sums in [&mut *dkeys, &mut *dvalues] {
        sums.clear();
        sums.resize(keys * d, 0.0);
    }
    let first_row = sequence * time;
    let k = View::rows(Matrix::F32(k.from(first_row + first_key, head, d)), k.stride);
    let v = View::rows(Matrix::F32(v.from(first_row + first_key, head, d)), v.stride);
    for first in (first_key / QUERIES * QUERIES..time).step_by(QUERIES) {
        let rows = QUERIES.min(time - first) * group;
        let here = first * group * d..(first * group + rows) * d;
        let (queries, dout) = (Matrix::F32(&queries[here.clone()]), Matrix::F32(&dout[here.clone()]));
        let (queries, dout) = (View::rows(queries, d), View::rows(dout, d));
        probabilities.resize(QUERIES * group * KEYS, 0.0);
        dscores.resize(QUERIES * group * KEYS, 0.0);
        let inner = Product { m: rows, n: keys, k: d, a: queries, b: k.transposed(), accumulate: false };
        gemm(&alone, probabilities, KEYS, inner);
        gemm(&alone, dscores, KEYS, Product { m: rows, n: keys, k: d, a: dout, b: v.transposed(), accumulate: false });
        dispatch(
            #[inline(always)]
            || {
                for r in 0..rows {
                    let query = first + r / group;
                    let log_sum = log_sums[(first_row + query) * shape.query_heads + head * group + r % group];
                    let correction = corrections[first * group + r];
                    let seen = (query + 1).saturating_sub(first_key).min(keys);
                    let probabilities = &mut probabilities[r * KEYS..][..keys];
                    let dscores = &mut dscores[r * KEYS..][..keys];
                    for (p, ds) in probabilities[..seen].iter_mut().zip(&mut dscores[..seen]) {
                        *p = exp(*p - log_sum);
                        *ds = *p * (*ds - correction);
                    }
                    probabilities[seen..].fill(0.0);
                    dscores[seen..].fill(0.0);
                }
            },
        );
        let (p, ds) = (View::rows(Matrix::F32(probabilities), KEYS), View::rows(Matrix::F32(dscores), KEYS));
        gemm(&alone, dvalues, d, Product { m: keys, n: d, k: rows, a: p.transposed(), b: dout, accumulate: true });
        gemm(&alone, dkeys, d, Product { m: keys, n: d, k: rows, a: ds.transposed(), b: queries, accumulate: true });
        gemm(&alone, &mut dqueries[here], d, Product { m: rows, n: d, k: keys, a: ds, b: k, accumulate: true });
    }
}

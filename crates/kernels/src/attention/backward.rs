//! The derivatives of attention, block by block: the probabilities are computed anew from the kept logarithms of the
//! softmax's denominators.
//!
//! ```text
//! P = exp(S - log_sum)   dV = P^T dO   dP = dO V^T   dS = P (dP - rowsum(dO O))   dQ = dS K / sqrt(d)   dK = dS^T Q / sqrt(d)
//! ```

use std::cell::RefCell;
use std::ops::Range;

use super::product::{Strided, multiply};
use super::{Inputs, KEYS, Rows, Shape, padded, scale};
use crate::lanes::{Kernel, Lanes, dispatch};
use crate::simd::{dot, exp};
use crate::threads::Chunks;
use crate::{Heads, Threads};

/// Rows of queries (of all heads of a group) whose probabilities are in memory at a time.
const ROWS: usize = 64;

/// Where the derivatives are written.
pub struct Gradients<'a> {
    /// By the queries, `[sequences * time, query_heads * head_dim]`.
    pub q: &'a mut [f32],
    /// By the keys, `[sequences * time, kv_heads * head_dim]`.
    pub k: &'a mut [f32],
    /// By the values, `[sequences * time, kv_heads * head_dim]`.
    pub v: &'a mut [f32],
}

/// What a task needs; rows are those of the queries of all heads of its group, and end with zeros up to `padded(head_dim)`.
#[derive(Default)]
struct Scratch {
    /// Scaled queries of [`ROWS`] rows, `[rows, padded]`; likewise the derivatives by the output.
    queries: Vec<f32>,
    dout: Vec<f32>,
    /// The derivatives by the queries of all rows, `[rows, padded]`.
    dqueries: Vec<f32>,
    /// `rowsum(dO O)` and the logarithm of the softmax's denominator of each row.
    corrections: Vec<f32>,
    log_sums: Vec<f32>,
    /// A block of keys, `[KEYS, padded]`, and of keys and values transposed, `[head_dim, KEYS]`.
    keys: Vec<f32>,
    keys_across: Vec<f32>,
    values_across: Vec<f32>,
    /// Their derivatives, `[KEYS, padded]`.
    dkeys: Vec<f32>,
    dvalues: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Bytes that each thread keeps for [`backward`], but for some blocks of fixed size.
pub fn backward_scratch(shape: Shape) -> usize {
    // The derivatives by the queries, and two numbers more of each row.
    shape.time * shape.heads.group() * (padded(shape.heads.head_dim) + 2) * size_of::<f32>()
}

/// Writes the derivatives of [`super::forward`] by `q`, `k` and `v`.
///
/// `dout` and `out` are `[sequences * time, query_heads * head_dim]`, `log_sums` as the forward pass left them, `inputs` what
/// it had.
pub fn backward(
    threads: &Threads,
    gradients: Gradients<'_>,
    dout: &[f32],
    out: &[f32],
    log_sums: &[f32],
    inputs: Inputs<'_>,
) {
    let Inputs { q, document_starts: starts, shape, .. } = inputs;
    let Shape { sequences, time, heads: Heads { kv_heads, head_dim: d, .. } } = shape;
    assert_eq!(gradients.q.len(), q.len(), "dq does not fit q");
    assert!(starts.is_none_or(|starts| starts.len() == sequences * time), "starts do not fit {shape:?}");
    assert_eq!(gradients.k.len(), sequences * time * kv_heads * d, "dk does not fit {shape:?}");
    assert_eq!(gradients.v.len(), gradients.k.len(), "dv does not fit dk");
    let (dq, dk, dv) = (Chunks::new(gradients.q, 1), Chunks::new(gradients.k, 1), Chunks::new(gradients.v, 1));
    threads.run(sequences * kv_heads, |task| {
        SCRATCH.with_borrow_mut(|scratch| {
            let place = HeadGroup { shape, sequence: task / kv_heads, head: task % kv_heads };
            dispatch(Task { scratch, place, gradients: [&dq, &dk, &dv], dout, out, log_sums, inputs });
        });
    });
}

/// The query heads that share a key/value head, in one sequence.
#[derive(Clone, Copy)]
struct HeadGroup {
    shape: Shape,
    sequence: usize,
    head: usize,
}

impl HeadGroup {
    /// Where `[.., query_dim]` holds the queries of a time step.
    fn query(&self, time: usize) -> usize {
        let width = self.shape.heads.group() * self.shape.heads.head_dim;
        (self.sequence * self.shape.time + time) * self.shape.heads.query_dim() + self.head * width
    }

    /// Where `[.., query_dim]` holds a row of the group.
    #[inline(always)]
    fn row(&self, row: usize) -> Range<usize> {
        let (d, group) = (self.shape.heads.head_dim, self.shape.heads.group());
        let start = self.query(row / group) + row % group * d;
        start..start + d
    }

    /// Copies the `rows` of the group from `[.., query_dim]` as `[rows, padded]`, multiplied by `factor`.
    #[inline(always)]
    fn gather(&self, target: &mut Vec<f32>, source: &[f32], rows: Range<usize>, factor: f32) {
        let d = self.shape.heads.head_dim;
        target.resize(rows.len() * padded(d), 0.0);
        for (row, target) in rows.zip(target.chunks_exact_mut(padded(d))) {
            let (target, padding) = target.split_at_mut(d);
            let source = &source[self.row(row)];
            for (target, x) in target.iter_mut().zip(source) {
                *target = x * factor;
            }
            padding.fill(0.0);
        }
    }
}

struct Task<'a> {
    scratch: &'a mut Scratch,
    place: HeadGroup,
    /// The derivatives by queries, keys and values.
    gradients: [&'a Chunks<f32>; 3],
    dout: &'a [f32],
    out: &'a [f32],
    log_sums: &'a [f32],
    inputs: Inputs<'a>,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { scratch, place, gradients: [dq, dk, dv], dout, out, log_sums, inputs } = self;
        let Inputs { q, k, v, document_starts: starts, .. } = inputs;
        let HeadGroup { shape: Shape { time, heads, .. }, sequence, head } = place;
        let Heads { query_heads, kv_heads, head_dim: d } = heads;
        let (group, width) = (heads.group(), padded(d));
        scratch.corrections.clear();
        scratch.log_sums.clear();
        for row in 0..time * group {
            scratch.corrections.push(dot(&dout[place.row(row)], &out[place.row(row)]));
            scratch.log_sums.push(log_sums[(sequence * time + row / group) * query_heads + head * group + row % group]);
        }
        scratch.dqueries.clear();
        scratch.dqueries.resize(time * group * width, 0.0);
        for first_key in (0..time).step_by(KEYS) {
            let keys = KEYS.min(time - first_key);
            let first_row = sequence * time + first_key;
            scratch.lay_out(k, v, first_row, keys, head, d);
            let seen = |row: usize| {
                let end = (row / group + 1).saturating_sub(first_key).min(keys);
                let start = starts.map_or(0, |starts| starts[sequence * time + row / group] as usize);
                start.saturating_sub(first_key).min(end)..end
            };
            scratch.key_block(lanes, place, q, dout, first_key * group, seen);
            for key in 0..keys {
                let start = ((first_row + key) * kv_heads + head) * d;
                // SAFETY: this task alone writes the columns of its head in the rows of its sequence.
                let (dk, dv) = unsafe { (dk.slice(start, d), dv.slice(start, d)) };
                dk.copy_from_slice(&scratch.dkeys[key * width..][..d]);
                dv.copy_from_slice(&scratch.dvalues[key * width..][..d]);
            }
        }
        for (row, dqueries) in scratch.dqueries.chunks_exact(width).enumerate() {
            // SAFETY: this task alone writes the columns of its group of heads in the rows of its sequence.
            let dq = unsafe { dq.slice(place.row(row).start, d) };
            for (dq, x) in dq.iter_mut().zip(dqueries) {
                *dq = x * scale(heads);
            }
        }
    }
}

impl Scratch {
    /// Lays out `keys` keys and values of `head` from `first_row` on, zeros behind them.
    fn lay_out(&mut self, k: Rows<'_>, v: Rows<'_>, first_row: usize, keys: usize, head: usize, d: usize) {
        let width = padded(d);
        self.keys.resize(KEYS * width, 0.0);
        self.keys_across.resize(KEYS * d, 0.0);
        self.values_across.resize(KEYS * d, 0.0);
        for (buffer, source) in [(&mut self.keys_across, k), (&mut self.values_across, v)] {
            for (i, buffer) in buffer.chunks_exact_mut(KEYS).enumerate() {
                let (buffer, rest) = buffer.split_at_mut(keys);
                for (key, x) in buffer.iter_mut().enumerate() {
                    *x = source.data[(first_row + key) * source.stride + head * d + i];
                }
                rest.fill(0.0);
            }
        }
        for (key, buffer) in self.keys.chunks_exact_mut(width).enumerate() {
            let count = if key < keys { d } else { 0 };
            if count > 0 {
                buffer[..d].copy_from_slice(k.row(first_row + key, head, d));
            }
            buffer[count..].fill(0.0);
        }
    }

    /// Sums the derivatives by one block of keys and values over all rows that see some of it, and its share of those by the
    /// queries; row `r`, not before `first_row`, sees the keys `seen(r)`.
    #[inline(always)]
    fn key_block<L: Lanes>(
        &mut self,
        lanes: L,
        place: HeadGroup,
        q: &[f32],
        dout: &[f32],
        first_row: usize,
        seen: impl Fn(usize) -> Range<usize>,
    ) {
        let width = padded(place.shape.heads.head_dim);
        for sums in [&mut self.dkeys, &mut self.dvalues] {
            sums.clear();
            sums.resize(KEYS * width, 0.0);
        }
        let (mut probabilities, mut dscores) = ([0.0; ROWS * KEYS], [0.0; ROWS * KEYS]);
        for first in (first_row..self.corrections.len()).step_by(ROWS) {
            // The documents behind this one see none of it.
            if seen(first).is_empty() {
                break;
            }
            let rows = ROWS.min(self.corrections.len() - first);
            place.gather(&mut self.queries, q, first..first + rows, scale(place.shape.heads));
            place.gather(&mut self.dout, dout, first..first + rows, 1.0);
            let (queries, dout) = (&self.queries, &self.dout);
            let (p, ds) = (&mut probabilities[..rows * KEYS], &mut dscores[..rows * KEYS]);
            multiply::<L, false>(lanes, p, Strided::rows(queries, width), &self.keys_across, KEYS);
            multiply::<L, false>(lanes, ds, Strided::rows(dout, width), &self.values_across, KEYS);
            for (r, (p, ds)) in p.as_chunks_mut::<KEYS>().0.iter_mut().zip(ds.as_chunks_mut::<KEYS>().0).enumerate() {
                let (log_sum, correction) = (self.log_sums[first + r], self.corrections[first + r]);
                let seen = seen(first + r);
                for (p, ds) in p.iter_mut().zip(ds.iter_mut()) {
                    *p = exp(*p - log_sum);
                    *ds = *p * (*ds - correction);
                }
                for hidden in [0..seen.start, seen.end..KEYS] {
                    p[hidden.clone()].fill(0.0);
                    ds[hidden].fill(0.0);
                }
            }
            multiply::<L, true>(lanes, &mut self.dvalues, Strided::columns(p, KEYS), dout, width);
            multiply::<L, true>(lanes, &mut self.dkeys, Strided::columns(ds, KEYS), queries, width);
            let dqueries = &mut self.dqueries[first * width..][..rows * width];
            multiply::<L, true>(lanes, dqueries, Strided::rows(ds, KEYS), &self.keys, width);
        }
    }
}

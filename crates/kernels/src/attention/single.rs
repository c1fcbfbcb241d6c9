//! Attention of one query per sequence, as in decoding: keys and values are streamed once for their group of heads.

use super::{Rows, Shape};
use crate::Threads;
use crate::simd::{axpy, dispatch, dot, exp_sum, maximum};

/// `out = softmax(q k^T / sqrt(d)) v` for `shape.queries == 1`; `q` and `out` are `[sequences, query_heads * head_dim]`.
pub(super) fn forward(threads: &Threads, out: &mut [f32], q: &[f32], k: Rows<'_>, v: Rows<'_>, shape: Shape) {
    let (d, group, keys) = (shape.head_dim, shape.group(), shape.keys);
    threads.for_each_chunk(out, group * d, |task, out| {
        let (sequence, head) = (task / shape.kv_heads, task % shape.kv_heads);
        let q = &q[task * group * d..][..group * d];
        let mut scores = vec![0.0; group * keys];
        dispatch(
            #[inline(always)]
            || {
                for key in 0..keys {
                    let row = k.row(sequence * keys + key, head, d);
                    for (g, q) in q.chunks_exact(d).enumerate() {
                        scores[g * keys + key] = dot(q, row) * shape.scale();
                    }
                }
                for scores in scores.chunks_exact_mut(keys) {
                    let largest = maximum(scores);
                    let factor = 1.0 / exp_sum(scores, largest);
                    scores.iter_mut().for_each(|x| *x *= factor);
                }
                out.fill(0.0);
                for key in 0..keys {
                    let row = v.row(sequence * keys + key, head, d);
                    for (g, out) in out.chunks_exact_mut(d).enumerate() {
                        axpy(out, scores[g * keys + key], row);
                    }
                }
            },
        );
    });
}

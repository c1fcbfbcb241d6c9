//! From the output of the query/key/value projection to what attention takes: norm of the queries and keys, of each head or of all
//! of a token's together, then RoPE.

use crate::attention::KvCache;
use crate::rms_norm::{inverse_root, row_backward, scale, sum_rows};
use crate::rope::{RopeTable, rotate, rotate_back};
use crate::simd::dispatch;
use crate::{Heads, Threads};

/// Rows in a task.
const TASK_ROWS: usize = 32;

/// RMSNorm weights of queries and keys: `[head_dim]` each, shared by all heads of the layer, which are normalised one by one; or
/// `[heads * head_dim]`, and all heads are normalised together.
#[derive(Debug, Clone, Copy)]
pub struct QkNorms<'a> {
    /// Of the queries.
    pub q: &'a [f32],
    /// Of the keys.
    pub k: &'a [f32],
}

/// Where the derivatives by the weights of [`QkNorms`] are added.
#[derive(Debug)]
pub struct QkNormGradients<'a> {
    /// Of the queries, as long as their weight.
    pub q: &'a mut [f32],
    /// Of the keys, as long as their weight.
    pub k: &'a mut [f32],
}

/// What happens to queries and keys between the projection and attention, in one layer.
#[derive(Clone, Copy)]
pub struct QkNormRope<'a> {
    /// The heads; a row of the projection's output holds queries, keys and values in this order.
    pub heads: Heads,
    /// Weights of the norms; without them queries and keys are only rotated.
    pub norms: Option<QkNorms<'a>>,
    /// Added to the mean square in the norms.
    pub eps: f32,
    /// The rotations, of all positions.
    pub rope: &'a RopeTable,
    /// The position of each row in its sequence, `[N]`.
    pub positions: &'a [u32],
}

/// Derivatives by queries, keys and values as attention takes them.
#[derive(Clone, Copy)]
pub struct QkvDerivatives<'a> {
    /// `[N, query_heads * head_dim]`.
    pub q: &'a [f32],
    /// `[N, kv_heads * head_dim]`.
    pub k: &'a [f32],
    /// `[N, kv_heads * head_dim]`.
    pub v: &'a [f32],
}

impl QkNormRope<'_> {
    /// Writes normalised and rotated queries `q`, `[N, query_heads * head_dim]`, and keys `k`, `[N, kv_heads * head_dim]`,
    /// from `qkv`, `[N, (query_heads + 2 kv_heads) * head_dim]`.
    pub fn forward(&self, threads: &Threads, q: &mut [f32], k: &mut [f32], qkv: &[f32]) {
        self.queries(threads, q, qkv);
        let heads = self.heads;
        let (query_dim, kv_dim, qkv_dim) = (heads.query_dim(), heads.kv_dim(), heads.qkv_dim());
        threads.for_each_chunk(k, kv_dim * TASK_ROWS, |task, k| {
            let first = task * TASK_ROWS;
            dispatch(
                #[inline(always)]
                || {
                    for (i, k) in k.chunks_exact_mut(kv_dim).enumerate() {
                        let x = &qkv[(first + i) * qkv_dim + query_dim..][..kv_dim];
                        self.heads(k, x, self.norms.map(|n| n.k), first + i);
                    }
                },
            );
        });
    }

    /// Like [`QkNormRope::forward`] for tokens that come next in some caches: their keys and values are appended.
    ///
    /// `caches` gives the cache of each sequence and how many of the rows are its, which lie behind those of the one before.
    pub fn forward_into_caches<'c>(
        &self,
        threads: &Threads,
        q: &mut [f32],
        qkv: &[f32],
        caches: impl IntoIterator<Item = (&'c mut KvCache, usize)>,
    ) {
        self.queries(threads, q, qkv);
        let heads = self.heads;
        let (query_dim, kv_dim, qkv_dim) = (heads.query_dim(), heads.kv_dim(), heads.qkv_dim());
        let d = heads.head_dim;
        let mut first = 0;
        for (cache, rows) in caches {
            assert!(cache.kv_heads() == heads.kv_heads && cache.head_dim() == d, "the cache is not one of {heads:?}");
            cache.append(
                threads,
                rows,
                #[inline(always)]
                |row, head, key| {
                    let kv = &qkv[(first + row) * qkv_dim + query_dim..][..2 * kv_dim];
                    self.head(key, &kv[..kv_dim], head, self.norms.map(|n| n.k), first + row);
                    &kv[kv_dim + head * d..][..d]
                },
            );
            first += rows;
        }
    }

    /// The queries of [`QkNormRope::forward`].
    fn queries(&self, threads: &Threads, q: &mut [f32], qkv: &[f32]) {
        let (query_dim, qkv_dim) = (self.heads.query_dim(), self.heads.qkv_dim());
        assert_eq!(q.len() / query_dim * qkv_dim, qkv.len(), "q does not fit qkv");
        assert_eq!(self.positions.len() * qkv_dim, qkv.len(), "positions do not fit qkv");
        threads.for_each_chunk(q, query_dim * TASK_ROWS, |task, q| {
            let first = task * TASK_ROWS;
            dispatch(
                #[inline(always)]
                || {
                    for (i, q) in q.chunks_exact_mut(query_dim).enumerate() {
                        let x = &qkv[(first + i) * qkv_dim..][..query_dim];
                        self.heads(q, x, self.norms.map(|n| n.q), first + i);
                    }
                },
            );
        });
    }

    /// Normalises all heads `x` of the row `row`, if there is a weight, and rotates them.
    #[inline(always)]
    fn heads(&self, out: &mut [f32], x: &[f32], weight: Option<&[f32]>, row: usize) {
        for (head, out) in out.chunks_exact_mut(self.heads.head_dim).enumerate() {
            self.head(out, x, head, weight, row);
        }
    }

    /// Normalises head `head` among all heads `x` of the row `row`, if there is a weight, and rotates it.
    #[inline(always)]
    fn head(&self, out: &mut [f32], x: &[f32], head: usize, weight: Option<&[f32]>, row: usize) {
        let (cosines, sines) = self.rope.at(self.positions[row] as usize);
        let d = 2 * cosines.len();
        let start = head * d;
        match weight {
            Some(weight) => {
                // Where it is that of all heads, the root is taken anew for each of them: it costs little.
                let together = start / weight.len() * weight.len();
                let factor = inverse_root(&x[together..][..weight.len()], self.eps);
                scale(out, &x[start..][..d], &weight[start - together..][..d], factor);
            }
            None => out.copy_from_slice(&x[start..][..d]),
        }
        rotate(out, cosines, sines);
    }

    /// Writes `dqkv`, `[N, (query_heads + 2 kv_heads) * head_dim]`, from the derivatives `by` what attention takes; adds the
    /// derivatives by the norms' weights to `dnorms`.
    pub fn backward(
        &self,
        threads: &Threads,
        dqkv: &mut [f32],
        dnorms: Option<&mut QkNormGradients<'_>>,
        by: QkvDerivatives<'_>,
        qkv: &[f32],
    ) {
        let Self { heads, norms, .. } = *self;
        let (query_dim, kv_dim, qkv_dim) = (heads.query_dim(), heads.kv_dim(), heads.qkv_dim());
        let rows = qkv.len() / qkv_dim;
        assert!(dqkv.len() == qkv.len() && by.q.len() == rows * query_dim, "derivatives do not fit qkv");
        assert!(by.k.len() == rows * kv_dim && by.v.len() == by.k.len(), "derivatives do not fit qkv");
        // The sums of each task, first of the queries' weight, then of the keys'.
        let lengths = norms.map_or([0, 0], |norms| [norms.q.len(), norms.k.len()]);
        let sums = (lengths[0] + lengths[1]).max(1);
        let mut partial = vec![0.0; rows.div_ceil(TASK_ROWS) * sums];
        threads.for_each_chunk2((dqkv, qkv_dim * TASK_ROWS), (&mut partial, sums), |task, dqkv, partial| {
            let (dnorm_q, dnorm_k) = partial.split_at_mut(lengths[0]);
            let mut unrotated = vec![0.0; lengths[0].max(lengths[1])];
            dispatch(
                #[inline(always)]
                || {
                    for (i, dqkv) in dqkv.chunks_exact_mut(qkv_dim).enumerate() {
                        let row = task * TASK_ROWS + i;
                        let qkv = &qkv[row * qkv_dim..][..qkv_dim];
                        let (dx_q, rest) = dqkv.split_at_mut(query_dim);
                        let (dx_k, dvalues) = rest.split_at_mut(kv_dim);
                        dvalues.copy_from_slice(&by.v[row * kv_dim..][..kv_dim]);
                        let (q, k) = (&qkv[..query_dim], &qkv[query_dim..][..kv_dim]);
                        let (dq, dk) = (&by.q[row * query_dim..][..query_dim], &by.k[row * kv_dim..][..kv_dim]);
                        let (weight_q, weight_k) = (norms.map(|n| n.q), norms.map(|n| n.k));
                        self.heads_backward((dx_q, dq, q), weight_q, dnorm_q, &mut unrotated, row);
                        self.heads_backward((dx_k, dk, k), weight_k, dnorm_k, &mut unrotated, row);
                    }
                },
            );
        });
        if let (Some(dnorms), true) = (dnorms, norms.is_some()) {
            let mut total = vec![0.0; sums];
            sum_rows(threads, &mut total, &partial);
            let (q, k) = total.split_at(lengths[0]);
            dnorms.q.iter_mut().zip(q).for_each(|(sum, x)| *sum += x);
            dnorms.k.iter_mut().zip(k).for_each(|(sum, x)| *sum += x);
        }
    }

    /// The derivatives `dx` by all heads `x` of the row `row`, from those by what [`QkNormRope::heads`] gives, `dout`; adds those
    /// by the weight to `dnorm`. `unrotated` has room for what is normalised together.
    #[inline(always)]
    fn heads_backward(
        &self,
        (dx, dout, x): (&mut [f32], &[f32], &[f32]),
        weight: Option<&[f32]>,
        dnorm: &mut [f32],
        unrotated: &mut [f32],
        row: usize,
    ) {
        let (cosines, sines) = self.rope.at(self.positions[row] as usize);
        let d = 2 * cosines.len();
        let Some(weight) = weight else {
            dx.copy_from_slice(dout);
            for head in dx.chunks_exact_mut(d) {
                rotate_back(head, cosines, sines);
            }
            return;
        };
        let together = weight.len();
        let groups = dx.chunks_exact_mut(together).zip(dout.chunks_exact(together)).zip(x.chunks_exact(together));
        for ((dx, dout), x) in groups {
            let unrotated = &mut unrotated[..together];
            unrotated.copy_from_slice(dout);
            for head in unrotated.chunks_exact_mut(d) {
                rotate_back(head, cosines, sines);
            }
            dx.fill(0.0);
            row_backward(dx, dnorm, unrotated, x, weight, self.eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::attention::CacheType;
    use crate::check::{assert_close, assert_derivative, values, wide};

    fn reference(qkv: &[f64], norms: Option<[&[f64]; 2]>, positions: &[u32], heads: Heads) -> Vec<f64> {
        let d = heads.head_dim;
        let mut out = Vec::new();
        for (n, row) in qkv.chunks(heads.qkv_dim()).enumerate() {
            let mut row = row[..heads.query_dim() + heads.kv_dim()].to_vec();
            if let Some(norms) = norms {
                let (q, k) = row.split_at_mut(heads.query_dim());
                for (x, weight) in [q, k].into_iter().zip(norms) {
                    for x in x.chunks_mut(weight.len()) {
                        let r = (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + 1e-6).sqrt();
                        x.iter_mut().zip(weight).for_each(|(x, w)| *x *= w / r);
                    }
                }
            }
            for x in row.chunks(d) {
                for i in 0..d {
                    let j = i % (d / 2);
                    let angle = f64::from(positions[n]) * 1e4f64.powf(-2.0 * j as f64 / d as f64);
                    let other = if i < d / 2 { -x[i + d / 2] } else { x[i - d / 2] };
                    out.push(x[i] * angle.cos() + other * angle.sin());
                }
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(30))]
        #[test]
        fn heads_and_derivatives_equal_the_plain_ones(
            sequences in 1usize..3, time in 1usize..40, start in 0usize..5, kv_heads in 1usize..3, group in 1usize..4,
            half in 1usize..12, normed in any::<bool>(), together in any::<bool>(),
        ) {
            let heads = Heads { query_heads: kv_heads * group, kv_heads, head_dim: 2 * half };
            let (d, rows) = (heads.head_dim, sequences * time);
            let positions: Vec<u32> = (0..rows).map(|row| (start + row % time) as u32).collect();
            let mut rope = RopeTable::new(d, 1e4);
            rope.grow_to(start + time);
            let qkv = values(rows * heads.qkv_dim(), 0.1);
            let lengths = if together { [heads.query_dim(), heads.kv_dim()] } else { [d, d] };
            let (wq, wk) = (values(lengths[0], 0.2), values(lengths[1], 0.3));
            let norms = normed.then_some(QkNorms { q: &wq, k: &wk });
            let (dq, dk) = (values(rows * heads.query_dim(), 0.4), values(rows * heads.kv_dim(), 0.5));
            let dv = values(rows * heads.kv_dim(), 0.6);
            let run = |count| {
                let threads = Threads::new(count);
                let (mut q, mut k) = (vec![f32::NAN; dq.len()], vec![f32::NAN; dk.len()]);
                let op = QkNormRope { heads, norms, eps: 1e-6, rope: &rope, positions: &positions };
                op.forward(&threads, &mut q, &mut k, &qkv);
                let (mut dqkv, mut dwq, mut dwk) =
                    (vec![f32::NAN; qkv.len()], vec![0.0; lengths[0]], vec![0.0; lengths[1]]);
                let mut dnorms = QkNormGradients { q: &mut dwq, k: &mut dwk };
                let dnorms = normed.then_some(&mut dnorms);
                op.backward(&threads, &mut dqkv, dnorms, QkvDerivatives { q: &dq, k: &dk, v: &dv }, &qkv);
                (q, k, dqkv, dwq, dwk)
            };
            let found = run(1);
            prop_assert_eq!(&found, &run(3));
            let (q, k, dqkv, dwq, dwk) = found;
            // Queries and keys of a row side by side, as the reference has them.
            let joined = |q: &[f32], k: &[f32]| -> Vec<f32> {
                let rows = q.chunks(heads.query_dim()).zip(k.chunks(heads.kv_dim()));
                rows.flat_map(|(q, k)| [q, k].concat()).collect()
            };
            let (a, b) = (wide(&wq), wide(&wk));
            let plain = |qkv: &[f64], a: &[f64], b: &[f64]| reference(qkv, normed.then_some([a, b]), &positions, heads);
            assert_close(&joined(&q, &k), &plain(&wide(&qkv), &a, &b), 1e-4);
            // Into the caches of the sequences go the same keys, and the values; chunk by chunk.
            let mut caches = vec![KvCache::new(CacheType::F32, kv_heads, d); sequences];
            for chunk in [0..time / 2, time / 2..time] {
                let rows: Vec<usize> = (0..sequences).flat_map(|s| chunk.clone().map(move |t| s * time + t)).collect();
                let positions: Vec<u32> = rows.iter().map(|&row| positions[row]).collect();
                let qkv: Vec<f32> = rows.iter().flat_map(|row| &qkv[row * heads.qkv_dim()..][..heads.qkv_dim()]).copied().collect();
                let mut found = vec![f32::NAN; rows.len() * heads.query_dim()];
                let op = QkNormRope { heads, norms, eps: 1e-6, rope: &rope, positions: &positions };
                let caches = caches.iter_mut().map(|cache| (cache, chunk.len()));
                op.forward_into_caches(&Threads::new(2), &mut found, &qkv, caches);
                let expected: Vec<f32> = rows.iter().flat_map(|row| &q[row * heads.query_dim()..][..heads.query_dim()]).copied().collect();
                prop_assert_eq!(found, expected);
            }
            for (cache, (k, qkv)) in caches.iter().zip(k.chunks(time * heads.kv_dim()).zip(qkv.chunks(time * heads.qkv_dim()))) {
                let v = qkv.chunks(heads.qkv_dim()).flat_map(|row| &row[heads.query_dim() + heads.kv_dim()..]);
                prop_assert_eq!(cache.stored(), (k.to_vec(), v.copied().collect()));
            }

            let dout = joined(&dq, &dk);
            let kv_start = heads.query_dim() + heads.kv_dim();
            for (dqkv, dv) in dqkv.chunks(heads.qkv_dim()).zip(dv.chunks(heads.kv_dim())) {
                prop_assert_eq!(&dqkv[kv_start..], dv);
            }
            let mut without_values = dqkv.clone();
            without_values.chunks_mut(heads.qkv_dim()).for_each(|row| row[kv_start..].fill(0.0));
            assert_derivative(&without_values, &dout, &qkv, |qkv| plain(qkv, &a, &b), 1e-3);
            if normed {
                assert_derivative(&dwq, &dout, &wq, |a| plain(&wide(&qkv), a, &b), 1e-3);
                assert_derivative(&dwk, &dout, &wk, |b| plain(&wide(&qkv), &a, b), 1e-3);
            }
        }
    }
}

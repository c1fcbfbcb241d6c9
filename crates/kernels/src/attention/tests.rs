use proptest::prelude::*;

use super::*;
use crate::{Heads, Threads};

fn values(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 + seed) * 1.618).sin()).collect()
}

/// Sequences of `keys` positions, of which the last `queries` ask.
#[derive(Clone, Copy)]
struct Sizes {
    sequences: usize,
    queries: usize,
    keys: usize,
    heads: Heads,
}

impl Sizes {
    fn whole(shape: Shape) -> Self {
        Self { sequences: shape.sequences, queries: shape.time, keys: shape.time, heads: shape.heads }
    }
}

/// Attention by its definition, in f64, with the whole row of scores.
fn reference(q: &[f64], k: &[f64], v: &[f64], starts: Option<&[u32]>, sizes: Sizes) -> Vec<f64> {
    let Sizes { sequences, queries, keys, heads: Heads { query_heads, kv_heads, head_dim: d } } = sizes;
    let mut out = vec![0.0; q.len()];
    for (s, t, h) in indices(sequences, queries, query_heads) {
        let q_at = ((s * queries + t) * query_heads + h) * d;
        let kv_at = |key: usize| ((s * keys + key) * kv_heads + h / (query_heads / kv_heads)) * d;
        let start = starts.map_or(0, |starts| starts[s * queries + t] as usize);
        let scores: Vec<f64> = (start..=keys - queries + t)
            .map(|key| (0..d).map(|i| q[q_at + i] * k[kv_at(key) + i]).sum::<f64>() / (d as f64).sqrt())
            .collect();
        let max = scores.iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = scores.iter().map(|x| (x - max).exp()).sum();
        for (key, score) in (start..).zip(&scores) {
            for i in 0..d {
                out[q_at + i] += (score - max).exp() / total * v[kv_at(key) + i];
            }
        }
    }
    out
}

fn indices(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a * b * c).map(move |i| (i / c / b, i / c % b, i % c))
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&a, b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(a) - b).abs() <= tolerance, "element {i}: {a} instead of {b}");
    }
}

fn rows(data: &[f32], shape: Shape) -> Rows<'_> {
    Rows { data, stride: shape.heads.kv_dim() }
}

/// Outputs of the training pass.
fn forward_with(threads: usize, q: &[f32], k: &[f32], v: &[f32], shape: Shape) -> (Vec<f32>, Vec<f32>) {
    let (mut out, mut log_sums) = (vec![f32::NAN; q.len()], vec![f32::NAN; q.len() / shape.heads.head_dim]);
    let inputs = Inputs { q, k: rows(k, shape), v: rows(v, shape), document_starts: None, shape };
    forward(&Threads::new(threads), &mut out, &mut log_sums, inputs);
    (out, log_sums)
}

/// Appends the rows of `k` and `v` from `first` up to `last`.
fn append(cache: &mut KvCache, threads: &Threads, k: &[f32], v: &[f32], first: usize, last: usize) {
    let (heads, d) = (cache.kv_heads(), cache.head_dim());
    cache.append(threads, last - first, |row, head, key| {
        let start = ((first + row) * heads + head) * d;
        key.copy_from_slice(&k[start..][..d]);
        &v[start..][..d]
    });
}

const CACHE_TYPES: [CacheType; 3] = [CacheType::F32, CacheType::F16, CacheType::Int8];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn blocks_give_the_attention_of_the_definition(
        sequences in 1usize..3, queries in 1usize..200, kv_heads in 1usize..3, group in 1usize..9,
        head_dim in prop::sample::select(vec![2usize, 6, 16, 24]),
    ) {
        let shape = Shape { sequences, time: queries, heads: Heads { query_heads: kv_heads * group, kv_heads, head_dim } };
        let q = values(sequences * queries * shape.heads.query_dim(), 0.1);
        let k = values(sequences * queries * kv_heads * head_dim, 0.2);
        let v = values(sequences * queries * kv_heads * head_dim, 0.3);
        let (out, log_sums) = forward_with(1, &q, &k, &v, shape);
        assert_close(&out, &reference(&wide(&q), &wide(&k), &wide(&v), None, Sizes::whole(shape)), 2e-6);
        for threads in [2, 3, 5] {
            prop_assert_eq!((&out, &log_sums), (&forward_with(threads, &q, &k, &v, shape).0, &log_sums));
        }
    }

    #[test]
    fn every_cache_gives_the_attention_of_what_it_stores(
        past in prop::sample::select(vec![0usize, 1, 62, 63, 64, 65, 127, 128, 129, 300, 700]), queries in 1usize..150,
        kv_heads in 1usize..3, group in 1usize..9, head_dim in prop::sample::select(vec![2usize, 7, 16, 24, 80]),
        one in any::<bool>(), which in 0..3,
    ) {
        let (queries, cache_type) = (if one { 1 } else { queries }, CACHE_TYPES[which as usize]);
        let keys = past + queries;
        let sizes = Sizes { sequences: 1, queries, keys, heads: Heads { query_heads: kv_heads * group, kv_heads, head_dim } };
        let q = values(queries * sizes.heads.query_dim(), 0.1);
        let (k, v) = (values(keys * kv_heads * head_dim, 0.2), values(keys * kv_heads * head_dim, 0.3));
        let run = |threads| {
            let threads = Threads::new(threads);
            let mut cache = KvCache::new(cache_type, kv_heads, head_dim);
            append(&mut cache, &threads, &k, &v, 0, past);
            append(&mut cache, &threads, &k, &v, past, keys);
            let mut out = vec![f32::NAN; q.len()];
            cached(&threads, &mut out, &q, sizes.heads.query_heads, &[(&cache, queries)]);
            (out, cache)
        };
        let (out, cache) = run(1);
        let (k, v) = cache.stored();
        assert_close(&out, &reference(&wide(&q), &wide(&k), &wide(&v), None, sizes), 3e-6);
        for threads in [2, 3, 5] {
            prop_assert_eq!(&out, &run(threads).0);
        }
    }
}

/// Bits that do not depend on company: however the queries of a sequence are cut into passes, and whatever other sequences
/// share them.
#[test]
fn the_cut_into_passes_and_the_company_change_no_bit() {
    let (query_heads, kv_heads, head_dim) = (8, 2, 16);
    let (query_dim, kv_dim) = (query_heads * head_dim, kv_heads * head_dim);
    let lengths = [700, 60, 300];
    let of = |sequence: usize| {
        let seed = sequence as f32;
        let keys = lengths[sequence];
        (values(keys * query_dim, 0.1 + seed), values(keys * kv_dim, 0.2 + seed), values(keys * kv_dim, 0.3 + seed))
    };
    let sequences: Vec<_> = (0..lengths.len()).map(of).collect();
    for cache_type in CACHE_TYPES {
        let empty = || KvCache::new(cache_type, kv_heads, head_dim);
        let at_once: Vec<Vec<f32>> = sequences
            .iter()
            .zip(lengths)
            .map(|((q, k, v), keys)| {
                let (threads, mut cache, mut out) = (Threads::new(3), empty(), vec![f32::NAN; q.len()]);
                append(&mut cache, &threads, k, v, 0, keys);
                cached(&threads, &mut out, q, query_heads, &[(&cache, keys)]);
                out
            })
            .collect();
        for (step, threads) in [(1, 2), (3, 1), (37, 2), (129, 5)] {
            let threads = Threads::new(threads);
            let mut caches = vec![empty(); lengths.len()];
            let mut done = [0; 3];
            // Sequences take turns in being ahead, so that rows of one meet few and many rows of others.
            for turn in 0.. {
                let mut parts = Vec::new();
                for (s, (_, k, v)) in sequences.iter().enumerate() {
                    let rows = (step * (1 + (turn + s) % 3)).min(lengths[s] - done[s]);
                    append(&mut caches[s], &threads, k, v, done[s], done[s] + rows);
                    parts.push((s, done[s], rows));
                    done[s] += rows;
                }
                parts.retain(|&(_, _, rows)| rows > 0);
                if parts.is_empty() {
                    break;
                }
                let slice = |x: &[f32], first: usize, rows: usize| x[first * query_dim..][..rows * query_dim].to_vec();
                let q: Vec<f32> =
                    parts.iter().flat_map(|&(s, first, rows)| slice(&sequences[s].0, first, rows)).collect();
                let mut out = vec![f32::NAN; q.len()];
                let together: Vec<_> = parts.iter().map(|&(s, _, rows)| (&caches[s], rows)).collect();
                cached(&threads, &mut out, &q, query_heads, &together);
                let expected: Vec<f32> =
                    parts.iter().flat_map(|&(s, first, rows)| slice(&at_once[s], first, rows)).collect();
                assert!(out == expected, "{cache_type}, steps of {step}");
            }
        }
    }
}

#[test]
fn clones_share_pages_until_one_of_them_is_written() {
    let (tokens, heads, d) = (150, 2, 16);
    let (k, v) = (values(tokens * heads * d, 0.1), values(tokens * heads * d, 0.2));
    let threads = Threads::single();
    let mut first = KvCache::new(CacheType::F32, heads, d);
    append(&mut first, &threads, &k, &v, 0, 100);
    let mut second = first.clone();
    // Another text behind the same beginning.
    append(&mut second, &threads, &v, &k, 100, tokens);
    append(&mut first, &threads, &k, &v, 100, tokens);
    assert_eq!(first.stored(), (k.clone(), v.clone()));
    let (keys, values) = second.stored();
    let beginning = 100 * heads * d;
    assert_eq!((&keys[..beginning], &values[..beginning]), (&k[..beginning], &v[..beginning]));
    assert_eq!((&keys[beginning..], &values[beginning..]), (&v[beginning..], &k[beginning..]));
    // What was forgotten leaves no trace.
    second.truncate(70);
    append(&mut second, &threads, &k, &v, 70, tokens);
    assert_eq!(second.stored(), first.stored());
}

#[test]
fn large_scores_do_not_overflow() {
    let shape = Shape { sequences: 1, time: 70, heads: Heads { query_heads: 1, kv_heads: 1, head_dim: 4 } };
    let q: Vec<f32> = values(70 * 4, 0.1).iter().map(|x| x * 300.0).collect();
    let v = values(70 * 4, 0.3);
    let (out, _) = forward_with(1, &q, &q, &v, shape);
    assert_close(&out, &reference(&wide(&q), &wide(&q), &wide(&v), None, Sizes::whole(shape)), 1e-4);
}

#[test]
fn derivatives_equal_finite_differences() {
    let cases = [
        (1, 1, 1, 6, None),
        (5, 2, 3, 6, None),
        (70, 1, 2, 20, None),
        (130, 2, 1, 64, None),
        (5, 1, 2, 6, Some(2)),
        (200, 1, 2, 6, Some(66)),
        (150, 1, 4, 6, Some(7)),
    ];
    for (time, kv_heads, group, d, document) in cases {
        // Documents of `document` tokens, the first of the second sequence shorter.
        let starts = document.map(|document| {
            let start = |s: usize, t: usize| ((t + s) / document * document).saturating_sub(s) as u32;
            (0..2 * time).map(|row| start(row / time, row % time)).collect::<Vec<u32>>()
        });
        let starts = starts.as_deref();
        let heads = Heads { query_heads: kv_heads * group, kv_heads, head_dim: d };
        let shape = Shape { sequences: 2, time, heads };
        let q = values(2 * time * heads.query_dim(), 0.1);
        let k = values(2 * time * kv_heads * d, 0.2);
        // Values live in wider rows, as in the output of the projection.
        let v_wide = values(2 * time * (kv_heads * d + 3), 0.3);
        let v: Vec<f32> = v_wide.chunks(kv_heads * d + 3).flat_map(|row| &row[..kv_heads * d]).copied().collect();
        let v_rows = Rows { data: &v_wide, stride: kv_heads * d + 3 };
        let dout = values(q.len(), 0.4);

        let run = |count| {
            let threads = Threads::new(count);
            let (mut out, mut log_sums) = (vec![0.0; q.len()], vec![0.0; q.len() / d]);
            let inputs = Inputs { q: &q, k: rows(&k, shape), v: v_rows, document_starts: starts, shape };
            forward(&threads, &mut out, &mut log_sums, inputs);
            let (mut dq, mut dk, mut dv) = (vec![f32::NAN; q.len()], vec![f32::NAN; k.len()], vec![f32::NAN; k.len()]);
            let gradients = Gradients { q: &mut dq, k: &mut dk, v: &mut dv };
            backward(&threads, gradients, &dout, &out, &log_sums, inputs);
            (dq, dk, dv)
        };
        let (dq, dk, dv) = run(1);
        assert_eq!((&dq, &dk, &dv), (&run(3).0, &run(3).1, &run(3).2));

        let loss = |inputs: &[Vec<f64>; 3]| -> f64 {
            let out = reference(&inputs[0], &inputs[1], &inputs[2], starts, Sizes::whole(shape));
            out.iter().zip(&dout).map(|(o, &d)| o * f64::from(d)).sum()
        };
        let mut inputs = [wide(&q), wide(&k), wide(&v)];
        for (which, gradient) in [dq, dk, dv].iter().enumerate() {
            for i in (0..gradient.len()).step_by(gradient.len() / 7 + 1) {
                let kept = inputs[which][i];
                inputs[which][i] = kept + 1e-5;
                let above = loss(&inputs);
                inputs[which][i] = kept - 1e-5;
                let difference = (above - loss(&inputs)) / 2e-5;
                inputs[which][i] = kept;
                let found = f64::from(gradient[i]);
                assert!(
                    (found - difference).abs() < 2e-5,
                    "input {which}, element {i}: {found} instead of {difference}"
                );
            }
        }
    }
}

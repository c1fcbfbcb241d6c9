use proptest::prelude::*;

use super::*;
use crate::Threads;

fn values(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 + seed) * 1.618).sin()).collect()
}

/// Attention by its definition, in f64, with the whole row of scores.
fn reference(q: &[f64], k: &[f64], v: &[f64], shape: Shape) -> Vec<f64> {
    let Shape { sequences, queries, keys, query_heads, kv_heads, head_dim: d } = shape;
    let mut out = vec![0.0; q.len()];
    for (s, t, h) in indices(sequences, queries, query_heads) {
        let q_at = ((s * queries + t) * query_heads + h) * d;
        let kv_at = |key: usize| ((s * keys + key) * kv_heads + h / (query_heads / kv_heads)) * d;
        let scores: Vec<f64> = (0..=keys - queries + t)
            .map(|key| (0..d).map(|i| q[q_at + i] * k[kv_at(key) + i]).sum::<f64>() / (d as f64).sqrt())
            .collect();
        let max = scores.iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = scores.iter().map(|x| (x - max).exp()).sum();
        for (key, score) in scores.iter().enumerate() {
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
    Rows { data, stride: shape.kv_heads * shape.head_dim }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn blocks_give_the_attention_of_the_definition(
        sequences in 1usize..3, queries in 1usize..140, past in 0usize..90, kv_heads in 1usize..3, group in 1usize..5,
        head_dim in prop::sample::select(vec![2usize, 6, 16, 24]), keep in any::<bool>(),
    ) {
        let shape = Shape { sequences, queries, keys: queries + past, query_heads: kv_heads * group, kv_heads, head_dim };
        let q = values(sequences * queries * shape.query_dim(), 0.1);
        let k = values(sequences * shape.keys * kv_heads * head_dim, 0.2);
        let v = values(sequences * shape.keys * kv_heads * head_dim, 0.3);
        let run = |count| {
            let mut out = vec![f32::NAN; q.len()];
            let mut log_sums = vec![0.0; q.len() / head_dim];
            let log_sums = if keep { Some(&mut log_sums[..]) } else { None };
            forward(&Threads::new(count), &mut out, log_sums, &q, rows(&k, shape), rows(&v, shape), shape);
            out
        };
        let out = run(1);
        assert_close(&out, &reference(&wide(&q), &wide(&k), &wide(&v), shape), 2e-6);
        prop_assert_eq!(out, run(3));
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let shape = Shape { sequences: 1, queries: 70, keys: 70, query_heads: 1, kv_heads: 1, head_dim: 4 };
    let q: Vec<f32> = values(70 * 4, 0.1).iter().map(|x| x * 300.0).collect();
    let v = values(70 * 4, 0.3);
    let mut out = vec![0.0; q.len()];
    forward(&Threads::single(), &mut out, None, &q, rows(&q, shape), rows(&v, shape), shape);
    assert_close(&out, &reference(&wide(&q), &wide(&q), &wide(&v), shape), 1e-4);
}

#[test]
fn derivatives_equal_finite_differences() {
    for (time, kv_heads, group) in [(1, 1, 1), (5, 2, 3), (70, 1, 2), (130, 2, 1)] {
        let shape =
            Shape { sequences: 2, queries: time, keys: time, query_heads: kv_heads * group, kv_heads, head_dim: 6 };
        let q = values(2 * time * shape.query_dim(), 0.1);
        let k = values(2 * time * kv_heads * 6, 0.2);
        // Values live in wider rows, as in the output of the projection.
        let v_wide = values(2 * time * (kv_heads * 6 + 3), 0.3);
        let v: Vec<f32> = v_wide.chunks(kv_heads * 6 + 3).flat_map(|row| &row[..kv_heads * 6]).copied().collect();
        let v_rows = Rows { data: &v_wide, stride: kv_heads * 6 + 3 };
        let dout = values(q.len(), 0.4);

        let run = |count| {
            let threads = Threads::new(count);
            let (mut out, mut log_sums) = (vec![0.0; q.len()], vec![0.0; q.len() / 6]);
            forward(&threads, &mut out, Some(&mut log_sums), &q, rows(&k, shape), v_rows, shape);
            let (mut dq, mut dk, mut dv) = (vec![f32::NAN; q.len()], vec![f32::NAN; k.len()], vec![f32::NAN; k.len()]);
            let gradients = Gradients { q: &mut dq, k: &mut dk, v: &mut dv };
            backward(&threads, gradients, &dout, &out, &log_sums, &q, rows(&k, shape), v_rows, shape);
            (dq, dk, dv)
        };
        let (dq, dk, dv) = run(1);
        assert_eq!((&dq, &dk, &dv), (&run(3).0, &run(3).1, &run(3).2));

        let loss = |inputs: &[Vec<f64>; 3]| -> f64 {
            let out = reference(&inputs[0], &inputs[1], &inputs[2], shape);
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

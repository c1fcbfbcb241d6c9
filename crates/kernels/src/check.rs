//! What the tests of the operations share: numbers, comparison and finite differences.

/// Deterministic values in [-1, 1].
pub(crate) fn values(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|i| ((i as f32 + seed) * 1.618).sin()).collect()
}

pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

pub(crate) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (&a, b)) in found.iter().zip(expected).enumerate() {
        assert!((f64::from(a) - b).abs() <= tolerance * (1.0 + b.abs()), "element {i}: {a} instead of {b}");
    }
}

/// Compares some elements of `gradient` with central differences of `sum of dout * f(x)`.
pub(crate) fn assert_derivative(
    gradient: &[f32],
    dout: &[f32],
    x: &[f32],
    f: impl Fn(&[f64]) -> Vec<f64>,
    tolerance: f64,
) {
    assert_eq!(gradient.len(), x.len());
    let loss = |x: &[f64]| -> f64 { f(x).iter().zip(dout).map(|(y, &d)| y * f64::from(d)).sum() };
    let mut x = wide(x);
    for i in (0..x.len()).step_by(x.len() / 13 + 1) {
        let (kept, step) = (x[i], 1e-6);
        x[i] = kept + step;
        let above = loss(&x);
        x[i] = kept - step;
        let expected = (above - loss(&x)) / (2.0 * step);
        x[i] = kept;
        let found = f64::from(gradient[i]);
        let near = (found - expected).abs() <= tolerance * (1.0 + expected.abs());
        assert!(near, "derivative {i}: {found} instead of {expected}");
    }
}

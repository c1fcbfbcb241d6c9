use proptest::prelude::*;

use super::*;
use crate::check::values;

/// Rows, columns and inner dimension of a product, and whether the rows of A and of B are contiguous or their columns.
#[derive(Debug, Clone, Copy)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    a_by_rows: bool,
    b_by_rows: bool,
}

impl Case {
    fn new(m: usize, n: usize, k: usize) -> [Self; 4] {
        [(true, true), (true, false), (false, true), (false, false)].map(|(a_by_rows, b_by_rows)| Self {
            m,
            n,
            k,
            a_by_rows,
            b_by_rows,
        })
    }

    /// `1 + 2 a b`, in two calls, with parts of B of `packed` elements; `run` chooses the instruction set.
    fn product(self, threads: &Threads, packed: usize, run: impl Fn(Gemm<'_>)) -> Vec<f32> {
        let Self { m, n, k, a_by_rows, b_by_rows } = self;
        let (a, b) = (values(m * k, 0.1), values(k * n, 0.2));
        let a = if a_by_rows { View::rows(&*a, k) } else { View::rows(&*a, m).transposed() };
        let (b_rows, b_columns) = (View::rows(Matrix::F32(&b), n), View::rows(Matrix::F32(&b), k).transposed());
        let b = if b_by_rows { b_rows } else { b_columns };
        // Rows that are wider than the product: what lies between must stay.
        let stride = n + 3;
        let mut out = vec![1.0; m * stride];
        let mut panels = Vec::new();
        for _ in 0..2 {
            let product = Product { m, n, k, a, b, accumulate: true };
            run(Gemm { threads, out: &mut out, stride, product, panels: &mut panels, packed });
        }
        assert!(out.chunks(stride).all(|row| row[n..] == [1.0; 3]), "written beyond the columns");
        out.chunks(stride).flat_map(|row| row[..n].to_vec()).collect()
    }

    fn assert_close(self, found: &[f32]) {
        let Self { m, n, k, a_by_rows, b_by_rows } = self;
        let (a, b) = (values(m * k, 0.1), values(k * n, 0.2));
        let a = |i: usize, p: usize| f64::from(if a_by_rows { a[i * k + p] } else { a[p * m + i] });
        let b = |p: usize, j: usize| f64::from(if b_by_rows { b[p * n + j] } else { b[j * k + p] });
        for (e, &found) in found.iter().enumerate() {
            let expected = 1.0 + 2.0 * (0..k).map(|p| a(e / n, p) * b(p, e % n)).sum::<f64>();
            let tolerance = 2e-6 * (k as f64 + 10.0);
            assert!((f64::from(found) - expected).abs() < tolerance, "{self:?}, {e}: {found} instead of {expected}");
        }
    }

    /// Compares every instruction set of this processor, and any number of threads, with the plain code and that with f64.
    fn check(self, packed: usize) {
        let alone = Threads::single();
        let plain = self.product(&alone, packed, |gemm| gemm.with_simd(pulp::Scalar::new()));
        self.assert_close(&plain);
        for count in [1, 3] {
            let threads = Threads::new(count);
            #[cfg(target_arch = "x86_64")]
            if let Some(v3) = pulp::x86::V3::try_new() {
                assert_eq!(self.product(&threads, packed, |gemm| Simd::vectorize(v3, gemm)), plain, "AVX2, {self:?}");
            }
            assert_eq!(self.product(&threads, packed, |gemm| pulp::Arch::new().dispatch(gemm)), plain, "{self:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]
    #[test]
    fn every_instruction_set_gives_the_plain_sums(m in 1usize..60, n in 1usize..90, k in 0usize..300) {
        for case in Case::new(m, n, k) {
            case.check(PACKED);
        }
    }
}

#[test]
fn several_parts_of_b_slices_and_tiles_in_a_task_are_put_together() {
    // More rows than one tile per task; several slices; parts of B both across and down, which a small buffer makes.
    for (m, n, k) in [(331, 40, 513), (300, 70, 257), (30, 1100, 520), (13, 1030, 700)] {
        for case in Case::new(m, n, k) {
            case.check(512 * 256);
        }
    }
}

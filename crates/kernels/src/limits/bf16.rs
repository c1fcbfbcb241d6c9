//! The peak of inner products of `bf16`, from registers.

use std::hint::black_box;
use std::sync::OnceLock;

use half::bf16;

use super::{f32_peak, peak};
use crate::Threads;
use crate::lanes::{Kernel, LANES, Lanes, has_pairs, with_pairs};

/// Operations per second of products of `bf16` that are added up in `f32`; a product added to a sum counts as two. `None` where
/// the processor has no instruction for it. On some it is slower than [`f32_peak`](super::f32_peak).
pub fn bf16_peak(threads: &Threads) -> Option<f64> {
    has_pairs().then(|| peak(threads, || with_pairs(Probe).unwrap_or(0.0)))
}

/// How much faster products of `bf16` must be to be worth their rounding.
const WORTHWHILE: f64 = 1.2;

/// Whether products of `bf16` are so much faster than those of `f32` on this processor that rounding to them pays. Measured
/// once in a process, for some tenths of a second, where there is an instruction for them.
pub fn bf16_is_faster(threads: &Threads) -> bool {
    static MEASURED: OnceLock<bool> = OnceLock::new();
    *MEASURED.get_or_init(|| bf16_peak(threads).is_some_and(|peak| peak > WORTHWHILE * f32_peak(threads)))
}

struct Probe;

impl Kernel for Probe {
    type Output = f64;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> f64 {
        const ROUNDS: usize = 2_000_000;
        const CHAINS: usize = crate::limits::CHAINS[0];
        let (x, y) = black_box(([bf16::ONE; 2 * LANES], [bf16::EPSILON; 2 * LANES]));
        let (x, y) = (lanes.load_pairs(&x), lanes.load_pairs(&y));
        let mut sums = [lanes.splat(0.0); CHAINS];
        for _ in 0..ROUNDS {
            for sum in &mut sums {
                *sum = lanes.add_pairs(x, y, *sum);
            }
        }
        black_box(sums.map(|sum| lanes.to_array(sum)));
        (2 * 2 * LANES * ROUNDS * CHAINS) as f64
    }
}

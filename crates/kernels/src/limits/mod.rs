//! What this processor and its memory can do at best: the limits that measured rates are held against.
//!
//! A probe runs a few times and the best run counts: on a shared machine the others were disturbed. A run takes some
//! hundredths of a second, on all threads at once.

mod bf16;
mod int8;

use std::hint::black_box;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};

pub use bf16::{bf16_is_faster, bf16_peak};
pub use int8::{Int8Peak, int8_peak};

use crate::Threads;
use crate::simd::{LANES, dispatch};

/// Runs of a probe.
const RUNS: usize = 5;

/// Units per second of the best of some runs; `run` gives the units it got through.
fn best_rate(mut run: impl FnMut() -> f64) -> f64 {
    let rates = (0..RUNS).map(|_| {
        let begin = Instant::now();
        let units = run();
        units / begin.elapsed().as_secs_f64()
    });
    rates.fold(0.0, f64::max)
}

/// Operations per second of all threads together; `probe` gives the operations that one thread carried out.
fn peak(threads: &Threads, probe: impl Fn() -> f64 + Sync) -> f64 {
    best_rate(|| {
        let mut operations = vec![0.0; threads.count()];
        threads.for_each_chunk(&mut operations, 1, |_, operations| operations[0] = probe());
        operations.iter().sum()
    })
}

/// Operations per second of fused multiply-adds of `f32` in registers; each counts as two.
pub fn f32_peak(threads: &Threads) -> f64 {
    peak(threads, || Arch::new().dispatch(MultiplyAdd))
}

/// Chains of dependent operations that hide the latency of each, on processors with 32 vector registers and with 16.
const CHAINS: [usize; 2] = [16, 12];

struct MultiplyAdd;

impl WithSimd for MultiplyAdd {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        if S::REGISTER_COUNT >= 32 {
            multiply_add::<S, { CHAINS[0] }>(simd)
        } else {
            multiply_add::<S, { CHAINS[1] }>(simd)
        }
    }
}

#[inline(always)]
fn multiply_add<S: Simd, const CHAINS: usize>(simd: S) -> f64 {
    const ROUNDS: usize = 4_000_000;
    let mut sums = black_box([simd.splat_f32s(1.0); CHAINS]);
    let factor = simd.splat_f32s(black_box(0.999));
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = simd.mul_add_f32s(*sum, factor, factor);
        }
    }
    black_box(sums);
    (2 * ROUNDS * CHAINS * S::F32_LANES) as f64
}

/// Bytes per second at which all threads together read `bytes` of memory, which should be many times the size of the caches.
pub fn read_bandwidth(threads: &Threads, bytes: usize) -> f64 {
    /// Elements of a task.
    const TASK: usize = 1 << 20;
    /// Vectors read side by side.
    const WIDTH: usize = 4 * LANES;
    let mut values = vec![1.0f32; bytes.div_ceil(size_of::<f32>()).next_multiple_of(TASK)];
    best_rate(|| {
        threads.for_each_chunk(&mut values, TASK, |_, values| {
            dispatch(
                #[inline(always)]
                || {
                    let mut sums = [0.0; WIDTH];
                    for values in values.as_chunks::<WIDTH>().0 {
                        for (sum, value) in sums.iter_mut().zip(values) {
                            *sum += value;
                        }
                    }
                    black_box(sums);
                },
            );
        });
        size_of_val(&values[..]) as f64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_probes_find_a_rate() {
        let threads = Threads::new(2);
        let rates = [f32_peak(&threads), int8_peak(&threads).operations_per_second, read_bandwidth(&threads, 1)];
        let rates = rates.into_iter().chain(bf16_peak(&threads)).collect::<Vec<_>>();
        assert!(rates.iter().all(|rate| rate.is_finite() && *rate > 0.0), "{rates:?}");
    }
}

//! The machine's limits, and what limit they set to a step.

use openelm_model::kernels::{Threads, limits};
use serde::Serialize;

use crate::address_space;
use crate::work::Work;

/// Memory that the bandwidth is measured on: far more than any processor's caches.
const PROBE_BYTES: usize = 1 << 30;

/// What the machine does at best with some threads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limits {
    /// Number of threads.
    pub threads: usize,
    /// Reading from memory.
    pub bytes_per_second: f64,
    /// Fused multiply-adds of `f32`, two operations each.
    pub f32_operations_per_second: f64,
    /// Products of `bf16` added up in `f32`, two operations each; `None` without an instruction for them.
    pub bf16_operations_per_second: Option<f64>,
    /// Products of 8-bit integers added up, two operations each.
    pub int8_operations_per_second: f64,
    /// The instructions that the latter were measured with.
    pub int8_instructions: &'static str,
}

/// What holds a step back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Reading weights and cache.
    Memory,
    /// Arithmetic in floating point.
    F32,
    /// Arithmetic in floating point, with factors of 16 bits.
    BF16,
    /// Arithmetic in 8-bit integers.
    Int8,
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Bound::Memory => "memory",
            Bound::F32 => "f32",
            Bound::BF16 => "bf16",
            Bound::Int8 => "int8",
        })
    }
}

impl Limits {
    /// Measures them; about a second.
    pub fn measure(threads: &Threads) -> Self {
        let available = openelm_model::available_memory().into_iter().chain(address_space::left()).min();
        let available = available.and_then(|bytes| usize::try_from(bytes / 4).ok());
        let int8 = limits::int8_peak(threads);
        Self {
            threads: threads.count(),
            bytes_per_second: limits::read_bandwidth(threads, available.unwrap_or(PROBE_BYTES).min(PROBE_BYTES)),
            f32_operations_per_second: limits::f32_peak(threads),
            bf16_operations_per_second: limits::bf16_peak(threads),
            int8_operations_per_second: int8.operations_per_second,
            int8_instructions: int8.instructions,
        }
    }

    /// The better of two measurements in each respect: the other was disturbed.
    pub fn best(self, other: &Self) -> Self {
        Self {
            bytes_per_second: self.bytes_per_second.max(other.bytes_per_second),
            f32_operations_per_second: self.f32_operations_per_second.max(other.f32_operations_per_second),
            bf16_operations_per_second: self
                .bf16_operations_per_second
                .into_iter()
                .chain(other.bf16_operations_per_second)
                .reduce(f64::max),
            int8_operations_per_second: self.int8_operations_per_second.max(other.int8_operations_per_second),
            ..self
        }
    }

    /// The least time for a step, in seconds, and what sets it: reading and arithmetic can go on at once, arithmetic of two
    /// kinds cannot.
    pub fn least_time(&self, work: &Work) -> (f64, Bound) {
        let reading = work.bytes as f64 / self.bytes_per_second;
        // What the processor has no instruction for is done in `f32`.
        let in_bf16 = self.bf16_operations_per_second.unwrap_or(self.f32_operations_per_second);
        let times = [
            (work.f32_operations as f64 / self.f32_operations_per_second, Bound::F32),
            (work.bf16_operations as f64 / in_bf16, Bound::BF16),
            (work.int8_operations as f64 / self.int8_operations_per_second, Bound::Int8),
        ];
        let arithmetic = times.iter().map(|(time, _)| time).sum();
        if reading >= arithmetic {
            return (reading, Bound::Memory);
        }
        let longest = times.into_iter().max_by(|(a, _), (b, _)| a.total_cmp(b));
        (arithmetic, longest.map_or(Bound::F32, |(_, bound)| bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        threads: 2,
        bytes_per_second: 10.0,
        f32_operations_per_second: 100.0,
        bf16_operations_per_second: Some(200.0),
        int8_operations_per_second: 400.0,
        int8_instructions: "",
    };

    #[test]
    fn the_slower_of_reading_and_arithmetic_sets_the_limit() {
        let least = |bytes, f32_operations, bf16_operations, int8_operations| {
            LIMITS.least_time(&Work { bytes, f32_operations, bf16_operations, int8_operations })
        };
        assert_eq!(least(50, 400, 0, 0), (5.0, Bound::Memory));
        assert_eq!(least(50, 600, 0, 0), (6.0, Bound::F32));
        assert_eq!(least(50, 200, 800, 0), (6.0, Bound::BF16));
        assert_eq!(least(50, 200, 0, 1600), (6.0, Bound::Int8));
        let without = Limits { bf16_operations_per_second: None, ..LIMITS };
        let work = Work { bf16_operations: 600, ..Work::default() };
        assert_eq!(without.least_time(&work), (6.0, Bound::BF16));
    }

    #[test]
    fn the_better_measurement_counts() {
        let other = Limits { bytes_per_second: 20.0, f32_operations_per_second: 90.0, ..LIMITS };
        let best = LIMITS.best(&other);
        assert_eq!((best.bytes_per_second, best.f32_operations_per_second), (20.0, 100.0));
    }
}

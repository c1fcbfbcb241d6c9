//! Plain code: the reference of the others, and the way on processors without them.

use half::{bf16, f16};

use super::{Kernel, LANES, Lanes, add_pairs_plainly};
use crate::fused::mul_add;
use crate::simd::reduce;

#[derive(Clone, Copy)]
pub(super) struct Scalar;

impl Lanes for Scalar {
    type Vector = [f32; LANES];
    type Pairs = [bf16; 2 * LANES];
    const WIDE_TILES: bool = false;

    #[inline]
    fn run<J: Kernel>(self, job: J) -> J::Output {
        job.run(self)
    }

    #[inline(always)]
    fn prefetch(self, _address: *const u8) {}

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; LANES] {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> [f32; LANES] {
        *x
    }

    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> [f32; LANES] {
        x.map(f16::to_f32)
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> [f32; LANES] {
        x.map(bf16::to_f32)
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> [f32; LANES] {
        x.map(f32::from)
    }

    #[inline(always)]
    fn to_array(self, x: [f32; LANES]) -> [f32; LANES] {
        x
    }

    #[inline(always)]
    fn mul_add(self, x: [f32; LANES], y: [f32; LANES], z: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| mul_add(x[i], y[i], z[i]))
    }

    #[inline(always)]
    fn load_pairs(self, x: &[bf16; 2 * LANES]) -> Self::Pairs {
        *x
    }

    #[inline(always)]
    fn add_pairs(self, x: Self::Pairs, y: Self::Pairs, sum: Self::Vector) -> Self::Vector {
        add_pairs_plainly(self, &x, &y, sum)
    }

    #[inline(always)]
    fn reduce(self, vectors: [[f32; LANES]; LANES]) -> [f32; LANES] {
        vectors.map(reduce)
    }

    #[inline(always)]
    fn transpose(self, rows: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
        std::array::from_fn(|j| rows.map(|row| row[j]))
    }
}

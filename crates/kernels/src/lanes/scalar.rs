//! Plain code, compiled for what `pulp` finds: the reference of the others, and the way on processors without them.

use half::{bf16, f16};

use super::{Job, LANES, Lanes};

#[derive(Clone, Copy)]
pub(super) struct Scalar;

impl Scalar {
    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        crate::simd::dispatch(
            #[inline(always)]
            || job.run(self),
        )
    }
}

impl Lanes for Scalar {
    type Vector = [f32; LANES];
    const WIDE_TILES: bool = false;

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
        std::array::from_fn(|i| x[i].mul_add(y[i], z[i]))
    }

    #[inline(always)]
    fn transpose(self, rows: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
        std::array::from_fn(|j| rows.map(|row| row[j]))
    }
}

//! Sixteen lanes of `f32` in registers, loaded from `f32`, `f16`, `bf16` and `i8`: for loops in which the layout of the
//! registers decides, such as products that stream weights and the tiles of attention.
//!
//! A kernel is a [`Kernel`], written once over [`Lanes`]; [`dispatch`] runs it with the implementation for this processor. All of
//! them give the same bits: multiply-adds are fused, and a sum over the lanes goes through [`reduce`](crate::simd::reduce).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(not(all(target_family = "wasm", target_feature = "simd128")))]
mod scalar;
#[cfg(all(target_family = "wasm", target_feature = "simd128"))]
mod wasm;

use half::{bf16, f16};

use crate::matrix::Matrix;
pub(crate) use crate::simd::LANES;
#[cfg(all(target_family = "wasm", target_feature = "simd128"))]
pub(crate) use wasm::widen_halves;

/// The operations of one instruction set. A value is the proof that the processor has it.
pub(crate) trait Lanes: Copy + Send + Sync {
    /// Sixteen `f32`.
    type Vector: Copy;

    /// Whether the registers hold the sums of a tile of 4 x 4 vectors, or only of 4 x 1.
    const WIDE_TILES: bool;

    /// Runs `job` as code of this instruction set: what is handed to other threads begins without.
    fn run<J: Kernel>(self, job: J) -> J::Output;

    /// Has the cache line at `address` fetched, if there is memory.
    fn prefetch(self, address: *const u8);
    fn splat(self, x: f32) -> Self::Vector;
    fn load(self, x: &[f32; LANES]) -> Self::Vector;
    fn load_f16(self, x: &[f16; LANES]) -> Self::Vector;
    fn load_bf16(self, x: &[bf16; LANES]) -> Self::Vector;
    fn load_i8(self, x: &[i8; LANES]) -> Self::Vector;
    fn to_array(self, x: Self::Vector) -> [f32; LANES];
    /// `x y + z`, rounded once.
    fn mul_add(self, x: Self::Vector, y: Self::Vector, z: Self::Vector) -> Self::Vector;
    /// Thirty-two `bf16`.
    type Pairs: Copy;

    fn load_pairs(self, x: &[bf16; 2 * LANES]) -> Self::Pairs;
    /// Thirty-two `f16`, rounded to `bf16`; ties go to even.
    #[inline(always)]
    fn round_f16(self, x: &[f16; 2 * LANES]) -> [bf16; 2 * LANES] {
        x.map(Half::to_bf16)
    }
    /// `sum + x1 y1 + x0 y0` in each lane, as [`add_pair`] has it.
    fn add_pairs(self, x: Self::Pairs, y: Self::Pairs, sum: Self::Vector) -> Self::Vector;
    /// The sum over the lanes of each vector, in the order of [`reduce`](crate::simd::reduce).
    fn reduce(self, vectors: [Self::Vector; LANES]) -> [f32; LANES];
    /// The columns of `rows`.
    fn transpose(self, rows: [Self::Vector; LANES]) -> [Self::Vector; LANES];
}

/// [`Lanes::add_pairs`] where there is no instruction for it.
#[inline(always)]
fn add_pairs_plainly<L: Lanes>(lanes: L, x: &[bf16; 2 * LANES], y: &[bf16; 2 * LANES], sum: L::Vector) -> L::Vector {
    let mut sums = lanes.to_array(sum);
    for (sum, (x, y)) in sums.iter_mut().zip(x.as_chunks::<2>().0.iter().zip(y.as_chunks::<2>().0)) {
        *sum = add_pair(*x, *y, *sum);
    }
    lanes.load(&sums)
}

/// A number as it is stored, which [`Lanes`] widen while they load it.
pub(crate) trait Element: bytemuck::Pod + Send + Sync {
    fn load<L: Lanes>(lanes: L, x: &[Self; LANES]) -> L::Vector;
}

macro_rules! element {
    ($type:ty, $load:ident) => {
        impl Element for $type {
            #[inline(always)]
            fn load<L: Lanes>(lanes: L, x: &[Self; LANES]) -> L::Vector {
                lanes.$load(x)
            }
        }
    };
}

element!(f32, load);
element!(f16, load_f16);
element!(bf16, load_bf16);
element!(i8, load_i8);

/// A number of sixteen bits, which enters products of pairs as `bf16`.
pub(crate) trait Half: Element {
    fn to_bf16(self) -> bf16;
    fn round<L: Lanes>(lanes: L, x: &[Self; 2 * LANES]) -> [bf16; 2 * LANES];
    /// Rows of such numbers.
    fn matrix(rows: &[Self]) -> Matrix<'_>;
}

impl Half for bf16 {
    #[inline(always)]
    fn to_bf16(self) -> bf16 {
        self
    }

    #[inline(always)]
    fn round<L: Lanes>(_lanes: L, x: &[Self; 2 * LANES]) -> [bf16; 2 * LANES] {
        *x
    }

    fn matrix(rows: &[Self]) -> Matrix<'_> {
        Matrix::BF16(rows)
    }
}

impl Half for f16 {
    #[inline(always)]
    fn to_bf16(self) -> bf16 {
        bf16::from_f32(self.to_f32())
    }

    #[inline(always)]
    fn round<L: Lanes>(lanes: L, x: &[Self; 2 * LANES]) -> [bf16; 2 * LANES] {
        lanes.round_f16(x)
    }

    fn matrix(rows: &[Self]) -> Matrix<'_> {
        Matrix::F16(rows)
    }
}

/// Work that is compiled for each instruction set.
pub(crate) trait Kernel {
    type Output;

    /// Implementations are `#[inline(always)]`, so that the instruction set of the caller is theirs.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// Runs `job` with the best instruction set of this processor.
#[inline]
pub(crate) fn dispatch<J: Kernel>(job: J) -> J::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(lanes) = avx512::Avx512::<false>::try_new() {
        return lanes.run(job);
    } else if let Some(lanes) = avx2::Avx2::try_new() {
        return lanes.run(job);
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(lanes) = neon::Neon::try_new() {
        return lanes.run(job);
    }
    #[cfg(all(target_family = "wasm", target_feature = "simd128"))]
    return wasm::Wasm.run(job);
    #[cfg(not(all(target_family = "wasm", target_feature = "simd128")))]
    scalar::Scalar.run(job)
}

/// `sum + x1 y1 + x0 y0` as AVX512-BF16's `vdpbf16ps` has it: the product of the second numbers is added first, each sum is
/// rounded once, to the nearest, and what is below the normal numbers, given or found, is zero.
#[inline(always)]
pub(crate) fn add_pair(x: [bf16; 2], y: [bf16; 2], sum: f32) -> f32 {
    let normal = |x: f32| if x.is_subnormal() { 0.0f32.copysign(x) } else { x };
    let [x, y] = [x, y].map(|pair| pair.map(|x| normal(x.to_f32())));
    let sum = normal(x[1].mul_add(y[1], normal(sum)));
    normal(x[0].mul_add(y[0], sum))
}

/// Runs `job` where the processor multiplies pairs of `bf16`; `None` if it does not.
#[inline]
pub(crate) fn with_pairs<J: Kernel>(job: J) -> Option<J::Output> {
    #[cfg(target_arch = "x86_64")]
    return avx512::Avx512::<true>::try_new().map(|lanes| lanes.run(job));
    #[cfg(not(target_arch = "x86_64"))]
    {
        drop(job);
        None
    }
}

/// Whether it does: for those who measure, which WebAssembly cannot.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn has_pairs() -> bool {
    #[cfg(target_arch = "x86_64")]
    return avx512::Avx512::<true>::try_new().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// Runs `job` with every instruction set of this processor, beginning with the plain code.
#[cfg(test)]
pub(crate) fn with_each<J: Kernel + Clone>(job: &J) -> Vec<(&'static str, J::Output)> {
    let mut outputs = vec![("scalar", job.clone().run(scalar::Scalar))];
    #[cfg(target_arch = "x86_64")]
    {
        outputs.extend(avx2::Avx2::try_new().map(|lanes| ("AVX2", lanes.run(job.clone()))));
        outputs.extend(avx512::Avx512::<false>::try_new().map(|lanes| ("AVX-512", lanes.run(job.clone()))));
    }
    #[cfg(target_arch = "aarch64")]
    outputs.extend(neon::Neon::try_new().map(|lanes| ("NEON", lanes.run(job.clone()))));
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All operations on the bits of one vector of each element.
    #[derive(Clone)]
    struct Everything([u16; LANES]);

    impl Kernel for Everything {
        type Output = Vec<[u32; LANES]>;

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Self::Output {
            let bits = self.0;
            let f32s = lanes.load(&bits.map(|x| f32::from_bits(u32::from(x) << 16 | 0x1357)));
            let f16s = lanes.load_f16(&bits.map(f16::from_bits));
            let bf16s = lanes.load_bf16(&bits.map(bf16::from_bits));
            let i8s = lanes.load_i8(&bits.map(|x| (x >> 5) as i8));
            let fused = lanes.mul_add(f16s, i8s, lanes.splat(-0.3));
            [f32s, f16s, bf16s, i8s, fused].map(|x| lanes.to_array(x).map(f32::to_bits)).to_vec()
        }
    }

    #[test]
    fn every_instruction_set_loads_and_computes_as_the_plain_code() {
        for first in (0..=u16::MAX).step_by(LANES) {
            let bits = std::array::from_fn(|i| first + i as u16);
            let is_nan = bits.iter().any(|&x| f16::from_bits(x).is_nan() || bf16::from_bits(x).is_nan());
            let outputs = with_each(&Everything(bits));
            for (name, output) in &outputs[1..] {
                for (found, expected) in output.iter().flatten().zip(outputs[0].1.iter().flatten()) {
                    // The payload of a NaN is not part of the contract.
                    let both_nan = is_nan && f32::from_bits(*found).is_nan() && f32::from_bits(*expected).is_nan();
                    assert!(found == expected || both_nan, "{name}: {found:x} instead of {expected:x}");
                }
            }
        }
    }

    #[derive(Clone)]
    struct Transposition([[f32; LANES]; LANES]);

    impl Kernel for Transposition {
        type Output = [[f32; LANES]; LANES];

        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) -> Self::Output {
            lanes.transpose(self.0.map(|row| lanes.load(&row))).map(|column| lanes.to_array(column))
        }
    }

    #[test]
    fn every_instruction_set_transposes() {
        let rows: [[f32; LANES]; LANES] = std::array::from_fn(|i| std::array::from_fn(|j| (100 * i + j) as f32));
        for (name, columns) in with_each(&Transposition(rows)) {
            for (i, j) in (0..LANES).flat_map(|i| (0..LANES).map(move |j| (i, j))) {
                assert_eq!(columns[j][i], rows[i][j], "{name}: row {i}, column {j}");
            }
        }
    }

    #[test]
    fn the_plain_code_widens_exactly() {
        let output = Everything(std::array::from_fn(|i| 0x3c00 + i as u16)).run(scalar::Scalar);
        for (bits, i) in (0x3c00..).zip(0..LANES) {
            assert_eq!(f32::from_bits(output[1][i]), f16::from_bits(bits).to_f32());
            assert_eq!(f32::from_bits(output[2][i]), bf16::from_bits(bits).to_f32());
            assert_eq!(f32::from_bits(output[3][i]), f32::from((bits >> 5) as i8));
        }
    }
}

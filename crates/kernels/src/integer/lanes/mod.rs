//! The vectors of the integer kernels: sixteen lanes, one per weight row, on every instruction set.
//!
//! Kernels are written once over [`IntegerLanes`] and compiled for each implementation: a [`IntegerKernel`] is run inside a function
//! that may use what the processor has. Every operation gives the same bits on all of them.

/// `f` of the four quarters of a vector that is four registers: `quarters!(|I| f)`.
#[cfg(any(target_arch = "aarch64", all(target_family = "wasm", target_feature = "simd128")))]
macro_rules! quarters {
    (|$i:ident| $f:expr) => {
        // SAFETY: the caller vouches for the instruction set, and for the pointers as the trait says.
        unsafe {
            [
                {
                    const $i: usize = 0;
                    $f
                },
                {
                    const $i: usize = 1;
                    $f
                },
                {
                    const $i: usize = 2;
                    $f
                },
                {
                    const $i: usize = 3;
                    $f
                },
            ]
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
#[cfg(all(target_family = "wasm", target_feature = "simd128"))]
mod wasm;

use std::ops::Range;
use std::sync::OnceLock;

use super::layout::{QUAD_BYTES, QUADS};

/// Lanes of a vector: weight rows side by side.
pub(super) const LANES: usize = 16;

/// The panels and rows of activations whose products are held in registers, and the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tile {
    /// Two panels beside six rows, as there are registers for 24 sums and products.
    Wide,
    /// A panel beside three rows, where there are fewer registers or vectors take several of them.
    Narrow,
    /// A panel beside four rows. Numbers lie in pairs of quads of pairs of rows, so that eight columns of two rows are together;
    /// weights and activations alike.
    #[cfg_attr(not(target_arch = "aarch64"), expect(dead_code, reason = "only NEON has products of pairs"))]
    Paired,
}

impl Tile {
    /// Rows of activations.
    pub(super) const fn rows(self) -> usize {
        match self {
            Self::Wide => 6,
            Self::Narrow => 3,
            Self::Paired => 4,
        }
    }
}

/// Sixteen lanes of floats, of 32-bit integers, or of four bytes each.
///
/// # Safety
/// All functions need the instruction set of the implementation; those that take a pointer read or write what they name
/// there, unaligned.
pub(super) trait IntegerLanes: Sized {
    /// Sixteen `f32`.
    type Floats: Copy;
    /// Sixteen `i32`.
    type Integers: Copy;
    /// Sixteen times four bytes.
    type Bytes: Copy;
    /// The tiles of products with many rows of activations.
    const TILE: Tile;
    /// What is taken from numbers of 8 bits before they are multiplied: 128 where both factors must be signed.
    const OFFSET: i32;

    /// Has the cache line at `address` fetched, if there is memory.
    unsafe fn prefetch(address: *const u8);
    unsafe fn splat(x: f32) -> Self::Floats;
    unsafe fn splat_integer(x: i32) -> Self::Integers;
    /// Four bytes of activations in all lanes.
    unsafe fn splat_quad(from: *const i8) -> Self::Bytes;
    /// 64 bytes.
    unsafe fn load_bytes(from: *const u8) -> Self::Bytes;
    unsafe fn store_bytes(to: *mut u8, x: Self::Bytes);
    /// 64 numbers of 8 bits, less [`IntegerLanes::OFFSET`].
    unsafe fn load_numbers(from: *const u8) -> Self::Bytes;
    /// Sixteen `f32`.
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn store(to: *mut f32, x: Self::Floats);
    /// Sixteen numbers of IEEE half precision, little-endian.
    unsafe fn load_f16(from: *const u8) -> Self::Floats;
    /// Sixteen upper halves of `f32`, little-endian.
    unsafe fn load_bf16(from: *const u8) -> Self::Floats;
    /// Sixteen unsigned bytes.
    unsafe fn load_u8(from: *const u8) -> Self::Floats;
    /// Sixteen signed bytes.
    unsafe fn load_i8(from: *const u8) -> Self::Floats;

    /// `x` and `mask` in each byte.
    unsafe fn and(x: Self::Bytes, mask: u8) -> Self::Bytes;
    unsafe fn or(x: Self::Bytes, y: Self::Bytes) -> Self::Bytes;
    /// Shifts 1, 2 or 4 to the right and 4 to the left; bits may come over from the neighbouring byte.
    unsafe fn right1(x: Self::Bytes) -> Self::Bytes;
    unsafe fn right2(x: Self::Bytes) -> Self::Bytes;
    unsafe fn right4(x: Self::Bytes) -> Self::Bytes;
    unsafe fn left4(x: Self::Bytes) -> Self::Bytes;

    /// `sum + w0 a0 + w1 a1 + w2 a2 + w3 a3` in each lane, exactly. `SMALL`: all numbers `w` are below 64; otherwise they come
    /// from [`IntegerLanes::load_numbers`]. RoundedRows are above -128.
    unsafe fn dot<const SMALL: bool>(sum: Self::Integers, w: Self::Bytes, a: Self::Bytes) -> Self::Integers;
    /// The products of `P` panels with `T` rows of activations over some quads of a step, row by row added to `sums`. Numbers and
    /// activations are those of a step; where tiles are [`Tile::Paired`], [`IntegerLanes::interleave`] has laid out the numbers.
    #[inline(always)]
    unsafe fn products<const SMALL: bool, const T: usize, const P: usize>(
        numbers: [*const u8; P],
        activations: *const i8,
        sums: [i32; T],
        quads: Range<usize>,
    ) -> [[Self::Integers; T]; P] {
        // SAFETY: as the caller says.
        unsafe { products_by_quads::<Self, SMALL, T, P>(numbers, activations, sums, quads) }
    }
    /// The numbers of a step as [`IntegerLanes::products`] wants them.
    #[inline(always)]
    unsafe fn interleave(quads: [Self::Bytes; QUADS]) -> [Self::Bytes; QUADS] {
        quads
    }
    unsafe fn to_floats(x: Self::Integers) -> Self::Floats;
    unsafe fn add(x: Self::Floats, y: Self::Floats) -> Self::Floats;
    unsafe fn mul(x: Self::Floats, y: Self::Floats) -> Self::Floats;
    /// `x y + z`, rounded once.
    unsafe fn mul_add(x: Self::Floats, y: Self::Floats, z: Self::Floats) -> Self::Floats;
}

/// [`IntegerLanes::products`] by [`IntegerLanes::dot`], a quad after the other.
///
/// # Safety
/// As of the functions of [`IntegerLanes`].
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers")]
unsafe fn products_by_quads<L: IntegerLanes, const SMALL: bool, const T: usize, const P: usize>(
    numbers: [*const u8; P],
    activations: *const i8,
    sums: [i32; T],
    quads: Range<usize>,
) -> [[L::Integers; T]; P] {
    // SAFETY: the quads are those of the step that the pointers lead to.
    unsafe {
        let mut products = [[L::splat_integer(0); T]; P];
        for t in 0..T {
            let sum = L::splat_integer(sums[t]);
            for products in &mut products {
                products[t] = sum;
            }
        }
        for quad in quads {
            let mut w = [L::load_bytes(numbers[0].add(quad * QUAD_BYTES)); P];
            for p in 1..P {
                w[p] = L::load_bytes(numbers[p].add(quad * QUAD_BYTES));
            }
            for t in 0..T {
                let a = L::splat_quad(activations.add(4 * (t * QUADS + quad)));
                for p in 0..P {
                    products[p][t] = L::dot::<SMALL>(products[p][t], w[p], a);
                }
            }
        }
        products
    }
}

/// Work to be compiled for each instruction set.
pub(super) trait IntegerKernel {
    /// # Safety
    /// The processor has the instruction set of `L`. Implementations are `#[inline(always)]`.
    unsafe fn run<L: IntegerLanes>(self);
}

/// The instruction sets that there are kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InstructionSet {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    NeonMatrix,
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    #[cfg(all(target_family = "wasm", target_feature = "simd128"))]
    Wasm,
    Scalar,
}

impl InstructionSet {
    /// All that this processor has, the fastest first.
    pub(super) fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx2 = avx2 && is_x86_feature_detected!("f16c");
            let avx512 = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            if avx2 && avx512 && is_x86_feature_detected!("avx512vnni") {
                found.push(Self::Avx512Vnni);
            }
            if avx2 && is_x86_feature_detected!("avxvnni") {
                found.push(Self::AvxVnni);
            }
            if avx2 {
                found.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                found.push(Self::NeonMatrix);
            }
            found.push(Self::NeonDot);
        }
        #[cfg(all(target_family = "wasm", target_feature = "simd128"))]
        found.push(Self::Wasm);
        found.push(Self::Scalar);
        found
    }

    /// The fastest of this processor.
    pub(super) fn best() -> Self {
        static BEST: OnceLock<InstructionSet> = OnceLock::new();
        *BEST.get_or_init(|| Self::available()[0])
    }

    /// [`IntegerLanes::OFFSET`] and [`IntegerLanes::TILE`].
    pub(super) fn traits(self) -> (i32, Tile) {
        fn of<L: IntegerLanes>() -> (i32, Tile) {
            (L::OFFSET, L::TILE)
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => of::<avx512::Avx512>(),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => of::<avx2::Avx2<true>>(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => of::<avx2::Avx2<false>>(),
            #[cfg(target_arch = "aarch64")]
            Self::NeonMatrix => of::<neon::Neon<true>>(),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => of::<neon::Neon<false>>(),
            #[cfg(all(target_family = "wasm", target_feature = "simd128"))]
            Self::Wasm => of::<wasm::Wasm>(),
            Self::Scalar => of::<scalar::Scalar>(),
        }
    }

    /// Runs `job` with the vectors of this instruction set, which [`InstructionSet::available`] or
    /// [`InstructionSet::best`] gave.
    #[inline]
    pub(super) fn run(self, job: impl IntegerKernel) {
        // SAFETY: a value other than `Scalar` is made only after the processor was asked.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512Vnni => avx512::run(job),
                #[cfg(target_arch = "x86_64")]
                Self::AvxVnni => avx2::run_vnni(job),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => avx2::run(job),
                #[cfg(target_arch = "aarch64")]
                Self::NeonMatrix => neon::run_matrix(job),
                #[cfg(target_arch = "aarch64")]
                Self::NeonDot => neon::run(job),
                #[cfg(all(target_family = "wasm", target_feature = "simd128"))]
                Self::Wasm => job.run::<wasm::Wasm>(),
                Self::Scalar => job.run::<scalar::Scalar>(),
            }
        }
    }
}

//! Plain Rust: the reference for all others, and the way for processors without them.

use half::{bf16, f16};

use super::{IntegerLanes, LANES, Tile};
use crate::fused::mul_add;

pub(super) struct Scalar;

/// `f` of sixteen lanes.
#[inline]
fn each<T>(f: impl FnMut(usize) -> T) -> [T; LANES] {
    std::array::from_fn(f)
}

// SAFETY of all blocks: the pointers are good for what the trait's function reads or writes; no instruction set is needed.
impl IntegerLanes for Scalar {
    type Floats = [f32; LANES];
    type Integers = [i32; LANES];
    type Bytes = [u8; 4 * LANES];
    const TILE: Tile = Tile::Narrow;
    const OFFSET: i32 = 0;

    #[inline]
    unsafe fn prefetch(_address: *const u8) {}

    #[inline]
    unsafe fn splat(x: f32) -> Self::Floats {
        [x; LANES]
    }

    #[inline]
    unsafe fn splat_integer(x: i32) -> Self::Integers {
        [x; LANES]
    }

    #[inline]
    unsafe fn splat_quad(from: *const i8) -> Self::Bytes {
        // SAFETY: four bytes.
        let quad = unsafe { from.cast::<[u8; 4]>().read_unaligned() };
        std::array::from_fn(|i| quad[i % 4])
    }

    #[inline]
    unsafe fn load_bytes(from: *const u8) -> Self::Bytes {
        // SAFETY: 64 bytes.
        unsafe { from.cast::<Self::Bytes>().read_unaligned() }
    }

    #[inline]
    unsafe fn store_bytes(to: *mut u8, x: Self::Bytes) {
        // SAFETY: 64 bytes.
        unsafe { to.cast::<Self::Bytes>().write_unaligned(x) }
    }

    #[inline]
    unsafe fn load_numbers(from: *const u8) -> Self::Bytes {
        // SAFETY: 64 bytes.
        unsafe { Self::load_bytes(from) }
    }

    #[inline]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: sixteen floats.
        unsafe { from.cast::<Self::Floats>().read_unaligned() }
    }

    #[inline]
    unsafe fn store(to: *mut f32, x: Self::Floats) {
        // SAFETY: sixteen floats.
        unsafe { to.cast::<Self::Floats>().write_unaligned(x) }
    }

    #[inline]
    unsafe fn load_f16(from: *const u8) -> Self::Floats {
        // SAFETY: sixteen numbers of two bytes.
        let bytes = unsafe { from.cast::<[[u8; 2]; LANES]>().read_unaligned() };
        bytes.map(|x| f16::from_le_bytes(x).to_f32())
    }

    #[inline]
    unsafe fn load_bf16(from: *const u8) -> Self::Floats {
        // SAFETY: sixteen numbers of two bytes.
        let bytes = unsafe { from.cast::<[[u8; 2]; LANES]>().read_unaligned() };
        bytes.map(|x| bf16::from_le_bytes(x).to_f32())
    }

    #[inline]
    unsafe fn load_u8(from: *const u8) -> Self::Floats {
        // SAFETY: sixteen bytes.
        unsafe { from.cast::<[u8; LANES]>().read_unaligned() }.map(f32::from)
    }

    #[inline]
    unsafe fn load_i8(from: *const u8) -> Self::Floats {
        // SAFETY: sixteen bytes.
        unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from)
    }

    #[inline]
    unsafe fn and(x: Self::Bytes, mask: u8) -> Self::Bytes {
        x.map(|x| x & mask)
    }

    #[inline]
    unsafe fn or(x: Self::Bytes, y: Self::Bytes) -> Self::Bytes {
        std::array::from_fn(|i| x[i] | y[i])
    }

    #[inline]
    unsafe fn right1(x: Self::Bytes) -> Self::Bytes {
        x.map(|x| x >> 1)
    }

    #[inline]
    unsafe fn right2(x: Self::Bytes) -> Self::Bytes {
        x.map(|x| x >> 2)
    }

    #[inline]
    unsafe fn right4(x: Self::Bytes) -> Self::Bytes {
        x.map(|x| x >> 4)
    }

    #[inline]
    unsafe fn left4(x: Self::Bytes) -> Self::Bytes {
        x.map(|x| x << 4)
    }

    #[inline]
    unsafe fn dot<const SMALL: bool>(sum: Self::Integers, w: Self::Bytes, a: Self::Bytes) -> Self::Integers {
        each(|i| sum[i] + (4 * i..4 * i + 4).map(|j| i32::from(w[j]) * i32::from(a[j] as i8)).sum::<i32>())
    }

    #[inline]
    unsafe fn to_floats(x: Self::Integers) -> Self::Floats {
        x.map(|x| x as f32)
    }

    #[inline]
    unsafe fn add(x: Self::Floats, y: Self::Floats) -> Self::Floats {
        each(|i| x[i] + y[i])
    }

    #[inline]
    unsafe fn mul(x: Self::Floats, y: Self::Floats) -> Self::Floats {
        each(|i| x[i] * y[i])
    }

    #[inline]
    unsafe fn mul_add(x: Self::Floats, y: Self::Floats, z: Self::Floats) -> Self::Floats {
        each(|i| mul_add(x[i], y[i], z[i]))
    }
}

//! How the panels of a packed matrix lie in memory, and how they are read.
//!
//! A panel holds 16 weight rows, the lanes of a vector. It is a sequence of blocks of [`Scales::STEPS`] steps of 32 columns:
//!
//! ```text
//! block   header (scales, minima), then the numbers of each step
//! step    8 quads of columns; byte 4 r + c of a quad is column c of row r
//!         8 bits   64 bytes for each quad
//!         4 bits   64 bytes for the quads j and j + 4: low and high nibbles, j < 4
//!         5 bits   as 4 bits, then 64 bytes: bit q of a byte belongs to quad q
//!         6 bits   as 4 bits, then twice 64 bytes: two bits for each of the quads 0 to 3, 4 to 7
//! ```
//!
//! # Safety
//! The functions of the traits here need the instruction set of `L`, and pointers to a whole step or header.

use super::lanes::{IntegerLanes, LANES};

/// Columns of a step.
pub(super) const STEP: usize = 32;
/// Quads of columns in a step.
pub(super) const QUADS: usize = STEP / 4;
/// Bytes of a quad.
pub(super) const QUAD_BYTES: usize = 4 * LANES;

/// Numbers of some width.
pub(super) trait Numbers {
    /// Bytes of a step.
    const BYTES: usize;
    /// Whether they are below 64, which spares [`IntegerLanes::dot`] some work.
    const SMALL: bool;

    unsafe fn load<L: IntegerLanes>(step: *const u8) -> [L::Bytes; QUADS];
}

pub(super) struct Four;
pub(super) struct Five;
pub(super) struct Six;
pub(super) struct Eight;

impl Numbers for Four {
    const BYTES: usize = 4 * QUAD_BYTES;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn load<L: IntegerLanes>(step: *const u8) -> [L::Bytes; QUADS] {
        // SAFETY: four times 64 bytes.
        unsafe {
            let x0 = L::load_bytes(step);
            let x1 = L::load_bytes(step.add(QUAD_BYTES));
            let x2 = L::load_bytes(step.add(2 * QUAD_BYTES));
            let x3 = L::load_bytes(step.add(3 * QUAD_BYTES));
            [
                L::and(x0, 15),
                L::and(x1, 15),
                L::and(x2, 15),
                L::and(x3, 15),
                L::and(L::right4(x0), 15),
                L::and(L::right4(x1), 15),
                L::and(L::right4(x2), 15),
                L::and(L::right4(x3), 15),
            ]
        }
    }
}

impl Numbers for Five {
    const BYTES: usize = 5 * QUAD_BYTES;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn load<L: IntegerLanes>(step: *const u8) -> [L::Bytes; QUADS] {
        // SAFETY: five times 64 bytes.
        unsafe {
            let mut quads = Four::load::<L>(step);
            let mut fifth = L::load_bytes(step.add(4 * QUAD_BYTES));
            for quad in &mut quads {
                *quad = L::or(*quad, L::left4(L::and(fifth, 1)));
                fifth = L::right1(fifth);
            }
            quads
        }
    }
}

impl Numbers for Six {
    const BYTES: usize = 6 * QUAD_BYTES;
    const SMALL: bool = true;

    #[inline(always)]
    unsafe fn load<L: IntegerLanes>(step: *const u8) -> [L::Bytes; QUADS] {
        // SAFETY: six times 64 bytes.
        unsafe {
            let mut quads = Four::load::<L>(step);
            for (half, quads) in quads.chunks_exact_mut(QUADS / 2).enumerate() {
                let mut upper = L::load_bytes(step.add((4 + half) * QUAD_BYTES));
                for quad in quads {
                    *quad = L::or(*quad, L::left4(L::and(upper, 3)));
                    upper = L::right2(upper);
                }
            }
            quads
        }
    }
}

impl Numbers for Eight {
    const BYTES: usize = 8 * QUAD_BYTES;
    const SMALL: bool = false;

    #[inline(always)]
    unsafe fn load<L: IntegerLanes>(step: *const u8) -> [L::Bytes; QUADS] {
        // SAFETY: eight times 64 bytes.
        unsafe {
            [
                L::load_numbers(step),
                L::load_numbers(step.add(QUAD_BYTES)),
                L::load_numbers(step.add(2 * QUAD_BYTES)),
                L::load_numbers(step.add(3 * QUAD_BYTES)),
                L::load_numbers(step.add(4 * QUAD_BYTES)),
                L::load_numbers(step.add(5 * QUAD_BYTES)),
                L::load_numbers(step.add(6 * QUAD_BYTES)),
                L::load_numbers(step.add(7 * QUAD_BYTES)),
            ]
        }
    }
}

/// What the numbers of a block are multiplied with.
pub(super) trait Scales: Copy {
    /// Steps of a block.
    const STEPS: usize;
    /// Scales within a step: 1, or 2 for 16 columns each.
    const PARTS: usize;
    /// Whether something is added to the products.
    const MINIMA: bool;

    /// Bytes of the header, a multiple of 64.
    fn header(self) -> usize;
    unsafe fn scale<L: IntegerLanes>(self, header: *const u8, step: usize, part: usize) -> L::Floats;
    unsafe fn minimum<L: IntegerLanes>(self, header: *const u8, step: usize) -> L::Floats;
}

/// Floats as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Float {
    F16,
    BF16,
    F32,
}

impl Float {
    pub fn bytes(self) -> usize {
        if self == Float::F32 { 4 } else { 2 }
    }

    /// Sixteen of them.
    #[inline(always)]
    unsafe fn load<L: IntegerLanes>(self, from: *const u8) -> L::Floats {
        // SAFETY: as the caller says.
        unsafe {
            match self {
                Float::F16 => L::load_f16(from),
                Float::BF16 => L::load_bf16(from),
                Float::F32 => L::load(from.cast()),
            }
        }
    }
}

/// A scale, and a minimum where `MINIMA`, for each group of `1 << shift` steps: the scales of the block's groups, 16 rows each,
/// then the minima.
#[derive(Clone, Copy)]
pub(super) struct Groups<const MINIMA: bool> {
    pub shift: u32,
    // Looked at when a kernel runs: a kernel for each would triple their number for nothing that can be measured.
    pub float: Float,
}

impl<const MINIMA: bool> Groups<MINIMA> {
    /// Bytes of one group.
    fn group(self) -> usize {
        LANES * self.float.bytes()
    }

    fn scales(self) -> usize {
        (Self::STEPS >> self.shift) * self.group()
    }
}

impl<const MINIMA: bool> Scales for Groups<MINIMA> {
    const STEPS: usize = 4;
    const PARTS: usize = 1;
    const MINIMA: bool = MINIMA;

    fn header(self) -> usize {
        (self.scales() * if MINIMA { 2 } else { 1 }).next_multiple_of(64)
    }

    #[inline(always)]
    unsafe fn scale<L: IntegerLanes>(self, header: *const u8, step: usize, _part: usize) -> L::Floats {
        // SAFETY: within the header.
        unsafe { self.float.load::<L>(header.add((step >> self.shift) * self.group())) }
    }

    #[inline(always)]
    unsafe fn minimum<L: IntegerLanes>(self, header: *const u8, step: usize) -> L::Floats {
        // SAFETY: within the header.
        unsafe { self.float.load::<L>(header.add(self.scales() + (step >> self.shift) * self.group())) }
    }
}

/// Q4_K and Q5_K: `d` and `-m` in half precision, 16 rows each; then a byte of scale and one of minimum per step and row.
#[derive(Clone, Copy)]
pub(super) struct SubBlocks32;

impl SubBlocks32 {
    pub const SCALES: usize = 4 * LANES;
    pub const MINIMA: usize = Self::SCALES + 8 * LANES;
}

impl Scales for SubBlocks32 {
    const STEPS: usize = 8;
    const PARTS: usize = 1;
    const MINIMA: bool = true;

    fn header(self) -> usize {
        Self::MINIMA + 8 * LANES
    }

    #[inline(always)]
    unsafe fn scale<L: IntegerLanes>(self, header: *const u8, step: usize, _part: usize) -> L::Floats {
        // SAFETY: within the header.
        unsafe { L::mul(L::load_f16(header), L::load_u8(header.add(Self::SCALES + step * LANES))) }
    }

    #[inline(always)]
    unsafe fn minimum<L: IntegerLanes>(self, header: *const u8, step: usize) -> L::Floats {
        // SAFETY: within the header.
        unsafe { L::mul(L::load_f16(header.add(2 * LANES)), L::load_u8(header.add(Self::MINIMA + step * LANES))) }
    }
}

/// Q6_K: `d` in half precision, 16 rows, and as much space; then a signed byte of scale per half step and row.
#[derive(Clone, Copy)]
pub(super) struct SubBlocks16;

impl SubBlocks16 {
    pub const SCALES: usize = 4 * LANES;
}

impl Scales for SubBlocks16 {
    const STEPS: usize = 8;
    const PARTS: usize = 2;
    const MINIMA: bool = false;

    fn header(self) -> usize {
        Self::SCALES + 16 * LANES
    }

    #[inline(always)]
    unsafe fn scale<L: IntegerLanes>(self, header: *const u8, step: usize, part: usize) -> L::Floats {
        // SAFETY: within the header.
        unsafe { L::mul(L::load_f16(header), L::load_i8(header.add(Self::SCALES + (2 * step + part) * LANES))) }
    }

    #[inline(always)]
    unsafe fn minimum<L: IntegerLanes>(self, _header: *const u8, _step: usize) -> L::Floats {
        // SAFETY: no pointer is followed.
        unsafe { L::splat(0.0) }
    }
}

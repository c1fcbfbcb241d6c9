//! ggml's block formats by name, and matrices stored in them.

use super::{k_blocks, small_blocks};

/// A block format of ggml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)]
pub enum BlockFormat {
    /// 32 values of 4 bits, one scale: `x = d (q - 8)`.
    Q4_0,
    /// 32 values of 4 bits, scale and minimum: `x = d q + m`.
    Q4_1,
    /// 32 values of 5 bits, one scale: `x = d (q - 16)`.
    Q5_0,
    /// 32 values of 5 bits, scale and minimum.
    Q5_1,
    /// 32 values of 8 bits, one scale: `x = d q`.
    Q8_0,
    /// 256 values of 4 bits in 8 sub-blocks, whose scales and minima take 6 bits each.
    Q4_K,
    /// 256 values of 5 bits in 8 sub-blocks, whose scales and minima take 6 bits each.
    Q5_K,
    /// 256 values of 6 bits in 16 sub-blocks, whose scales take 8 bits each.
    Q6_K,
}

impl BlockFormat {
    /// All formats.
    pub const ALL: [BlockFormat; 8] = [
        BlockFormat::Q4_0,
        BlockFormat::Q4_1,
        BlockFormat::Q5_0,
        BlockFormat::Q5_1,
        BlockFormat::Q8_0,
        BlockFormat::Q4_K,
        BlockFormat::Q5_K,
        BlockFormat::Q6_K,
    ];

    /// Values in a block.
    pub fn block_len(self) -> usize {
        match self {
            BlockFormat::Q4_K | BlockFormat::Q5_K | BlockFormat::Q6_K => 256,
            _ => 32,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            BlockFormat::Q4_0 => 18,
            BlockFormat::Q4_1 => 20,
            BlockFormat::Q5_0 => 22,
            BlockFormat::Q5_1 => 24,
            BlockFormat::Q8_0 => 34,
            BlockFormat::Q4_K => 144,
            BlockFormat::Q5_K => 176,
            BlockFormat::Q6_K => 210,
        }
    }

    /// Bytes of `values` values, which fill whole blocks; `None` if they do not, or if the number overflows.
    pub fn bytes_of(self, values: usize) -> Option<usize> {
        (values.is_multiple_of(self.block_len()))
            .then(|| (values / self.block_len()).checked_mul(self.block_bytes()))?
    }

    /// Widens whole blocks.
    ///
    /// # Panics
    /// If `bytes` and `out` are not of the same number of blocks.
    #[inline(always)]
    pub fn widen(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(Some(bytes.len()), self.bytes_of(out.len()), "not whole blocks");
        match self {
            BlockFormat::Q4_0 => each(self, bytes, out, small_blocks::widen_q4_0),
            BlockFormat::Q4_1 => each(self, bytes, out, small_blocks::widen_q4_1),
            BlockFormat::Q5_0 => each(self, bytes, out, small_blocks::widen_q5_0),
            BlockFormat::Q5_1 => each(self, bytes, out, small_blocks::widen_q5_1),
            BlockFormat::Q8_0 => each(self, bytes, out, small_blocks::widen_q8_0),
            BlockFormat::Q4_K => each(self, bytes, out, k_blocks::widen_q4_k),
            BlockFormat::Q5_K => each(self, bytes, out, k_blocks::widen_q5_k),
            BlockFormat::Q6_K => each(self, bytes, out, k_blocks::widen_q6_k),
        }
    }

    /// The numbers of one block before any scale, in order: `out` has room for the block's values. None is negative: those
    /// that the format signs are raised by [`BlockFormat::zero`].
    pub(crate) fn numbers(self, block: &[u8], out: &mut [u8]) {
        match self {
            BlockFormat::Q4_0 => small_blocks::numbers_q4(&block[2..18], out),
            BlockFormat::Q4_1 => small_blocks::numbers_q4(&block[4..20], out),
            BlockFormat::Q5_0 => small_blocks::numbers_q5(&block[2..6], &block[6..22], out),
            BlockFormat::Q5_1 => small_blocks::numbers_q5(&block[4..8], &block[8..24], out),
            BlockFormat::Q8_0 => small_blocks::numbers_q8_0(block, out),
            BlockFormat::Q4_K => k_blocks::numbers_q4_k(block, out),
            BlockFormat::Q5_K => k_blocks::numbers_q5_k(block, out),
            BlockFormat::Q6_K => k_blocks::numbers_q6_k(block, out),
        }
    }

    /// Puts the numbers of one block in their places, the other way round than [`BlockFormat::numbers`]; scales stay.
    pub(crate) fn put_numbers(self, numbers: &[u8], block: &mut [u8]) {
        match self {
            BlockFormat::Q4_0 => small_blocks::put_numbers(numbers, &mut block[2..18], false),
            BlockFormat::Q4_1 => small_blocks::put_numbers(numbers, &mut block[4..20], false),
            BlockFormat::Q5_0 => small_blocks::put_numbers(numbers, &mut block[2..22], true),
            BlockFormat::Q5_1 => small_blocks::put_numbers(numbers, &mut block[4..24], true),
            BlockFormat::Q8_0 => small_blocks::put_numbers_q8_0(numbers, block),
            BlockFormat::Q4_K => k_blocks::put_q4_k(block, numbers),
            BlockFormat::Q5_K => k_blocks::put_q5_k(block, numbers),
            BlockFormat::Q6_K => k_blocks::put_q6_k(block, numbers),
        }
    }

    /// Puts scales and minima of the sub-blocks of a block of Q4_K or Q5_K in their places.
    pub(crate) fn put_scales_and_minima(block: &mut [u8], scales: &[u8; 8], minima: &[u8; 8]) {
        k_blocks::put_scales_and_minima(&mut block[4..16], scales, minima);
    }

    /// Scales and minima of the sub-blocks of a block of Q4_K or Q5_K.
    pub(crate) fn scales_and_minima(block: &[u8]) -> ([u8; 8], [u8; 8]) {
        let pair = |j| k_blocks::scale_and_minimum(&block[4..16], j);
        (std::array::from_fn(|j| pair(j).0), std::array::from_fn(|j| pair(j).1))
    }

    /// The number that stands for zero in [`BlockFormat::numbers`]; 0 for formats with a minimum.
    pub(crate) fn zero(self) -> i32 {
        match self {
            BlockFormat::Q4_0 => 8,
            BlockFormat::Q5_0 => 16,
            BlockFormat::Q8_0 => 128,
            BlockFormat::Q6_K => 32,
            BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4_K | BlockFormat::Q5_K => 0,
        }
    }

    /// Quantises `values`: the formats of 32 values as ggml's reference does, to the byte; the others by a search for the
    /// scales of least squared error.
    ///
    /// # Panics
    /// If `values` and `out` are not of the same number of blocks.
    pub fn quantise(self, values: &[f32], out: &mut [u8]) {
        assert_eq!(Some(out.len()), self.bytes_of(values.len()), "not whole blocks");
        let quantise = match self {
            BlockFormat::Q4_0 => small_blocks::quantise_q4_0,
            BlockFormat::Q4_1 => small_blocks::quantise_q4_1,
            BlockFormat::Q5_0 => small_blocks::quantise_q5_0,
            BlockFormat::Q5_1 => small_blocks::quantise_q5_1,
            BlockFormat::Q8_0 => small_blocks::quantise_q8_0,
            BlockFormat::Q4_K => k_blocks::quantise_q4_k,
            BlockFormat::Q5_K => k_blocks::quantise_q5_k,
            BlockFormat::Q6_K => k_blocks::quantise_q6_k,
        };
        let blocks = values.chunks_exact(self.block_len()).zip(out.chunks_exact_mut(self.block_bytes()));
        blocks.for_each(|(values, block)| quantise(values, block));
    }
}

/// Widens block by block; inlined, so that `widen` is compiled for the instruction set of the caller.
#[inline(always)]
fn each(format: BlockFormat, bytes: &[u8], out: &mut [f32], widen: impl Fn(&[u8], &mut [f32])) {
    let blocks = bytes.chunks_exact(format.block_bytes());
    blocks.zip(out.chunks_exact_mut(format.block_len())).for_each(|(block, out)| widen(block, out));
}

impl std::fmt::Display for BlockFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// A matrix in blocks, row-major; each row fills whole blocks.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a> {
    /// How a block is laid out.
    pub format: BlockFormat,
    /// All blocks.
    pub bytes: &'a [u8],
}

impl Blocks<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.format.block_bytes() * self.format.block_len()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Widens the values `start..start + out.len()`, which begin and end with a block.
    #[inline(always)]
    pub fn widen(&self, start: usize, out: &mut [f32]) {
        let (length, bytes) = (self.format.block_len(), self.format.block_bytes());
        assert!(start.is_multiple_of(length) && out.len().is_multiple_of(length), "not whole blocks");
        self.format.widen(&self.bytes[start / length * bytes..][..out.len() / length * bytes], out);
    }
}

//! Packed matrices as they were before: for whoever wants the blocks of a file that holds panels.

use super::lanes::LANES;
use super::layout::{STEP, SubBlocks16, SubBlocks32};
use super::packed::{Packed, layout_of_blocks, number};
use crate::quant::BlockFormat;

impl Packed {
    /// The blocks that the panels were made of, row by row, to the byte.
    ///
    /// # Panics
    /// If the matrix was not made of blocks of `format`.
    pub fn unpacked(&self, format: BlockFormat) -> Vec<u8> {
        assert_eq!((self.width, self.scaling, self.zero), layout_of_blocks(format), "{self:?} is not made of {format}");
        let (length, size) = (format.block_len(), format.block_bytes());
        let mut blocks = vec![0; self.rows() * (self.columns() / length) * size];
        for (row, blocks) in blocks.chunks_exact_mut(self.columns() / length * size).enumerate() {
            let panel = self.panel(row / LANES);
            for (i, block) in blocks.chunks_exact_mut(size).enumerate() {
                self.unpack_block(format, panel, row % LANES, i, block);
            }
        }
        blocks
    }

    /// Block `index` of the row in `lane` of a panel.
    fn unpack_block(&self, format: BlockFormat, panel: &[u8], lane: usize, index: usize, block: &mut [u8]) {
        let steps = self.scaling.steps();
        let first = index * format.block_len() / STEP;
        let bytes = &panel[first / steps * self.block_bytes()..][..self.block_bytes()];
        let (header, numbers) = bytes.split_at(self.scaling.header());
        let mut unpacked = [0; 256];
        let unpacked = &mut unpacked[..format.block_len()];
        for (i, unpacked) in unpacked.iter_mut().enumerate() {
            let step = (first + i / STEP) % steps;
            *unpacked = number(self.width, &numbers[step * self.width.bytes()..], lane, i % STEP);
        }
        format.put_numbers(unpacked, block);
        let half = |offset: usize| &header[offset + 2 * lane..][..2];
        let bytes = |offset: usize| move |j: usize| header[offset + j * LANES + lane];
        // A small block is a step: groups of one step each, the scales of all, then the minima.
        let group = first % steps;
        match format {
            BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => {
                block[..2].copy_from_slice(half(group * 2 * LANES));
            }
            BlockFormat::Q4_1 | BlockFormat::Q5_1 => {
                block[..2].copy_from_slice(half(group * 2 * LANES));
                block[2..4].copy_from_slice(half((steps + group) * 2 * LANES));
            }
            BlockFormat::Q4_K | BlockFormat::Q5_K => {
                block[..2].copy_from_slice(half(0));
                block[2..4].copy_from_slice(half(2 * LANES));
                // What is added becomes what is subtracted.
                block[3] ^= 0x80;
                let [scales, minima] = [SubBlocks32::SCALES, SubBlocks32::MINIMA].map(bytes);
                let (scales, minima) = (std::array::from_fn(scales), std::array::from_fn(minima));
                BlockFormat::put_scales_and_minima(block, &scales, &minima);
            }
            BlockFormat::Q6_K => {
                block[192..208].copy_from_slice(&std::array::from_fn::<u8, 16, _>(bytes(SubBlocks16::SCALES)));
                block[208..].copy_from_slice(half(0));
            }
        }
    }
}

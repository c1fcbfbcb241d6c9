//! Quantised matrices in the order that the kernels read them: made once, when a model is loaded, or borrowed from a file that
//! holds them so.

use half::f16;

use super::lanes::{IntegerLanes, LANES};
use super::layout::{self, Float, Groups, Numbers, QUAD_BYTES, QUADS, STEP, Scales, SubBlocks16, SubBlocks32};
use crate::matrix::Matrix;
use crate::quant::{Affine, BlockFormat, Blocks, Scales as AffineScales};
use crate::zeroed::Zeroed;
use crate::{OutOfMemory, Threads};

/// Bits of the packed numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Four,
    Five,
    Six,
    Eight,
}

impl Width {
    /// Bytes of a step.
    pub(super) fn bytes(self) -> usize {
        QUAD_BYTES
            * match self {
                Width::Four => 4,
                Width::Five => 5,
                Width::Six => 6,
                Width::Eight => 8,
            }
    }
}

/// How packed numbers are scaled: the types of [`super::layout`] as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scaling {
    /// One scale per `1 << shift` steps.
    Groups { float: Float, minima: bool, shift: u32 },
    /// Q4_K and Q5_K.
    SubBlocks32,
    /// Q6_K.
    SubBlocks16,
}

impl Scaling {
    /// Steps of a block.
    pub(super) fn steps(self) -> usize {
        if matches!(self, Scaling::Groups { .. }) { 4 } else { 8 }
    }

    /// Bytes of a block's header.
    pub(super) fn header(self) -> usize {
        match self {
            Scaling::Groups { float, minima, shift } => {
                let floats = (4 >> shift) * LANES * if minima { 2 } else { 1 };
                (floats * float.bytes()).next_multiple_of(64)
            }
            Scaling::SubBlocks32 => SubBlocks32.header(),
            Scaling::SubBlocks16 => SubBlocks16.header(),
        }
    }
}

/// A quantised matrix in panels of 16 rows, for products in integers. The weights are the same as before.
pub struct Packed {
    rows: usize,
    columns: usize,
    pub(super) width: Width,
    pub(super) scaling: Scaling,
    /// The number that stands for zero.
    pub(super) zero: i32,
    bytes: Panels,
}

/// Where panels lie.
enum Panels {
    /// In memory of their own.
    Own(Zeroed),
    /// In somebody else's, such as a mapped file.
    Shared(Box<dyn AsRef<[u8]> + Send + Sync>),
}

impl AsRef<[u8]> for Panels {
    fn as_ref(&self) -> &[u8] {
        match self {
            Panels::Own(bytes) => bytes.as_ref(),
            Panels::Shared(bytes) => (**bytes).as_ref(),
        }
    }
}

impl Packed {
    /// Packs `matrix`, `[rows, columns]`; `None` if there are no kernels for it.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn new(threads: &Threads, matrix: Matrix<'_>, columns: usize) -> Result<Option<Self>, OutOfMemory> {
        let Some((width, scaling, zero)) = layout_of(matrix) else { return Ok(None) };
        let rows = matrix.len() / columns;
        let block = scaling.header() + scaling.steps() * width.bytes();
        let panel = columns.div_ceil(scaling.steps() * STEP) * block;
        let mut bytes = Zeroed::new(rows.div_ceil(LANES) * panel)?;
        threads.for_each_chunk(bytes.as_mut(), panel, |panel, bytes| {
            for lane in 0..LANES.min(rows - panel * LANES) {
                let row = panel * LANES + lane;
                let target = Lane { bytes: &mut *bytes, lane, block, width, scaling };
                match matrix {
                    Matrix::Blocks(blocks) => pack_blocks(target, blocks, row * columns, columns),
                    Matrix::Affine(affine) => pack_affine(target, affine, row * columns, columns),
                    _ => unreachable!("a layout was found for it"),
                }
            }
        });
        Ok(Some(Self { rows, columns, width, scaling, zero, bytes: Panels::Own(bytes) }))
    }

    /// The matrix `[rows, columns]` of `format` whose panels, as [`Packed::panels`] gives them, are `bytes`: they stay where they
    /// are. `None` if they are not as many as such a matrix has, or its rows do not fill blocks. The order of panels is the same
    /// on every instruction set.
    pub fn from_panels(
        format: BlockFormat,
        rows: usize,
        columns: usize,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Option<Self> {
        let size = Self::size_of(format, rows, columns)?;
        let (width, scaling, zero) = layout_of_blocks(format);
        let bytes = Panels::Shared(Box::new(bytes));
        (bytes.as_ref().len() == size).then_some(Self { rows, columns, width, scaling, zero, bytes })
    }

    /// Bytes of the panels of a matrix `[rows, columns]` of `format`; `None` if its rows do not fill blocks, or the number
    /// overflows.
    pub fn size_of(format: BlockFormat, rows: usize, columns: usize) -> Option<usize> {
        let (width, scaling, _) = layout_of_blocks(format);
        let block = scaling.header() + scaling.steps() * width.bytes();
        let panel = columns.div_ceil(scaling.steps() * STEP).checked_mul(block)?;
        let fills = columns > 0 && columns.is_multiple_of(format.block_len());
        fills.then(|| rows.div_ceil(LANES).checked_mul(panel))?
    }

    /// The panels: see [`Packed::from_panels`].
    pub fn panels(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Weight rows: outputs of the layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: inputs of the layer.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        self.bytes.as_ref().len()
    }

    /// Steps of a row, those that fill the last block included.
    pub(super) fn steps(&self) -> usize {
        self.columns.div_ceil(self.scaling.steps() * STEP) * self.scaling.steps()
    }

    /// Scales within a step.
    pub(super) fn parts(&self) -> usize {
        if self.scaling == Scaling::SubBlocks16 { 2 } else { 1 }
    }

    /// Whether scales come with minima.
    pub(super) fn has_minima(&self) -> bool {
        matches!(self.scaling, Scaling::SubBlocks32 | Scaling::Groups { minima: true, .. })
    }

    /// Whether the numbers take less than 8 bits.
    pub(super) fn is_small(&self) -> bool {
        self.width != Width::Eight
    }

    /// Bytes of a panel.
    pub(super) fn panel_bytes(&self) -> usize {
        self.steps() / self.scaling.steps() * self.block_bytes()
    }

    pub(super) fn block_bytes(&self) -> usize {
        self.scaling.header() + self.scaling.steps() * self.width.bytes()
    }

    /// The bytes of panel `index`.
    pub(super) fn panel(&self, index: usize) -> &[u8] {
        &self.bytes.as_ref()[index * self.panel_bytes()..][..self.panel_bytes()]
    }

    /// Writes the weights of whole rows to `out`, beginning with element `start`.
    pub(crate) fn widen(&self, start: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_exact_mut(self.columns).enumerate() {
            self.widen_row(start / self.columns + i, out);
        }
    }

    fn widen_row(&self, row: usize, out: &mut [f32]) {
        let (panel, lane) = (self.panel(row / LANES), row % LANES);
        let steps = self.scaling.steps();
        for (step, out) in out.chunks_mut(STEP).enumerate() {
            let block = &panel[step / steps * self.block_bytes()..][..self.block_bytes()];
            let (header, step) = (&block[..self.scaling.header()], step % steps);
            let numbers = &block[self.scaling.header() + step * self.width.bytes()..][..self.width.bytes()];
            for (i, out) in out.iter_mut().enumerate() {
                let q = i32::from(number(self.width, numbers, lane, i));
                let (scale, minimum) = scale_and_minimum(self.scaling, header, lane, step, i);
                *out = scale * (q - self.zero) as f32 + minimum;
            }
        }
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed {:?} {:?} [{}, {}]", self.width, self.scaling, self.rows, self.columns)
    }
}

/// Code over the types of [`super::layout`].
pub(super) trait LayoutKernel {
    /// # Safety
    /// The processor has the instruction set of `L`. Implementations are `#[inline(always)]`.
    unsafe fn run<L: IntegerLanes, N: Numbers, S: Scales>(self, scales: S);
}

/// Runs `reader` with the types that `packed` is laid out by.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn read<L: IntegerLanes, R: LayoutKernel>(packed: &Packed, reader: R) {
    /// The widths that occur with one kind of scales.
    macro_rules! widths {
        ($scales:expr, $($width:ident),+) => {
            match packed.width {
                // SAFETY: as the caller says.
                $(Width::$width => unsafe { reader.run::<L, layout::$width, _>($scales) },)+
                #[allow(unreachable_patterns)]
                width => unreachable!("no format has numbers of {width:?} with these scales"),
            }
        };
    }
    match packed.scaling {
        Scaling::Groups { float, minima: false, shift } => widths!(Groups::<false> { shift, float }, Four, Five, Eight),
        Scaling::Groups { float, minima: true, shift } => {
            widths!(Groups::<true> { shift, float }, Four, Five, Six, Eight)
        }
        Scaling::SubBlocks32 => widths!(SubBlocks32, Four, Five),
        Scaling::SubBlocks16 => widths!(SubBlocks16, Six),
    }
}

/// Width, scaling and zero of a matrix that there are kernels for.
fn layout_of(matrix: Matrix<'_>) -> Option<(Width, Scaling, i32)> {
    match matrix {
        Matrix::Blocks(Blocks { format, .. }) => Some(layout_of_blocks(format)),
        Matrix::Affine(Affine { format, scales, .. }) => {
            let width = match format.bits {
                4 => Width::Four,
                5 => Width::Five,
                6 => Width::Six,
                8 => Width::Eight,
                // Packed they would take more memory than the file.
                _ => return None,
            };
            let float = match scales {
                AffineScales::F32(_) => Float::F32,
                AffineScales::F16(_) => Float::F16,
                AffineScales::BF16(_) => Float::BF16,
            };
            let shift = (format.group / STEP).trailing_zeros();
            Some((width, Scaling::Groups { float, minima: true, shift }, 0))
        }
        _ => None,
    }
}

/// Width, scaling and zero of a format of blocks.
pub(super) fn layout_of_blocks(format: BlockFormat) -> (Width, Scaling, i32) {
    let groups = |minima| Scaling::Groups { float: Float::F16, minima, shift: 0 };
    let (width, scaling) = match format {
        BlockFormat::Q4_0 => (Width::Four, groups(false)),
        BlockFormat::Q4_1 => (Width::Four, groups(true)),
        BlockFormat::Q5_0 => (Width::Five, groups(false)),
        BlockFormat::Q5_1 => (Width::Five, groups(true)),
        BlockFormat::Q8_0 => (Width::Eight, groups(false)),
        BlockFormat::Q4_K => (Width::Four, Scaling::SubBlocks32),
        BlockFormat::Q5_K => (Width::Five, Scaling::SubBlocks32),
        BlockFormat::Q6_K => (Width::Six, Scaling::SubBlocks16),
    };
    (width, scaling, format.zero())
}

/// One row's place in a panel that is being packed.
struct Lane<'a> {
    bytes: &'a mut [u8],
    lane: usize,
    /// Bytes of a block.
    block: usize,
    width: Width,
    scaling: Scaling,
}

impl Lane<'_> {
    /// Writes `value` to the header of the block of `step`, sixteen values of its size from `offset` on.
    fn put(&mut self, step: usize, offset: usize, value: &[u8]) {
        let at = step / self.scaling.steps() * self.block + offset + self.lane * value.len();
        self.bytes[at..][..value.len()].copy_from_slice(value);
    }

    /// Writes scale and minimum of the group that begins with `step`.
    fn put_group(&mut self, step: usize, scale: &[u8], minimum: Option<&[u8]>) {
        let Scaling::Groups { shift, .. } = self.scaling else { unreachable!("the scaling is in groups") };
        let group = (step % 4) >> shift;
        self.put(step, group * LANES * scale.len(), scale);
        if let Some(minimum) = minimum {
            self.put(step, ((4 >> shift) + group) * LANES * minimum.len(), minimum);
        }
    }

    /// Writes the numbers of `step`.
    fn put_numbers(&mut self, step: usize, numbers: &[u8; STEP]) {
        let steps = self.scaling.steps();
        let at = step / steps * self.block + self.scaling.header() + step % steps * self.width.bytes();
        let target = &mut self.bytes[at..][..self.width.bytes()];
        // The quad in a word: shifted by less than a byte's spare bits, its bytes do not meet.
        let mut or = |plane: usize, word: u32| {
            let place = &mut target[plane * QUAD_BYTES + 4 * self.lane..][..4];
            place.iter_mut().zip(word.to_le_bytes()).for_each(|(byte, bits)| *byte |= bits);
        };
        for (q, quad) in numbers.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]]);
            if self.width == Width::Eight {
                or(q, word);
                continue;
            }
            or(q % 4, (word & 0x0f0f_0f0f) << (4 * (q / 4)));
            let upper = word >> 4 & 0x0303_0303;
            match self.width {
                Width::Five => or(4, upper << q),
                Width::Six => or(4 + q / 4, upper << (2 * (q % 4))),
                Width::Four | Width::Eight => {}
            }
        }
    }
}

fn pack_blocks(mut target: Lane<'_>, blocks: Blocks<'_>, start: usize, columns: usize) {
    let Blocks { format, bytes } = blocks;
    let (length, size) = (format.block_len(), format.block_bytes());
    let bytes = &bytes[start / length * size..][..columns / length * size];
    let mut numbers = [0; 256];
    for (i, block) in bytes.chunks_exact(size).enumerate() {
        format.numbers(block, &mut numbers[..length]);
        let first = i * length / STEP;
        for (j, numbers) in numbers[..length].as_chunks().0.iter().enumerate() {
            target.put_numbers(first + j, numbers);
        }
        match format {
            BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 => target.put_group(i, &block[..2], None),
            BlockFormat::Q4_1 | BlockFormat::Q5_1 => target.put_group(i, &block[..2], Some(&block[2..4])),
            BlockFormat::Q4_K | BlockFormat::Q5_K => {
                let (scales, minima) = BlockFormat::scales_and_minima(block);
                target.put(first, 0, &block[..2]);
                // What is subtracted becomes what is added.
                target.put(first, 2 * LANES, &[block[2], block[3] ^ 0x80]);
                for (j, (&scale, &minimum)) in scales.iter().zip(&minima).enumerate() {
                    target.put(first, SubBlocks32::SCALES + j * LANES, &[scale]);
                    target.put(first, SubBlocks32::MINIMA + j * LANES, &[minimum]);
                }
            }
            BlockFormat::Q6_K => {
                target.put(first, 0, &block[208..210]);
                for (j, &scale) in block[192..208].iter().enumerate() {
                    target.put(first, SubBlocks16::SCALES + j * LANES, &[scale]);
                }
            }
        }
    }
}

fn pack_affine(mut target: Lane<'_>, affine: Affine<'_>, start: usize, columns: usize) {
    let group = affine.format.group;
    let mut numbers = [0; STEP];
    for step in 0..columns / STEP {
        let first = start + step * STEP;
        affine.numbers(first, &mut numbers);
        target.put_numbers(step, &numbers);
        if (step * STEP).is_multiple_of(group) {
            let (scale, minimum) = (affine.scales.bytes(first / group), affine.biases.bytes(first / group));
            target.put_group(step, scale, Some(minimum));
        }
    }
}

/// Number `i` of a step's row.
pub(super) fn number(width: Width, step: &[u8], lane: usize, i: usize) -> u8 {
    let (q, byte) = (i / 4, 4 * lane + i % 4);
    if width == Width::Eight {
        return step[q * QUAD_BYTES + byte];
    }
    let nibble = step[q % (QUADS / 2) * QUAD_BYTES + byte] >> (q / (QUADS / 2) * 4) & 15;
    let upper = match width {
        Width::Five => step[4 * QUAD_BYTES + byte] >> q & 1,
        Width::Six => step[(4 + q / 4) * QUAD_BYTES + byte] >> (2 * (q % 4)) & 3,
        Width::Four | Width::Eight => 0,
    };
    nibble | upper << 4
}

/// Scale and minimum of column `i` of a step's row.
fn scale_and_minimum(scaling: Scaling, header: &[u8], lane: usize, step: usize, i: usize) -> (f32, f32) {
    let half = |offset: usize| f16::from_le_bytes([header[offset + 2 * lane], header[offset + 2 * lane + 1]]).to_f32();
    let float = |kind: Float, offset: usize| match kind {
        Float::F16 => half(offset),
        Float::BF16 => {
            f32::from_bits(u32::from_le_bytes([0, 0, header[offset + 2 * lane], header[offset + 2 * lane + 1]]))
        }
        Float::F32 => {
            let bytes = &header[offset + 4 * lane..];
            f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        }
    };
    match scaling {
        Scaling::Groups { float: kind, minima, shift } => {
            let (groups, group) = (4 >> shift, step >> shift);
            let at = |group: usize| float(kind, group * LANES * kind.bytes());
            (at(group), if minima { at(groups + group) } else { 0.0 })
        }
        Scaling::SubBlocks32 => (
            half(0) * f32::from(header[SubBlocks32::SCALES + step * LANES + lane]),
            half(2 * LANES) * f32::from(header[SubBlocks32::MINIMA + step * LANES + lane]),
        ),
        Scaling::SubBlocks16 => {
            (half(0) * f32::from(header[SubBlocks16::SCALES + (2 * step + i / 16) * LANES + lane] as i8), 0.0)
        }
    }
}

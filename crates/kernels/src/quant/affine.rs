//! MLX's affine quantisation: `x = scale q + bias` over groups of a row.
//!
//! The numbers of a row are a stream of bits, the lowest first: value `i` takes the bits from `i * bits` on. MLX calls the
//! stream 32-bit words; on a little-endian machine the two are the same bytes.

use half::{bf16, f16};

/// Bits of a number and values of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AffineFormat {
    /// 2, 3, 4, 5, 6 or 8.
    pub bits: usize,
    /// 32, 64 or 128.
    pub group: usize,
}

impl AffineFormat {
    /// The format, if MLX knows it.
    pub fn new(bits: usize, group: usize) -> Option<Self> {
        (matches!(bits, 2..=6 | 8) && matches!(group, 32 | 64 | 128)).then_some(Self { bits, group })
    }

    /// Bytes of the numbers of `values` values, a multiple of a group.
    pub fn bytes_of(self, values: usize) -> usize {
        values / 8 * self.bits
    }
}

/// One float per group.
#[derive(Debug, Clone, Copy)]
pub enum Scales<'a> {
    /// IEEE single precision.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// The upper half of an `f32`.
    BF16(&'a [bf16]),
}

impl Scales<'_> {
    /// Element `i`, widened.
    #[inline(always)]
    pub fn get(&self, i: usize) -> f32 {
        match self {
            Scales::F32(values) => values[i],
            Scales::F16(values) => values[i].to_f32(),
            Scales::BF16(values) => values[i].to_f32(),
        }
    }

    /// Element `i` as it is stored.
    pub(crate) fn bytes(&self, i: usize) -> &[u8] {
        match self {
            Scales::F32(values) => bytemuck::bytes_of(&values[i]),
            Scales::F16(values) => bytemuck::bytes_of(&values[i]),
            Scales::BF16(values) => bytemuck::bytes_of(&values[i]),
        }
    }
}

/// A matrix in affine groups, row-major; each row fills whole groups.
#[derive(Debug, Clone, Copy)]
pub struct Affine<'a> {
    /// Bits and group.
    pub format: AffineFormat,
    /// The numbers.
    pub numbers: &'a [u8],
    /// A scale per group.
    pub scales: Scales<'a>,
    /// A bias per group.
    pub biases: Scales<'a>,
}

impl Affine<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.numbers.len() / self.format.bits * 8
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Widens the values `start..start + out.len()`; `start` is the beginning of a group or of 32 values of one.
    #[inline(always)]
    pub fn widen(&self, start: usize, out: &mut [f32]) {
        assert!(start.is_multiple_of(32) && out.len().is_multiple_of(32), "not whole groups");
        let mut numbers = [0; 32];
        for (i, out) in out.chunks_exact_mut(32).enumerate() {
            let first = start + i * 32;
            let group = first / self.format.group;
            let (scale, bias) = (self.scales.get(group), self.biases.get(group));
            self.numbers(first, &mut numbers);
            out.iter_mut().zip(numbers).for_each(|(out, q)| *out = scale * f32::from(q) + bias);
        }
    }

    /// The 32 numbers from `start` on, a multiple of 32.
    #[inline(always)]
    pub(crate) fn numbers(&self, start: usize, out: &mut [u8; 32]) {
        let bits = self.format.bits;
        let mask = (1u16 << bits) - 1;
        let numbers = &self.numbers[start / 8 * bits..][..4 * bits];
        for (j, out) in out.iter_mut().enumerate() {
            let bit = j * bits;
            let high = numbers.get(bit / 8 + 1).copied().unwrap_or(0);
            let pair = u16::from_le_bytes([numbers[bit / 8], high]);
            *out = (pair >> (bit % 8) & mask) as u8;
        }
    }
}

/// Quantises `values`, whole groups, as MLX does: writes the numbers and gives scale and bias of each group, not yet rounded
/// to the dtype they are stored in.
///
/// # Panics
/// If `numbers` has not the room that `values` need.
pub fn quantise_affine(values: &[f32], format: AffineFormat, numbers: &mut [u8]) -> Vec<(f32, f32)> {
    let AffineFormat { bits, group } = format;
    assert_eq!(numbers.len(), format.bytes_of(values.len()), "numbers and values do not fit");
    numbers.fill(0);
    let groups = values.chunks_exact(group).zip(numbers.chunks_exact_mut(format.bytes_of(group)));
    groups
        .map(|(values, numbers)| {
            let (scale, bias) = scale_and_bias(values, bits);
            let largest = ((1u32 << bits) - 1) as f32;
            for (i, &x) in values.iter().enumerate() {
                let q = ((x - bias) / scale).round_ties_even().clamp(0.0, largest) as u16;
                let bit = i * bits;
                let pair = q << (bit % 8);
                numbers[bit / 8] |= pair as u8;
                if pair > 255 {
                    numbers[bit / 8 + 1] |= (pair >> 8) as u8;
                }
            }
            (scale, bias)
        })
        .collect()
}

/// Scale and bias of a group: the end of larger magnitude is met exactly, and zero is a number where it lies in the range.
fn scale_and_bias(values: &[f32], bits: usize) -> (f32, f32) {
    let levels = ((1u32 << bits) - 1) as f32;
    let low = values.iter().fold(f32::INFINITY, |a, &b| a.min(b));
    let high = values.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let low_is_larger = low.abs() > high.abs();
    let magnitude = ((high - low) / levels).max(1e-7);
    let (scale, edge) = if low_is_larger { (magnitude, low) } else { (-magnitude, high) };
    let steps = (edge / scale).round_ties_even();
    if steps == 0.0 { (scale, 0.0) } else { (edge / steps, edge) }
}

impl Affine<'_> {
    /// The values `start..start + out.len()` as MLX's `dequantize` gives them: product and sum are rounded to the dtype of
    /// the scales. `start` is the beginning of a group or of 32 values of one.
    pub fn dequantise(&self, start: usize, out: &mut [f32]) {
        let round: fn(f32) -> f32 = match self.scales {
            Scales::F32(_) => |x| x,
            Scales::F16(_) => |x| f16::from_f32(x).to_f32(),
            Scales::BF16(_) => |x| bf16::from_f32(x).to_f32(),
        };
        let bits = self.format.bits;
        for (i, out) in out.chunks_exact_mut(32).enumerate() {
            let first = start + i * 32;
            let numbers = Affine {
                format: AffineFormat { bits, group: 32 },
                numbers: &self.numbers[first / 8 * bits..][..4 * bits],
                scales: Scales::F32(&[1.0]),
                biases: Scales::F32(&[0.0]),
            };
            numbers.widen(0, out);
            let group = first / self.format.group;
            let (scale, bias) = (self.scales.get(group), self.biases.get(group));
            out.iter_mut().for_each(|x| *x = round(round(scale * *x) + bias));
        }
    }
}

//! Weight matrices as they are stored.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::integer::Packed;
use crate::quant::{Affine, Blocks};
use crate::simd::dispatch;

/// The elements of a matrix as they are stored, row-major.
#[derive(Clone, Copy)]
pub enum Matrix<'a> {
    /// IEEE single precision.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// The upper half of an `f32`.
    BF16(&'a [bf16]),
    /// Blocks of GGUF; each row fills whole blocks.
    Blocks(Blocks<'a>),
    /// Affine groups of MLX; each row fills whole groups.
    Affine(Affine<'a>),
    /// Blocks or groups in the order of the integer kernels.
    Packed(&'a Packed),
    /// Matrices whose rows stand one below the other.
    Joined(&'a dyn RowParts),
}

/// The parts of a matrix whose rows lie in several places: projections that a file stores apart, each as it is stored.
pub trait RowParts: Sync {
    /// The part `index`, from the first rows to the last; `None` behind them. None of them is joined itself.
    fn part(&self, index: usize) -> Option<Matrix<'_>>;
}

impl<'a> dyn RowParts + 'a {
    /// All parts, each with the number of elements before it.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (usize, Matrix<'_>)> {
        let mut start = 0;
        (0..).map_while(|index| self.part(index)).map(move |part| {
            let before = start;
            start += part.len();
            (before, part)
        })
    }
}

impl<'a> Matrix<'a> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Matrix::F32(data) => data.len(),
            Matrix::F16(data) => data.len(),
            Matrix::BF16(data) => data.len(),
            Matrix::Blocks(blocks) => blocks.len(),
            Matrix::Affine(affine) => affine.len(),
            Matrix::Packed(packed) => packed.rows() * packed.columns(),
            Matrix::Joined(parts) => parts.placed().map(|(_, part)| part.len()).sum(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All elements as `f32`.
    pub fn to_f32(self) -> Vec<f32> {
        let mut values = vec![0.0; self.len()];
        self.widen(0, &mut values);
        values
    }

    /// Elements `start..start + out.len()` as `f32`; those of affine groups as MLX's `dequantize` gives them. What is
    /// quantised begins and ends with a block, or with 32 values of a group.
    pub fn widen(self, start: usize, out: &mut [f32]) {
        dispatch(
            #[inline(always)]
            || match self {
                Matrix::F32(data) => out.copy_from_slice(&data[start..start + out.len()]),
                Matrix::Affine(affine) => affine.dequantise(start, out),
                Matrix::Joined(parts) => {
                    for (part, start, out) in overlapping(parts, start, out) {
                        part.widen(start, out);
                    }
                }
                _ => {
                    self.widened(start, out.len(), out);
                }
            },
        );
    }

    /// Elements `start..start + out.len()` as products see them; of affine groups `scale q + bias` in `f32`. Whole rows.
    pub(crate) fn widen_as_multiplied(self, start: usize, out: &mut [f32]) {
        dispatch(
            #[inline(always)]
            || {
                if let Matrix::F32(data) = self {
                    out.copy_from_slice(&data[start..start + out.len()]);
                } else {
                    self.widened(start, out.len(), out);
                }
            },
        );
    }

    /// Elements `start..start + length` as `f32`, borrowed or widened into `buffer`. What is quantised begins and ends with
    /// a block or group, what is packed with a row.
    #[inline(always)]
    pub(crate) fn widened(self, start: usize, length: usize, buffer: &'a mut [f32]) -> &'a [f32] {
        let range = start..start + length;
        match self {
            Matrix::F32(data) => return &data[range],
            Matrix::F16(data) => data[range].convert_to_f32_slice(&mut buffer[..length]),
            Matrix::BF16(data) => data[range].convert_to_f32_slice(&mut buffer[..length]),
            Matrix::Blocks(blocks) => blocks.widen(start, &mut buffer[..length]),
            Matrix::Affine(affine) => affine.widen(start, &mut buffer[..length]),
            Matrix::Packed(packed) => packed.widen(start, &mut buffer[..length]),
            Matrix::Joined(parts) => {
                for (part, start, out) in overlapping(parts, start, &mut buffer[..length]) {
                    part.widen_as_multiplied(start, out);
                }
            }
        }
        &buffer[..length]
    }
}

/// The parts that elements from `start` on lie in, where they begin in each, and their places in `out`.
fn overlapping<'p>(
    parts: &'p dyn RowParts,
    start: usize,
    mut out: &'p mut [f32],
) -> impl Iterator<Item = (Matrix<'p>, usize, &'p mut [f32])> {
    parts.placed().filter_map(move |(before, part)| {
        let start = start.max(before) - before;
        let length = out.len().min(part.len().saturating_sub(start));
        let (here, rest) = std::mem::take(&mut out).split_at_mut(length);
        out = rest;
        (length > 0).then_some((part, start, here))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two([Vec<f32>; 2]);

    impl RowParts for Two {
        fn part(&self, index: usize) -> Option<Matrix<'_>> {
            self.0.get(index).map(|part| Matrix::F32(part))
        }
    }

    #[test]
    fn joined_rows_are_those_of_the_parts() {
        let parts = Two([(0..6).map(|x| x as f32).collect(), (6..15).map(|x| x as f32).collect()]);
        let joined = Matrix::Joined(&parts);
        assert_eq!(joined.to_f32(), (0..15).map(|x| x as f32).collect::<Vec<_>>());
        for (start, length) in [(0, 3), (3, 6), (6, 3), (3, 12), (12, 3)] {
            let mut buffer = vec![0.0; 15];
            let expected: Vec<f32> = (start..start + length).map(|x| x as f32).collect();
            assert_eq!(joined.widened(start, length, &mut buffer), expected);
        }
    }
}

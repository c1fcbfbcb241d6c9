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
        }
        &buffer[..length]
    }
}

//! Values as the bytes of a dtype.

use bytemuck::cast_slice;
use half::{bf16, f16};
use openelm::DType;

/// `values` rounded to `dtype` (half to even), little-endian.
pub(crate) fn cast(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => cast_slice(values).to_vec(),
        DType::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
    }
}

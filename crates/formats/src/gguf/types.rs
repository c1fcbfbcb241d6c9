//! ggml's numbers of tensor types and of whole files.

use openelm_model::kernels::quant::BlockFormat;
use openelm_model::{DType, Encoding};

/// Numbers of tensor types that can be read.
const TENSOR_TYPES: [(u32, Encoding); 11] = [
    (0, Encoding::Float(DType::F32)),
    (1, Encoding::Float(DType::F16)),
    (30, Encoding::Float(DType::BF16)),
    (2, Encoding::Blocks(BlockFormat::Q4_0)),
    (3, Encoding::Blocks(BlockFormat::Q4_1)),
    (6, Encoding::Blocks(BlockFormat::Q5_0)),
    (7, Encoding::Blocks(BlockFormat::Q5_1)),
    (8, Encoding::Blocks(BlockFormat::Q8_0)),
    (12, Encoding::Blocks(BlockFormat::Q4_K)),
    (13, Encoding::Blocks(BlockFormat::Q5_K)),
    (14, Encoding::Blocks(BlockFormat::Q6_K)),
];

/// What ggml's number of a tensor type stands for.
pub(super) fn encoding_of(kind: u32) -> Option<Encoding> {
    TENSOR_TYPES.iter().find(|(number, _)| *number == kind).map(|(_, encoding)| *encoding)
}

/// ggml's number for an encoding.
pub(super) fn kind_of(encoding: Encoding) -> Option<u32> {
    TENSOR_TYPES.iter().find(|(_, known)| *known == encoding).map(|(number, _)| *number)
}

/// llama.cpp's number (`general.file_type`) for a file whose matrices are mostly in `encoding`.
pub(super) fn file_type(encoding: Encoding) -> u32 {
    match encoding {
        Encoding::Float(DType::F32) | Encoding::Affine(..) => 0,
        Encoding::Float(DType::F16) => 1,
        Encoding::Float(DType::BF16) => 32,
        Encoding::Blocks(BlockFormat::Q4_0) => 2,
        Encoding::Blocks(BlockFormat::Q4_1) => 3,
        Encoding::Blocks(BlockFormat::Q8_0) => 7,
        Encoding::Blocks(BlockFormat::Q5_0) => 8,
        Encoding::Blocks(BlockFormat::Q5_1) => 9,
        Encoding::Blocks(BlockFormat::Q4_K) => 15,
        Encoding::Blocks(BlockFormat::Q5_K) => 17,
        Encoding::Blocks(BlockFormat::Q6_K) => 18,
    }
}

//! Tensors from one encoding to another: in pieces, so that the values of a large tensor are never all there as `f32`.

use std::sync::Mutex;

use bytemuck::cast_slice;
use bytes::Bytes;
use half::{bf16, f16};
use openelm_model::kernels::quant::{AffineFormat, BlockFormat, quantise_affine};
use openelm_model::kernels::{Matrix, Threads};
use openelm_model::{DType, Encoding, Tensor};

use crate::FormatError;

/// Values of a piece: whole blocks and groups of any format.
const PIECE: usize = 1 << 15;
/// From this on a value rounds to infinity in half precision.
const F16_LIMIT: f32 = 65_520.0;

/// `tensor` in `encoding`; `name` is for messages. What is in `encoding` already is not touched; floats are rounded half to
/// even; the values of a quantised tensor are those its format defines.
///
/// # Errors
/// If a finite value would become infinite, a value that is not finite cannot be quantised, or the rows do not fill whole
/// blocks or groups.
pub fn encode(tensor: &Tensor, encoding: Encoding, name: &str, threads: &Threads) -> Result<Tensor, FormatError> {
    if tensor.encoding() == encoding {
        return Ok(tensor.clone());
    }
    let shape = tensor.shape().to_vec();
    let Some(size) = encoding.bytes_of(&shape) else {
        let columns = shape.last().copied().unwrap_or(0);
        let reason = format!("tensor {name} has {columns} columns, which {encoding} cannot divide evenly");
        return Err(FormatError::Inexpressible { reason });
    };
    let pieces = Pieces { matrix: tensor.matrix(), encoding, misfit: Mutex::new(None) };
    let encoded = match encoding {
        Encoding::Float(dtype) => Tensor::new(dtype, shape, pieces.floats(dtype, size, threads)),
        Encoding::Blocks(format) => Tensor::blocks(format, shape, pieces.blocks(format, size, threads)),
        Encoding::Affine(format, dtype) => {
            let (numbers, scales, biases) = pieces.affine(format, dtype, threads);
            Tensor::affine(format, dtype, shape, numbers, scales, biases)
        }
    };
    match pieces.misfit.into_inner().unwrap_or_default() {
        Some((_, value)) if value.is_finite() => Err(FormatError::Overflow { name: name.to_owned(), encoding, value }),
        Some((_, value)) => Err(FormatError::NotFinite { name: name.to_owned(), encoding, value }),
        None => Ok(encoded?),
    }
}

/// A matrix that is encoded piece by piece.
struct Pieces<'a> {
    matrix: Matrix<'a>,
    encoding: Encoding,
    /// The first value that does not fit, behind the number of its piece.
    misfit: Mutex<Option<(usize, f32)>>,
}

impl Pieces<'_> {
    /// The values of piece `index`, checked.
    fn values(&self, index: usize) -> Vec<f32> {
        let start = index * PIECE;
        let mut values = vec![0.0; PIECE.min(self.matrix.len() - start)];
        self.matrix.widen(start, &mut values);
        if let Some(&misfit) = values.iter().find(|x| !fits(**x, self.encoding))
            && let Ok(mut first) = self.misfit.lock()
            && first.is_none_or(|(before, _)| index < before)
        {
            *first = Some((index, misfit));
        }
        values
    }

    fn floats(&self, dtype: DType, size: usize, threads: &Threads) -> Bytes {
        let mut bytes = vec![0; size];
        threads.for_each_chunk(&mut bytes, PIECE * dtype.size(), |index, bytes| {
            cast(&self.values(index), dtype, bytes);
        });
        bytes.into()
    }

    fn blocks(&self, format: BlockFormat, size: usize, threads: &Threads) -> Bytes {
        let mut bytes = vec![0; size];
        threads.for_each_chunk(&mut bytes, PIECE / format.block_len() * format.block_bytes(), |index, bytes| {
            format.quantise(&self.values(index), bytes);
        });
        bytes.into()
    }

    /// Numbers, scales and biases. As in MLX the values are rounded to `dtype` before, scales and biases afterwards.
    fn affine(&self, format: AffineFormat, dtype: DType, threads: &Threads) -> (Bytes, Bytes, Bytes) {
        let round: fn(f32) -> f32 = match dtype {
            DType::F32 => |x| x,
            DType::F16 => |x| f16::from_f32(x).to_f32(),
            DType::BF16 => |x| bf16::from_f32(x).to_f32(),
        };
        let mut numbers = vec![0; format.bytes_of(self.matrix.len())];
        let mut groups = vec![(0.0, 0.0); self.matrix.len() / format.group];
        let cut = ((&mut numbers[..], format.bytes_of(PIECE)), (&mut groups[..], PIECE / format.group));
        threads.for_each_chunk2(cut.0, cut.1, |index, numbers, groups| {
            let mut values = self.values(index);
            values.iter_mut().for_each(|x| *x = round(*x));
            groups.copy_from_slice(&quantise_affine(&values, format, numbers));
        });
        let floats = |values: Vec<f32>| {
            let mut bytes = vec![0; values.len() * dtype.size()];
            cast(&values, dtype, &mut bytes);
            bytes.into()
        };
        let (scales, biases) = groups.into_iter().unzip();
        (numbers.into(), floats(scales), floats(biases))
    }
}

/// Whether `x` can be written in `encoding`. Blocks hold their scales in half precision.
fn fits(x: f32, encoding: Encoding) -> bool {
    match encoding {
        Encoding::Float(_) if !x.is_finite() => true,
        Encoding::Float(DType::F32) | Encoding::Affine(_, DType::F32) => x.is_finite(),
        Encoding::Float(DType::BF16) | Encoding::Affine(_, DType::BF16) => bf16::from_f32(x).is_finite(),
        Encoding::Float(DType::F16) | Encoding::Affine(_, DType::F16) | Encoding::Blocks(_) => x.abs() < F16_LIMIT,
    }
}

/// `values` rounded to `dtype` (half to even), little-endian.
fn cast(values: &[f32], dtype: DType, bytes: &mut [u8]) {
    match dtype {
        DType::F32 => bytes.copy_from_slice(cast_slice(values)),
        DType::F16 => halves(values, bytes, |x| f16::from_f32(x).to_le_bytes()),
        DType::BF16 => halves(values, bytes, |x| bf16::from_f32(x).to_le_bytes()),
    }
}

fn halves(values: &[f32], bytes: &mut [u8], half: impl Fn(f32) -> [u8; 2]) {
    bytes.chunks_exact_mut(2).zip(values).for_each(|(bytes, &x)| bytes.copy_from_slice(&half(x)));
}

//! Tensors from one encoding to another.

use bytemuck::cast_slice;
use bytes::Bytes;
use half::{bf16, f16};
use openelm::kernels::Threads;
use openelm::kernels::quant::{AffineFormat, BlockFormat, quantise_affine};
use openelm::{DType, Encoding, Tensor};

use crate::FormatError;

/// Beyond this a value rounds to infinity in half precision.
const F16_LIMIT: f32 = 65_520.0;

/// `tensor` in `encoding`; `name` is for messages. What is in `encoding` already is not touched; floats are rounded half to
/// even; the values of a quantised tensor are those its format defines.
///
/// # Errors
/// If a value is too large for half precision, or the rows do not fill whole blocks or groups.
pub fn encode(tensor: &Tensor, encoding: Encoding, name: &str, threads: &Threads) -> Result<Tensor, FormatError> {
    if tensor.encoding() == encoding {
        return Ok(tensor.clone());
    }
    let shape = tensor.shape();
    let Some(size) = encoding.bytes_of(shape) else {
        let columns = shape.last().copied().unwrap_or(0);
        let reason = format!("tensor {name} has {columns} columns, which {encoding} cannot divide evenly");
        return Err(FormatError::Inexpressible { reason });
    };
    let values = tensor.to_f32();
    let (Encoding::Float(dtype) | Encoding::Affine(_, dtype)) = encoding else {
        let Encoding::Blocks(format) = encoding else { unreachable!("all encodings are named") };
        check_range(&values, DType::F16, encoding, name)?;
        let bytes = blocks(&values, format, size, threads);
        return Ok(Tensor::blocks(format, shape.to_vec(), bytes.into()).expect("the bytes were made for the shape"));
    };
    check_range(&values, dtype, encoding, name)?;
    let tensor = match encoding {
        Encoding::Affine(format, _) => {
            let (numbers, scales, biases) = affine(values, format, dtype, threads);
            Tensor::affine(format, dtype, shape.to_vec(), numbers, scales, biases)
        }
        _ => Tensor::new(dtype, shape.to_vec(), cast(&values, dtype).into()),
    };
    Ok(tensor.expect("the bytes were made for the shape"))
}

fn check_range(values: &[f32], dtype: DType, encoding: Encoding, name: &str) -> Result<(), FormatError> {
    if dtype != DType::F16 {
        return Ok(());
    }
    match values.iter().find(|x| x.is_finite() && x.abs() >= F16_LIMIT) {
        Some(&value) => Err(FormatError::Overflow { name: name.to_owned(), encoding, value }),
        None => Ok(()),
    }
}

/// `values` rounded to `dtype` (half to even), little-endian.
fn cast(values: &[f32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F32 => cast_slice(values).to_vec(),
        DType::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        DType::BF16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
    }
}

/// Values of a task when a tensor is quantised: whole blocks and groups of any format.
const TASK: usize = 1 << 15;

fn blocks(values: &[f32], format: BlockFormat, size: usize, threads: &Threads) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let task_bytes = TASK / format.block_len() * format.block_bytes();
    threads.for_each_chunk(&mut bytes, task_bytes, |task, bytes| {
        let values = &values[task * TASK..];
        format.quantise(&values[..TASK.min(values.len())], bytes);
    });
    bytes
}

/// Numbers, scales and biases. As in MLX the values are rounded to `dtype` before, scales and biases afterwards.
fn affine(mut values: Vec<f32>, format: AffineFormat, dtype: DType, threads: &Threads) -> (Bytes, Bytes, Bytes) {
    let round: fn(&mut f32) = match dtype {
        DType::F32 => |_| (),
        DType::F16 => |x| *x = f16::from_f32(*x).to_f32(),
        DType::BF16 => |x| *x = bf16::from_f32(*x).to_f32(),
    };
    threads.for_each_chunk(&mut values, TASK, |_, values| values.iter_mut().for_each(round));
    let mut numbers = vec![0; format.bytes_of(values.len())];
    let mut groups = vec![(0.0, 0.0); values.len() / format.group];
    let cut = ((&mut numbers[..], format.bytes_of(TASK)), (&mut groups[..], TASK / format.group));
    threads.for_each_chunk2(cut.0, cut.1, |task, numbers, groups| {
        let values = &values[task * TASK..];
        groups.copy_from_slice(&quantise_affine(&values[..TASK.min(values.len())], format, numbers));
    });
    let (scales, biases): (Vec<f32>, Vec<f32>) = groups.into_iter().unzip();
    (numbers.into(), cast(&scales, dtype).into(), cast(&biases, dtype).into())
}

//! A tensor as it lies in a file: a dtype, a shape and bytes that are mapped, embedded or owned.

use bytes::Bytes;
use half::{bf16, f16};

/// The element types that weights come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `f32`.
    BF16,
}

impl DType {
    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DType::F32 => "float32",
            DType::F16 => "float16",
            DType::BF16 => "bfloat16",
        })
    }
}

/// Bytes that do not make up the tensor that was announced.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{shape:?} elements of {dtype} need {expected} bytes, found {found}")]
pub struct TensorError {
    /// Announced element type.
    pub dtype: DType,
    /// Announced shape.
    pub shape: Vec<usize>,
    /// Bytes that dtype and shape ask for.
    pub expected: usize,
    /// Bytes that are there.
    pub found: usize,
}

/// A read-only tensor, row-major. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Tensor {
    /// Wraps little-endian `bytes`; copies them only if they are not aligned for `dtype`.
    ///
    /// # Errors
    /// If their number is not what shape and dtype ask for.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self, TensorError> {
        let expected = shape.iter().try_fold(dtype.size(), |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
        if bytes.len() != expected {
            return Err(TensorError { dtype, shape, expected, found: bytes.len() });
        }
        let bytes = if bytes.as_ptr().align_offset(dtype.size()) == 0 { bytes } else { aligned(&bytes) };
        Ok(Self { dtype, shape, bytes })
    }

    /// A tensor of owned `f32` values.
    ///
    /// # Errors
    /// If their number is not that of the shape.
    pub fn from_f32(shape: Vec<usize>, values: Vec<f32>) -> Result<Self, TensorError> {
        Self::new(DType::F32, shape, Bytes::from_owner(Words(values)))
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// `[rows, columns]` of a matrix, `[length]` of a vector.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements' bytes, little-endian, row-major.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The same tensor in `f32`.
    pub fn widened(&self) -> Self {
        match self.dtype {
            DType::F32 => self.clone(),
            _ => Self { dtype: DType::F32, shape: self.shape.clone(), bytes: Bytes::from_owner(Words(self.to_f32())) },
        }
    }

    /// All values widened to `f32` (exact for each dtype).
    pub fn to_f32(&self) -> Vec<f32> {
        match self.dtype {
            DType::F32 => bytemuck::cast_slice(&self.bytes).to_vec(),
            DType::F16 => bytemuck::cast_slice::<u8, f16>(&self.bytes).iter().map(|x| x.to_f32()).collect(),
            DType::BF16 => bytemuck::cast_slice::<u8, bf16>(&self.bytes).iter().map(|x| x.to_f32()).collect(),
        }
    }
}

/// Owned words seen as bytes: the allocation of a `Vec<f32>` is aligned for every dtype.
struct Words(Vec<f32>);

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

fn aligned(bytes: &[u8]) -> Bytes {
    let mut words = vec![0.0; bytes.len().div_ceil(4)];
    bytemuck::cast_slice_mut::<f32, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
    Bytes::from_owner(Words(words)).slice(..bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_widen_exactly_and_misaligned_bytes_are_copied() {
        let mut bytes = vec![0];
        for x in [1.5, -0.25, 65504.0] {
            bytes.extend(f16::from_f32(x).to_le_bytes());
        }
        let tensor = Tensor::new(DType::F16, vec![3], Bytes::from(bytes).slice(1..)).unwrap();
        assert_eq!(tensor.to_f32(), [1.5, -0.25, 65504.0]);
    }

    #[test]
    fn a_wrong_number_of_bytes_is_refused() {
        let error = Tensor::new(DType::F32, vec![2, 3], Bytes::from_static(&[0; 20])).unwrap_err();
        assert_eq!((error.expected, error.found), (24, 20));
        assert!(Tensor::new(DType::F32, vec![usize::MAX, 2], Bytes::new()).is_err());
    }
}

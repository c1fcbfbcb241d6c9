//! A tensor as it lies in a file: an encoding, a shape and bytes that are mapped, embedded or owned.

use std::ops::Range;

use bytemuck::cast_slice;
use bytes::Bytes;
use openelm_kernels::Matrix;
use openelm_kernels::quant::{Affine, AffineFormat, BlockFormat, Blocks, Scales};

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

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Plain numbers.
    Float(DType),
    /// Blocks of GGUF.
    Blocks(BlockFormat),
    /// Affine groups of MLX, with scales and biases of a dtype.
    Affine(AffineFormat, DType),
}

impl Encoding {
    /// The dtype of plain numbers.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Encoding::Float(dtype) => Some(dtype),
            _ => None,
        }
    }

    /// Bytes of a tensor of this shape; `None` if its rows do not fill whole blocks or groups, or the number overflows.
    pub fn bytes_of(self, shape: &[usize]) -> Option<usize> {
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let row = shape.last().copied().unwrap_or(0);
        match self {
            Encoding::Float(dtype) => elements.checked_mul(dtype.size()),
            Encoding::Blocks(format) if row.is_multiple_of(format.block_len()) => format.bytes_of(elements),
            Encoding::Affine(format, dtype) if row.is_multiple_of(format.group) => {
                Some(format.bytes_of(elements) + 2 * dtype.size() * (elements / format.group))
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Encoding::Float(dtype) => dtype.fmt(f),
            Encoding::Blocks(format) => format.fmt(f),
            Encoding::Affine(format, dtype) => {
                write!(f, "{} bits in groups of {} ({dtype})", format.bits, format.group)
            }
        }
    }
}

/// Bytes that do not make up the tensor that was announced.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{shape:?} elements of {encoding} need {}, found {found} bytes", expected.map_or("whole blocks in each row".to_owned(), |n| format!("{n} bytes")))]
pub struct TensorError {
    /// Announced encoding.
    pub encoding: Encoding,
    /// Announced shape.
    pub shape: Vec<usize>,
    /// Bytes that encoding and shape ask for; `None` if they do not go together.
    pub expected: Option<usize>,
    /// Bytes that are there.
    pub found: usize,
}

/// Scales and biases of affine groups.
#[derive(Debug, Clone)]
struct Groups {
    scales: Bytes,
    biases: Bytes,
}

/// A read-only tensor, row-major. Cloning shares the bytes.
#[derive(Debug, Clone)]
pub struct Tensor {
    encoding: Encoding,
    shape: Vec<usize>,
    bytes: Bytes,
    groups: Option<Groups>,
}

impl Tensor {
    /// Wraps little-endian `bytes`; copies them only if they are not aligned for `dtype`.
    ///
    /// # Errors
    /// If their number is not what shape and dtype ask for.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self, TensorError> {
        Self::checked(Encoding::Float(dtype), shape, aligned(bytes, dtype), None)
    }

    /// Wraps blocks of GGUF.
    ///
    /// # Errors
    /// If rows do not fill whole blocks, or the number of bytes is not what the shape asks for.
    pub fn blocks(format: BlockFormat, shape: Vec<usize>, bytes: Bytes) -> Result<Self, TensorError> {
        Self::checked(Encoding::Blocks(format), shape, bytes, None)
    }

    /// Wraps affine groups of MLX: the numbers, and scales and biases of `dtype`, one of each per group.
    ///
    /// # Errors
    /// If rows do not fill whole groups, or the number of bytes is not what the shape asks for.
    pub fn affine(
        format: AffineFormat,
        dtype: DType,
        shape: Vec<usize>,
        numbers: Bytes,
        scales: Bytes,
        biases: Bytes,
    ) -> Result<Self, TensorError> {
        let encoding = Encoding::Affine(format, dtype);
        let elements = numbers.len() / format.bits * 8;
        let expected = elements / format.group * dtype.size();
        if scales.len() != expected || biases.len() != expected {
            let found = numbers.len() + scales.len() + biases.len();
            return Err(TensorError { encoding, expected: encoding.bytes_of(&shape), shape, found });
        }
        let groups = Groups { scales: aligned(scales, dtype), biases: aligned(biases, dtype) };
        Self::checked(encoding, shape, numbers, Some(groups))
    }

    fn checked(
        encoding: Encoding,
        shape: Vec<usize>,
        bytes: Bytes,
        groups: Option<Groups>,
    ) -> Result<Self, TensorError> {
        let expected = encoding.bytes_of(&shape);
        let tensor = Self { encoding, shape, bytes, groups };
        match tensor.size() {
            found if expected == Some(found) => Ok(tensor),
            found => Err(TensorError { encoding, shape: tensor.shape, expected, found }),
        }
    }

    /// A tensor of owned `f32` values.
    ///
    /// # Errors
    /// If their number is not that of the shape.
    pub fn from_f32(shape: Vec<usize>, values: Vec<f32>) -> Result<Self, TensorError> {
        Self::new(DType::F32, shape, Bytes::from_owner(Words(values)))
    }

    /// How the elements are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// `[rows, columns]` of a matrix, `[length]` of a vector.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements' bytes, little-endian, row-major; without the scales and biases of affine groups.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Scales and biases of affine groups.
    pub fn scales_and_biases(&self) -> Option<(&Bytes, &Bytes)> {
        self.groups.as_ref().map(|groups| (&groups.scales, &groups.biases))
    }

    /// Bytes in all.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.groups.as_ref().map_or(0, |groups| groups.scales.len() + groups.biases.len())
    }

    /// The first `rows` rows of a matrix; the bytes are shared.
    ///
    /// # Panics
    /// If it has fewer rows.
    pub fn first_rows(&self, rows: usize) -> Self {
        self.rows(0..rows)
    }

    /// Some rows of a matrix, or elements of a vector; the bytes are shared.
    ///
    /// # Panics
    /// If it has not so many.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.shape[0], "rows {rows:?} of {}", self.shape[0]);
        let part = |bytes: &Bytes| {
            let row = bytes.len() / self.shape[0].max(1);
            bytes.slice(row * rows.start..row * rows.end)
        };
        self.with_bytes(rows.len(), part)
    }

    /// The rows in another order: row `i` is row `source(i)` of this tensor. A copy.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn reordered(&self, source: impl Fn(usize) -> usize) -> Self {
        let count = self.shape[0];
        let dtype = match self.encoding {
            Encoding::Float(dtype) | Encoding::Affine(_, dtype) => dtype,
            Encoding::Blocks(_) => DType::F16,
        };
        self.with_bytes(count, |bytes| {
            let row = bytes.len() / count.max(1);
            let copied = (0..count).flat_map(|i| &bytes[source(i) * row..][..row]).copied();
            aligned(copied.collect::<Vec<u8>>().into(), dtype)
        })
    }

    /// A tensor of `rows` rows, of whose bytes `part` gives each kind.
    fn with_bytes(&self, rows: usize, part: impl Fn(&Bytes) -> Bytes) -> Self {
        let mut shape = self.shape.clone();
        shape[0] = rows;
        let groups = self.groups.as_ref();
        let groups = groups.map(|groups| Groups { scales: part(&groups.scales), biases: part(&groups.biases) });
        Self { encoding: self.encoding, shape, bytes: part(&self.bytes), groups }
    }

    /// The elements as the kernels see them.
    pub fn matrix(&self) -> Matrix<'_> {
        match (self.encoding, &self.groups) {
            (Encoding::Float(DType::F32), _) => Matrix::F32(cast_slice(&self.bytes)),
            (Encoding::Float(DType::F16), _) => Matrix::F16(cast_slice(&self.bytes)),
            (Encoding::Float(DType::BF16), _) => Matrix::BF16(cast_slice(&self.bytes)),
            (Encoding::Blocks(format), _) => Matrix::Blocks(Blocks { format, bytes: &self.bytes }),
            (Encoding::Affine(format, dtype), Some(groups)) => Matrix::Affine(Affine {
                format,
                numbers: &self.bytes,
                scales: scales(&groups.scales, dtype),
                biases: scales(&groups.biases, dtype),
            }),
            (Encoding::Affine(..), None) => unreachable!("affine tensors are made with their groups"),
        }
    }

    /// The same tensor in `f32`; one that is in `f32` borrows what it borrowed.
    pub fn widened(&self) -> Self {
        if self.encoding == Encoding::Float(DType::F32) {
            return self.clone();
        }
        self.in_f32()
    }

    /// The same tensor in `f32`, in memory of its own.
    pub fn in_f32(&self) -> Self {
        let bytes = Bytes::from_owner(Words(self.to_f32()));
        Self { encoding: Encoding::Float(DType::F32), shape: self.shape.clone(), bytes, groups: None }
    }

    /// All values widened to `f32` (exact for floats; what is quantised gets the values its format defines).
    pub fn to_f32(&self) -> Vec<f32> {
        self.matrix().to_f32()
    }
}

fn scales(bytes: &Bytes, dtype: DType) -> Scales<'_> {
    match dtype {
        DType::F32 => Scales::F32(cast_slice(bytes)),
        DType::F16 => Scales::F16(cast_slice(bytes)),
        DType::BF16 => Scales::BF16(cast_slice(bytes)),
    }
}

/// Owned words seen as bytes: the allocation of a `Vec<f32>` is aligned for every dtype.
struct Words(Vec<f32>);

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// `bytes`, copied if they are not aligned for `dtype`.
fn aligned(bytes: Bytes, dtype: DType) -> Bytes {
    if bytes.as_ptr().align_offset(dtype.size()) == 0 {
        return bytes;
    }
    let mut words = vec![0.0; bytes.len().div_ceil(4)];
    bytemuck::cast_slice_mut::<f32, u8>(&mut words)[..bytes.len()].copy_from_slice(&bytes);
    Bytes::from_owner(Words(words)).slice(..bytes.len())
}

#[cfg(test)]
mod tests {
    use half::f16;

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
    fn rows_are_cut_and_put_in_another_order() {
        let values: Vec<f32> = (0..12).map(|x| x as f32).collect();
        let tensor = Tensor::from_f32(vec![4, 3], values.clone()).unwrap();
        assert_eq!(tensor.rows(1..3).to_f32(), values[3..9]);
        assert_eq!(tensor.rows(1..3).shape(), [2, 3]);
        let reordered = tensor.reordered(|row| 3 - row);
        assert_eq!(reordered.to_f32()[..3], values[9..]);
        assert_eq!(reordered.reordered(|row| 3 - row).to_f32(), values);
    }

    #[test]
    fn a_wrong_number_of_bytes_is_refused() {
        let error = Tensor::new(DType::F32, vec![2, 3], Bytes::from_static(&[0; 20])).unwrap_err();
        assert_eq!((error.expected, error.found), (Some(24), 20));
        assert!(Tensor::new(DType::F32, vec![usize::MAX, 2], Bytes::new()).is_err());
        let error = Tensor::blocks(BlockFormat::Q4_0, vec![2, 16], Bytes::from_static(&[0; 18])).unwrap_err();
        assert!(error.to_string().contains("whole blocks"));
    }
}

//! Tensors whose rows stand one below the other.

use std::sync::Arc;

use bytes::Bytes;
use openelm_kernels::Packed;

use crate::tensor::{DType, Encoding, Tensor};

/// A tensor, or several of equal width whose rows stand one below the other: the parts of a projection that a file stores apart,
/// each as it is stored.
#[derive(Debug, Clone)]
pub struct Stack(Vec<Tensor>);

impl From<Tensor> for Stack {
    fn from(tensor: Tensor) -> Self {
        Self(vec![tensor])
    }
}

/// A tensor as a model is put together from it.
pub enum Loaded {
    /// As it lies in a file.
    Stored(Stack),
    /// In the order of the integer kernels already: it stays where it is.
    Packed(Arc<Packed>),
}

impl<T: Into<Stack>> From<T> for Loaded {
    fn from(tensor: T) -> Self {
        Self::Stored(tensor.into())
    }
}

impl Stack {
    /// The stack of `parts`, the first rows first.
    ///
    /// # Panics
    /// If there are none, or they are of different widths.
    pub fn new(parts: Vec<Tensor>) -> Self {
        let width = parts.first().map(|part| &part.shape()[1..]);
        assert!(
            width.is_some() && parts.iter().all(|part| width == Some(&part.shape()[1..])),
            "{parts:?} are no stack"
        );
        Self(parts)
    }

    /// Its parts.
    pub fn parts(&self) -> &[Tensor] {
        &self.0
    }

    /// The shape of all parts together.
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = self.0[0].shape().to_vec();
        shape[0] = self.0.iter().map(|part| part.shape()[0]).sum();
        shape
    }

    /// All parts as one tensor: the same bytes where they are stored alike, `f32` otherwise. A copy, if there are several.
    pub fn joined(&self) -> Tensor {
        match &self.0[..] {
            [tensor] => tensor.clone(),
            parts => join(parts),
        }
    }

    /// The same with quantised neighbours that are stored alike in one part. Floats stay where they are.
    pub(crate) fn quantised_joined(&self) -> Self {
        let alike = |a: &Tensor, b: &Tensor| a.encoding().dtype().is_none() && a.encoding() == b.encoding();
        Self(self.0.chunk_by(alike).map(|parts| Self(parts.to_vec()).joined()).collect())
    }
}

fn join(parts: &[Tensor]) -> Tensor {
    let shape = Stack(parts.to_vec()).shape();
    let encoding = parts[0].encoding();
    let all = |part: &dyn Fn(&Tensor) -> Bytes| -> Bytes { parts.iter().map(part).collect::<Vec<_>>().concat().into() };
    let values = || all(&|part| part.bytes().clone());
    let groups = |second: bool| {
        let of = |part: &Tensor| {
            part.scales_and_biases().map(|(scales, biases)| if second { biases } else { scales }.clone())
        };
        all(&|part| of(part).unwrap_or_default())
    };
    let joined = match encoding {
        _ if parts.iter().any(|part| part.encoding() != encoding) => {
            Tensor::from_f32(shape, parts.iter().flat_map(Tensor::to_f32).collect())
        }
        // Through words, so that they are aligned.
        Encoding::Float(DType::F32) => Tensor::from_f32(shape, parts.iter().flat_map(Tensor::to_f32).collect()),
        Encoding::Float(dtype) => Tensor::new(dtype, shape, values()),
        Encoding::Blocks(format) => Tensor::blocks(format, shape, values()),
        Encoding::Affine(format, dtype) => Tensor::affine(format, dtype, shape, values(), groups(false), groups(true)),
    };
    joined.unwrap_or_else(|e| unreachable!("parts of one width make a tensor: {e}"))
}

#[cfg(test)]
mod tests {
    use openelm_kernels::quant::BlockFormat;

    use super::*;

    fn blocks(format: BlockFormat, rows: usize, fill: u8) -> Tensor {
        let bytes = vec![fill; format.bytes_of(rows * 32).unwrap()];
        Tensor::blocks(format, vec![rows, 32], bytes.into()).unwrap()
    }

    #[test]
    fn what_is_stored_alike_keeps_its_bytes() {
        let (a, b) = (blocks(BlockFormat::Q4_0, 2, 17), blocks(BlockFormat::Q4_0, 1, 18));
        let stack = Stack::new(vec![a.clone(), b.clone()]);
        assert_eq!(stack.shape(), [3, 32]);
        let joined = stack.joined();
        assert_eq!(joined.encoding(), a.encoding());
        assert_eq!(joined.to_f32(), [a.to_f32(), b.to_f32()].concat());
    }

    #[test]
    fn what_differs_is_joined_only_as_floats() {
        let (a, b) = (blocks(BlockFormat::Q4_0, 2, 17), blocks(BlockFormat::Q8_0, 1, 1));
        let stack = Stack::new(vec![a.clone(), a.clone(), b.clone()]);
        let parts = stack.quantised_joined();
        assert_eq!(parts.parts().iter().map(|part| part.shape()[0]).collect::<Vec<_>>(), [4, 1]);
        assert_eq!(stack.joined().encoding(), Encoding::Float(DType::F32));
        assert_eq!(stack.joined().to_f32(), [a.to_f32(), a.to_f32(), b.to_f32()].concat());
    }
}

//! A model: its geometry and its checked weights.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use openelm_kernels::{Matrix, Packed, Threads};

use crate::config::ModelConfig;
use crate::layout::{TensorSpec, tensor_specs};
use crate::tensor::Tensor;
use crate::weights::Weights;

/// Weights that do not fit the geometry.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ModelError {
    /// A tensor that the geometry asks for is not there.
    #[error("tensor {name} is missing")]
    Missing {
        /// CoreNet's name of the tensor.
        name: String,
    },
    /// A tensor has another shape than the geometry asks for.
    #[error("tensor {name}: expected {expected:?}, found {found:?}")]
    Shape {
        /// CoreNet's name of the tensor.
        name: String,
        /// Shape that the geometry asks for.
        expected: Vec<usize>,
        /// Shape of the tensor given.
        found: Vec<usize>,
    },
}

/// A model that can run: geometry and weights that fit each other.
#[derive(Debug, Clone)]
pub struct Model {
    config: ModelConfig,
    /// In the order of [`tensor_specs`]; vectors are widened to `f32`.
    weights: Vec<Weight>,
}

/// One tensor of a model.
#[derive(Debug, Clone)]
enum Weight {
    /// As it lies in a file.
    Stored(Tensor),
    /// In the order of the integer kernels.
    Packed(Arc<Packed>),
}

impl Weight {
    fn matrix(&self) -> Matrix<'_> {
        match self {
            Weight::Stored(tensor) => tensor.matrix(),
            Weight::Packed(packed) => Matrix::Packed(packed),
        }
    }
}

impl Model {
    /// Puts a model together from tensors by CoreNet's names (see [`tensor_specs`]); others are ignored.
    ///
    /// # Errors
    /// If a tensor is missing or has the wrong shape.
    pub fn new(config: ModelConfig, mut tensors: HashMap<String, Tensor>) -> Result<Self, ModelError> {
        let mut ordered = Vec::new();
        for spec in tensor_specs(&config) {
            let Some(tensor) = tensors.remove(&spec.name) else {
                return Err(ModelError::Missing { name: spec.name });
            };
            if tensor.shape() != spec.shape {
                let found = tensor.shape().to_vec();
                return Err(ModelError::Shape { name: spec.name, expected: spec.shape, found });
            }
            ordered.push(Weight::Stored(if spec.shape.len() == 1 { tensor.widened() } else { tensor }));
        }
        Ok(Self { config, weights: ordered })
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> usize {
        let size = |weight: &Weight| match weight {
            Weight::Stored(tensor) => tensor.size(),
            Weight::Packed(packed) => packed.size(),
        };
        self.weights.iter().map(size).sum()
    }

    /// The same model with all weights in `f32`: what is quantised gets the values that its format defines.
    pub fn widened(&self) -> Self {
        let widened = |(spec, weight): (TensorSpec, &Weight)| {
            Weight::Stored(match weight {
                Weight::Stored(tensor) => tensor.widened(),
                Weight::Packed(_) => Tensor::from_f32(spec.shape, weight.matrix().to_f32())
                    .unwrap_or_else(|e| unreachable!("a packed matrix has the shape of its tensor: {e}")),
            })
        };
        let weights = tensor_specs(&self.config).into_iter().zip(&self.weights).map(widened).collect();
        Self { config: self.config.clone(), weights }
    }

    /// The same model with quantised matrices in the order of the integer kernels, where there are kernels for them: their
    /// products are then taken in integers, with activations rounded to 8 bits. Without this, quantised weights are widened
    /// again and again. Takes about as long as reading the weights once; the memory of the stored form is given back.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn packed(mut self, threads: &Threads) -> io::Result<Self> {
        for weight in &mut self.weights {
            if let Weight::Stored(tensor) = weight
                && let &[_, columns] = tensor.shape()
                && let Some(packed) = Packed::new(threads, tensor.matrix(), columns)?
            {
                *weight = Weight::Packed(Arc::new(packed));
            }
        }
        Ok(self)
    }

    /// The weights as the forward pass sees them.
    pub fn weights(&self) -> Weights<'_> {
        Weights::in_order(&self.config, self.weights.iter().map(Weight::matrix))
    }
}

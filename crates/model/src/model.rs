//! A model: its geometry and its checked weights.

use std::collections::HashMap;

use crate::config::ModelConfig;
use crate::layout::tensor_specs;
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
    tensors: Vec<Tensor>,
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
            ordered.push(if spec.shape.len() == 1 { tensor.widened() } else { tensor });
        }
        Ok(Self { config, tensors: ordered })
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Name and tensor of all weights, in the order of [`tensor_specs`]; vectors are of `f32`.
    pub fn tensors(&self) -> impl Iterator<Item = (String, &Tensor)> {
        tensor_specs(&self.config).into_iter().map(|spec| spec.name).zip(&self.tensors)
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> usize {
        self.tensors.iter().map(Tensor::size).sum()
    }

    /// The same model with all weights in `f32`.
    pub fn widened(&self) -> Self {
        Self { config: self.config.clone(), tensors: self.tensors.iter().map(Tensor::widened).collect() }
    }

    /// The weights as the forward pass sees them.
    pub fn weights(&self) -> Weights<'_> {
        Weights::in_order(&self.config, self.tensors.iter().map(Tensor::matrix))
    }
}

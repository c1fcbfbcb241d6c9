//! A model: its geometry and its checked weights.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use openelm_kernels::rounded::Products;
use openelm_kernels::{Matrix, Norm, OutOfMemory, Packed, RowParts, Threads};

use crate::config::ModelConfig;
use crate::forward::Layers;
use crate::layout::{Site, TensorSpec, layer_roles, norms_have_weights, sites, tensor_specs};
use crate::stack::{Loaded, Stack};
use crate::tensor::Tensor;
use crate::weights::{LayerWeights, Weights, vector};

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
    /// There is no memory for a tensor in the order of the integer kernels.
    #[error("tensor {name}: {source}; free some memory or take weights of fewer bits")]
    Memory {
        /// CoreNet's name of the tensor.
        name: String,
        /// How much was asked for.
        source: OutOfMemory,
    },
}

/// A model that can run: geometry and weights that fit each other.
#[derive(Debug, Clone)]
pub struct Model {
    config: ModelConfig,
    /// In the order of [`tensor_specs`]; vectors are widened to `f32`.
    weights: Vec<Weight>,
    products: Products,
}

/// One tensor of a model.
#[derive(Debug, Clone)]
enum Weight {
    /// As it lies in a file.
    Stored(Tensor),
    /// In the order of the integer kernels.
    Packed(Arc<Packed>),
    /// Parts whose rows stand one below the other.
    Joined(Arc<Joined>),
}

/// The parts of a weight, none of which is joined itself.
#[derive(Debug)]
struct Joined(Vec<Weight>);

impl RowParts for Joined {
    fn part(&self, index: usize) -> Option<Matrix<'_>> {
        self.0.get(index).map(Weight::matrix)
    }
}

impl Weight {
    /// The weight of `parts`.
    fn of(mut parts: Vec<Weight>) -> Self {
        match parts.len() {
            1 => parts.remove(0),
            _ => Weight::Joined(Arc::new(Joined(parts))),
        }
    }

    /// Its parts, or itself.
    fn parts(&self) -> &[Weight] {
        match self {
            Weight::Joined(joined) => &joined.0,
            _ => std::slice::from_ref(self),
        }
    }

    fn is_vector(&self) -> bool {
        matches!(self, Weight::Stored(tensor) if tensor.shape().len() == 1)
    }

    fn size(&self) -> usize {
        match self {
            Weight::Stored(tensor) => tensor.size(),
            Weight::Packed(packed) => packed.size(),
            Weight::Joined(joined) => joined.0.iter().map(Weight::size).sum(),
        }
    }

    fn matrix(&self) -> Matrix<'_> {
        match self {
            Weight::Stored(tensor) => tensor.matrix(),
            Weight::Packed(packed) => Matrix::Packed(packed),
            Weight::Joined(joined) => Matrix::Joined(&**joined),
        }
    }
}

impl Model {
    /// Puts a model together from tensors by CoreNet's names (see [`tensor_specs`]); others are ignored.
    ///
    /// # Errors
    /// If a tensor is missing or has the wrong shape.
    pub fn new<T: Into<Stack>>(config: ModelConfig, mut tensors: HashMap<String, T>) -> Result<Self, ModelError> {
        let weight = |spec: TensorSpec| match tensors.remove(&spec.name) {
            Some(tensor) => {
                let parts = checked(&spec, tensor.into())?;
                Ok(Weight::of(parts.parts().iter().cloned().map(Weight::Stored).collect()))
            }
            None => Err(ModelError::Missing { name: spec.name }),
        };
        let weights = tensor_specs(&config).into_iter().map(weight).collect::<Result<_, _>>()?;
        Ok(Self { config, weights, products: Products::F32 })
    }

    /// Puts a model together for speed: quantised matrices are packed for the integer kernels, where there are kernels for
    /// them. Their products are then taken in integers, with activations rounded to 8 bits; without packing, quantised weights
    /// are widened again and again. Takes about as long as reading the weights once. Where all matrices have sixteen bits, they
    /// (on the way) and activations are rounded to `bf16` if this processor is faster at such products ([`Products::fastest`]).
    ///
    /// `tensor` is asked for one tensor at a time, and what is packed is let go of before the next: memory holds it once. What comes
    /// packed stays where it is.
    ///
    /// # Errors
    /// What `tensor` reports, a tensor of the wrong shape, or no memory.
    pub fn packing<T: Into<Loaded>, E: From<ModelError>>(
        config: ModelConfig,
        threads: &Threads,
        mut tensor: impl FnMut(&TensorSpec) -> Result<T, E>,
    ) -> Result<Self, E> {
        let weight = |spec: TensorSpec| {
            let stack = match tensor(&spec)?.into() {
                Loaded::Stored(stack) => stack,
                Loaded::Packed(packed) => {
                    let found = vec![packed.rows(), packed.columns()];
                    return if found == spec.shape {
                        Ok(Weight::Packed(packed))
                    } else {
                        Err(misshapen(&spec, found).into())
                    };
                }
            };
            let parts = checked(&spec, stack)?.quantised_joined();
            let packed = |tensor: &Tensor| match spec.shape[..] {
                [_, columns] => Packed::new(threads, tensor.matrix(), columns)
                    .map_err(|source| ModelError::Memory { name: spec.name.clone(), source }),
                _ => Ok(None),
            };
            let weight = |tensor: &Tensor| {
                let packed = packed(tensor)?.map(|packed| Weight::Packed(Arc::new(packed)));
                Ok(packed.unwrap_or_else(|| Weight::Stored(tensor.clone())))
            };
            let parts: Result<Vec<Weight>, E> = parts.parts().iter().map(weight).collect();
            Ok(Weight::of(parts?))
        };
        let weights = tensor_specs(&config).into_iter().map(weight).collect::<Result<Vec<_>, E>>()?;
        let matrices = || weights.iter().flat_map(Weight::parts).filter(|part| !part.is_vector());
        let of_sixteen_bits = matrices().all(|part| matches!(part.matrix(), Matrix::F16(_) | Matrix::BF16(_)));
        let products = match matrices().count() {
            1.. if of_sixteen_bits => Products::fastest(threads),
            _ => Products::F32,
        };
        Ok(Self { config, weights, products })
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes of all weights.
    pub fn weight_bytes(&self) -> usize {
        self.weights.iter().map(Weight::size).sum()
    }

    /// The same model with all weights in `f32`: what is quantised gets the values that its format defines.
    pub fn widened(&self) -> Self {
        let widened = |(spec, weight): (TensorSpec, &Weight)| {
            Weight::Stored(match weight {
                Weight::Stored(tensor) => tensor.widened(),
                Weight::Packed(_) | Weight::Joined(_) => Tensor::from_f32(spec.shape, weight.matrix().to_f32())
                    .unwrap_or_else(|e| unreachable!("a weight has the shape of its tensor: {e}")),
            })
        };
        let weights = tensor_specs(&self.config).into_iter().zip(&self.weights).map(widened).collect();
        Self { config: self.config.clone(), weights, products: Products::F32 }
    }

    /// The same model, whose products with matrices that are not quantised are taken in `products`.
    #[must_use]
    pub fn with_products(self, products: Products) -> Self {
        Self { products, ..self }
    }

    /// In which numbers matrices that are not quantised are multiplied.
    pub fn products(&self) -> Products {
        self.products
    }

    /// The norm before the output projection, and the projection, `[vocabulary, dim]`.
    pub(crate) fn norm_and_head(&self) -> (Norm<'_>, Matrix<'_>) {
        let behind = 1 + self.config.layers.len() * layer_roles(&self.config).count();
        let has_norm = norms_have_weights(&self.config);
        let norm = if has_norm { vector(self.weights[behind].matrix()) } else { &[] };
        let head = if self.config.tied_embeddings { 0 } else { behind + usize::from(has_norm) };
        (self.config.norm(norm), self.weights[head].matrix())
    }

    /// The tensor at `site`.
    ///
    /// # Panics
    /// If the model has no such tensor.
    pub fn matrix(&self, site: Site) -> Matrix<'_> {
        let index = sites(&self.config).iter().position(|&other| other == site);
        self.weights[index.unwrap_or_else(|| panic!("the model has no {}", site.module()))].matrix()
    }

    /// The weights as the forward pass sees them.
    pub fn weights(&self) -> Weights<'_> {
        Weights::in_order(&self.config, self.weights.iter().map(Weight::matrix))
    }
}

impl Layers for Model {
    type Error = Infallible;

    fn embedding(&self, user: impl FnOnce(Matrix<'_>)) -> Result<(), Infallible> {
        user(self.weights[0].matrix());
        Ok(())
    }

    fn layer(&self, index: usize, user: impl FnOnce(&LayerWeights<'_>)) -> Result<(), Infallible> {
        let count = layer_roles(&self.config).count();
        let tensors = self.weights[1 + index * count..].iter().take(count).map(Weight::matrix);
        user(&LayerWeights::in_order(&self.config, tensors));
        Ok(())
    }
}

fn misshapen(spec: &TensorSpec, found: Vec<usize>) -> ModelError {
    ModelError::Shape { name: spec.name.clone(), expected: spec.shape.clone(), found }
}

/// `tensor` if it has the shape of `spec`; vectors widened.
fn checked(spec: &TensorSpec, tensor: Stack) -> Result<Stack, ModelError> {
    if tensor.shape() != spec.shape {
        return Err(misshapen(spec, tensor.shape()));
    }
    // A vector that borrowed from a file in memory would keep all of it there.
    Ok(if spec.shape.len() == 1 { tensor.joined().in_f32().into() } else { tensor })
}

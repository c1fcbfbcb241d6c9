//! A model of which all or some tensors are trained.

use std::collections::HashMap;

use openelm_kernels::Matrix;
use openelm_model::{ModelConfig, ModelError, Tensor, TensorSpec, Weights, tensor_specs};

use crate::parameters::Parameters;

/// A model's tensors: those in training, in `f32`, and those that stay as they are, in whatever encoding they have.
pub struct TrainableModel {
    config: ModelConfig,
    specs: Vec<TensorSpec>,
    parameters: Parameters,
    frozen: HashMap<String, Tensor>,
}

impl TrainableModel {
    /// The model of the geometry `config` that trains all its tensors, `parameters`.
    ///
    /// # Errors
    /// If a tensor is missing, or has the wrong shape.
    pub fn new(config: ModelConfig, parameters: Parameters) -> Result<Self, ModelError> {
        Self::partly(config, parameters, HashMap::new())
    }

    /// The model of the geometry `config` that trains `parameters`, and takes its other tensors from `frozen`, by CoreNet's
    /// names.
    ///
    /// # Errors
    /// If a tensor is in neither of them, or has the wrong shape.
    pub fn partly(
        config: ModelConfig,
        parameters: Parameters,
        mut frozen: HashMap<String, Tensor>,
    ) -> Result<Self, ModelError> {
        let specs = tensor_specs(&config);
        let mut kept = HashMap::new();
        for spec in &specs {
            let trained = parameters.specs().iter().find(|trained| trained.name == spec.name);
            let found = match (trained, frozen.remove(&spec.name)) {
                (Some(trained), _) => trained.shape.clone(),
                (None, Some(tensor)) => {
                    let shape = tensor.shape().to_vec();
                    // Vectors are f32 wherever they are used.
                    let tensor = if shape.len() == 1 { tensor.widened() } else { tensor };
                    kept.insert(spec.name.clone(), tensor);
                    shape
                }
                (None, None) => return Err(ModelError::Missing { name: spec.name.clone() }),
            };
            if found != spec.shape {
                return Err(ModelError::Shape { name: spec.name.clone(), expected: spec.shape.clone(), found });
            }
        }
        Ok(Self { config, specs, parameters, frozen: kept })
    }

    /// The geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether all tensors are trained.
    pub fn is_whole(&self) -> bool {
        self.frozen.is_empty()
    }

    /// What is trained.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// What is trained.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// The weights as the forward pass sees them.
    pub fn weights(&self) -> Weights<'_> {
        let trained: HashMap<&str, &[f32]> =
            self.parameters.tensors().map(|(spec, values)| (spec.name.as_str(), values)).collect();
        let matrix = |spec: &TensorSpec| match trained.get(spec.name.as_str()) {
            Some(values) => Matrix::F32(values),
            None => self.frozen[&spec.name].matrix(),
        };
        Weights::in_order(&self.config, self.specs.iter().map(matrix))
    }
}

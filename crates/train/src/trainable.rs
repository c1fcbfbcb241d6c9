//! A model of which all or some tensors are trained.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use openelm_kernels::dropout::Dropout;
use openelm_kernels::row_norms::{self, LowRank};
use openelm_kernels::{Matrix, Threads};
use openelm_model::{
    Adapter, AdapterError, AdapterModule, AdapterOptions, AdapterWeights, Delta, Deltas, Model, ModelConfig,
    ModelError, Part, Role, Site, Tensor, TensorSpec, Weights, tensor_specs,
};

use crate::linear::{LORA_A, LORA_B, MAGNITUDE};
use crate::parameters::Parameters;

/// A model's tensors: those in training, in `f32`, and those that stay as they are, in whatever encoding they have.
pub struct TrainableModel {
    config: ModelConfig,
    specs: Vec<TensorSpec>,
    parameters: Parameters,
    frozen: HashMap<String, Tensor>,
    adapted: Option<Adapted>,
}

/// What the parameters change where an adapter is trained.
struct Adapted {
    base: Arc<Model>,
    options: AdapterOptions,
    modules: Vec<AdaptedModule>,
}

/// A module that an adapter in training changes.
struct AdaptedModule {
    site: Site,
    alpha: f64,
    rank: usize,
    scale: f32,
    /// Whether it has a magnitude.
    dora: bool,
}

/// Lengths of the rows of DoRA's matrices, and the factors that follow from them: they change with each update.
#[derive(Default)]
pub(crate) struct RowLengths(BTreeMap<Site, [Vec<f32>; 2]>);

impl RowLengths {
    /// Those of the matrix at `site`, if it has a magnitude.
    pub fn of(&self, site: Site) -> Option<&[f32]> {
        self.0.get(&site).map(|[lengths, _]| &lengths[..])
    }
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
        Ok(Self { config, specs, parameters, frozen: kept, adapted: None })
    }

    /// The model `base`, which stays as it is, with `adapter` in training: it begins with the values that the adapter has.
    ///
    /// # Errors
    /// If the adapter is none of this model.
    pub fn adapted(base: impl Into<Arc<Model>>, adapter: &Adapter) -> Result<Self, AdapterError> {
        let base = base.into();
        let config = base.config().clone();
        let modules: BTreeMap<String, AdapterModule> =
            adapter.modules().map(|(target, module)| (target.name.clone(), module.clone())).collect();
        // Checked against the geometry once more: it may have been made for another one.
        let adapter = Adapter::new(&config, adapter.options.clone(), modules)?;
        let spec = |module: &str, part: &str, tensor: &Tensor| {
            (TensorSpec { name: format!("{module}.{part}"), shape: tensor.shape().to_vec() }, tensor.to_f32())
        };
        let (mut tensors, mut modules) = (Vec::new(), Vec::new());
        for (target, module) in adapter.modules() {
            tensors.push(spec(&target.name, LORA_A, &module.a));
            tensors.push(spec(&target.name, LORA_B, &module.b));
            tensors.extend(module.magnitude.as_ref().map(|magnitude| spec(&target.name, MAGNITUDE, magnitude)));
            let (alpha, rank) = (module.alpha, module.rank());
            let scale = adapter.options.scale(module);
            modules.push(AdaptedModule { site: target.site, alpha, rank, scale, dora: module.magnitude.is_some() });
        }
        let mut parameters = Parameters::of(tensors.iter().map(|(spec, _)| spec.clone()).collect());
        let values: HashMap<String, Vec<f32>> = tensors.into_iter().map(|(spec, values)| (spec.name, values)).collect();
        for (spec, target) in parameters.tensors_mut() {
            target.copy_from_slice(&values[&spec.name]);
        }
        let specs = tensor_specs(&config);
        let adapted = Some(Adapted { base, options: adapter.options, modules });
        Ok(Self { config, specs, parameters, frozen: HashMap::new(), adapted })
    }

    /// The adapter in training, with the values that it has now; `None` where none is trained.
    ///
    /// # Errors
    /// If values are not those of an adapter any more.
    pub fn adapter(&self) -> Option<Result<Adapter, AdapterError>> {
        let Adapted { options, modules, .. } = self.adapted.as_ref()?;
        let values = self.values();
        let tensor = |shape: Vec<usize>, name: &str| {
            Tensor::from_f32(shape, values[name].to_vec())
                .unwrap_or_else(|e| unreachable!("parameters have the shapes of their tensors: {e}"))
        };
        let module = |module: &AdaptedModule| {
            let name = module.site.module();
            let part = |part: &str| format!("{name}.{part}");
            let length = |part: &str| values[part].len();
            let (a, b) = (part(LORA_A), part(LORA_B));
            let adapted = AdapterModule {
                alpha: module.alpha,
                a: tensor(vec![module.rank, length(&a) / module.rank], &a),
                b: tensor(vec![length(&b) / module.rank, module.rank], &b),
                magnitude: module.dora.then(|| tensor(vec![length(&part(MAGNITUDE))], &part(MAGNITUDE))),
            };
            (name, adapted)
        };
        let modules = modules.iter().map(module).collect();
        Some(Adapter::new(&self.config, options.clone(), modules))
    }

    /// The model as it is now, to run: with an adapter where one is trained, of which the base is shared.
    ///
    /// # Errors
    /// In words, if the values make no model.
    pub(crate) fn runnable(&self, threads: &Threads) -> Result<(Arc<Model>, Option<Arc<AdapterWeights>>), String> {
        if let (Some(adapted), Some(adapter)) = (&self.adapted, self.adapter()) {
            let adapter = adapter.map_err(|e| e.to_string())?;
            let weights = AdapterWeights::new(&adapter, &adapted.base, threads);
            return Ok((adapted.base.clone(), Some(Arc::new(weights))));
        }
        let trained = self.parameters.tensors().map(|(spec, values)| {
            let tensor = Tensor::from_f32(spec.shape.clone(), values.to_vec());
            tensor.map(|tensor| (spec.name.clone(), tensor)).map_err(|e| e.to_string())
        });
        let mut tensors = self.frozen.clone();
        tensors.extend(trained.collect::<Result<Vec<_>, _>>()?);
        let model = Model::new(self.config.clone(), tensors).map_err(|e| e.to_string())?;
        Ok((Arc::new(model), None))
    }

    /// Takes the values of `adapter`, which was trained before. False, and nothing is taken, if it is another one than that in
    /// training: of other modules, ranks or scales.
    pub(crate) fn set_adapter(&mut self, adapter: &Adapter) -> bool {
        let Some(adapted) = &self.adapted else { return false };
        let mut values = HashMap::new();
        for (target, module) in adapter.modules() {
            for (part, name) in [(Part::A, LORA_A), (Part::B, LORA_B), (Part::Magnitude, MAGNITUDE)] {
                values.extend(module.part(part).map(|tensor| (format!("{}.{name}", target.name), tensor)));
            }
        }
        let same_scale = adapted.modules.iter().all(|known| {
            let module = adapter.module(&known.site.module());
            module.is_some_and(|module| adapter.options.scale(module) == known.scale)
        });
        let specs = self.parameters.specs();
        let same_shape = |spec: &TensorSpec| values.get(&spec.name).is_some_and(|tensor| tensor.shape() == spec.shape);
        if !same_scale || values.len() != specs.len() || !specs.iter().all(same_shape) {
            return false;
        }
        for (spec, target) in self.parameters.tensors_mut() {
            target.copy_from_slice(&values[&spec.name].to_f32());
        }
        true
    }

    /// Each parameter by its name.
    fn values(&self) -> HashMap<&str, &[f32]> {
        self.parameters.tensors().map(|(spec, values)| (spec.name.as_str(), values)).collect()
    }

    /// Lengths of rows as the parameters are now.
    pub(crate) fn row_lengths(&self, threads: &Threads) -> RowLengths {
        let Some(Adapted { base, modules, .. }) = &self.adapted else { return RowLengths::default() };
        let values = self.values();
        let lengths = modules.iter().filter(|module| module.dora).map(|module| {
            let name = module.site.module();
            let part = |part: &str| values[format!("{name}.{part}").as_str()];
            let change = LowRank { a: part(LORA_A), b: part(LORA_B), scale: module.scale };
            let magnitude = part(MAGNITUDE);
            let mut lengths = vec![0.0; magnitude.len()];
            row_norms::forward(threads, &mut lengths, base.matrix(module.site), change);
            let gains = magnitude.iter().zip(&lengths).map(|(magnitude, length)| magnitude / length).collect();
            (module.site, [lengths, gains])
        });
        RowLengths(lengths.collect())
    }

    /// What the adapter in training changes, if there is one. With a `key`, inputs of the linear layers in the blocks are dropped
    /// as often as the adapter says; those of the embedding and of the output projection never are.
    pub(crate) fn deltas<'a>(&'a self, lengths: &'a RowLengths, key: Option<u64>) -> Deltas<'a> {
        let Some(Adapted { modules, options, .. }) = &self.adapted else { return Deltas::new() };
        let key = key.filter(|_| options.dropout > 0.0);
        let dropout = key.map(|key| Dropout { probability: options.dropout as f32, key });
        let values = self.values();
        let delta = |(number, &AdaptedModule { site, rank, scale, .. }): (usize, &AdaptedModule)| {
            let name = site.module();
            let part = |part: &str| values[format!("{name}.{part}").as_str()];
            let gains = lengths.0.get(&site).map(|[_, gains]| &gains[..]);
            let is_dropped = !matches!(site.role, Role::Embedding | Role::Head);
            let dropout = dropout.filter(|_| is_dropped).map(|dropout| dropout.of(number as u64));
            (site, Delta { rank, a: part(LORA_A), b: part(LORA_B), scale, gains, dropout })
        };
        modules.iter().enumerate().map(delta).collect()
    }

    /// The geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether all tensors are trained.
    pub fn is_whole(&self) -> bool {
        self.frozen.is_empty() && self.adapted.is_none()
    }

    /// Whether an adapter is trained.
    pub fn is_adapted(&self) -> bool {
        self.adapted.is_some()
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
        if let Some(Adapted { base, .. }) = &self.adapted {
            return base.weights();
        }
        let trained = self.values();
        let matrix = |spec: &TensorSpec| match trained.get(spec.name.as_str()) {
            Some(values) => Matrix::F32(values),
            None => self.frozen[&spec.name].matrix(),
        };
        Weights::in_order(&self.config, self.specs.iter().map(matrix))
    }
}

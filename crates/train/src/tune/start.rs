//! What a tuning run begins with: a model, and an adapter that leaves it as it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use openelm_formats::{StoredModel, adapter};
use openelm_kernels::row_norms::{self, LowRank};
use openelm_model::kernels::Threads;
use openelm_model::{Adapter, AdapterModule, AdapterOptions, Model, ModelConfig, Target, Tensor, sites, targets};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal, Uniform};
use sha2::{Digest, Sha256};

use super::error::TuneError;
use super::recipe::{AdapterKind, AdapterRecipe, TargetRecipe, TuneRecipe, means};
use crate::parameters::Parameters;
use crate::trainable::TrainableModel;

/// Rows of a matrix by which a model is known again.
const SAMPLED_ROWS: usize = 8;

/// The model to begin with, loaded as it is trained.
pub(super) enum Base {
    /// It stays as it is, in whatever encoding, and the adapter is trained.
    Frozen(Arc<Model>, Adapter),
    /// All of it is trained; so each trainer has a copy in `f32`.
    Whole(Model),
}

impl Base {
    /// Loads `stored`, and makes or reads the adapter that `recipe` asks for.
    ///
    /// # Errors
    /// If a tensor cannot be read, or the adapter does not suit the model.
    pub fn load(stored: StoredModel, recipe: &TuneRecipe, threads: &Threads) -> Result<Self, TuneError> {
        let Some(adapter) = &recipe.adapter else { return Ok(Self::Whole(stored.into_model()?)) };
        let name = stored.path.display().to_string();
        let model = if recipe.model.exact { stored.into_model()? } else { stored.into_packed_model(threads)? };
        let mut adapter = match &adapter.start {
            Some(path) => read(path, &model, adapter)?,
            None => fresh(&model, adapter, recipe.train.seed, threads)?,
        };
        adapter.options.base_model = Some(name);
        Ok(Self::Frozen(Arc::new(model), adapter))
    }

    pub fn config(&self) -> &ModelConfig {
        self.model().config()
    }

    pub fn model(&self) -> &Model {
        match self {
            Self::Frozen(model, _) => model,
            Self::Whole(model) => model,
        }
    }

    /// The model as the run begins.
    ///
    /// # Errors
    /// If the weights make no model.
    pub fn trainable(&self) -> Result<TrainableModel, TuneError> {
        match self {
            Self::Frozen(model, adapter) => Ok(TrainableModel::adapted(model.clone(), adapter)?),
            Self::Whole(model) => {
                let config = model.config().clone();
                let mut parameters = Parameters::zeros(&config);
                let by_name: BTreeMap<String, _> =
                    sites(&config).into_iter().map(|site| (site.spec(&config).name, site)).collect();
                for (spec, values) in parameters.tensors_mut() {
                    model.matrix(by_name[&spec.name]).widen(0, values);
                }
                Ok(TrainableModel::new(config, parameters)?)
            }
        }
    }

    /// SHA-256 of some rows of each tensor, and of the adapter: by this a run knows what it began with.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for site in sites(self.config()) {
            let (spec, matrix) = (site.spec(self.config()), self.model().matrix(site));
            hash.update(spec.name.as_bytes());
            let width = spec.shape.last().copied().unwrap_or(1);
            let rows = spec.len() / width;
            let mut values = vec![0.0; width];
            for row in 0..rows.min(SAMPLED_ROWS) {
                matrix.widen(row * rows / rows.min(SAMPLED_ROWS) * width, &mut values);
                hash.update(bytemuck::cast_slice(&values));
            }
        }
        if let Self::Frozen(_, adapter) = self {
            adapter.tensors().for_each(|(_, _, tensor, _)| hash.update(tensor.bytes()));
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The adapter at `path`, with the dropout of the recipe.
fn read(path: &Path, model: &Model, recipe: &AdapterRecipe) -> Result<Adapter, TuneError> {
    let mut adapter = adapter::open(path, model.config())?;
    adapter.options.dropout = recipe.dropout;
    Ok(adapter)
}

/// An adapter that changes nothing yet. Of a linear module A is drawn as PyTorch draws a linear layer's weights (Kaiming, uniform,
/// with a slope of the root of 5: within the inverse root of the inputs), and B is zero; of the embedding A is zero and B of the
/// standard normal distribution. DoRA's magnitudes are the lengths of the rows of the matrices as they are.
///
/// # Errors
/// If a target means no module of `model`, or a rank makes no sense there.
pub fn fresh(model: &Model, recipe: &AdapterRecipe, seed: u64, threads: &Threads) -> Result<Adapter, TuneError> {
    let config = model.config();
    check_names(recipe, config)?;
    let mut modules = BTreeMap::new();
    for (number, target) in targets(config).into_iter().enumerate() {
        let Some((rank, alpha)) = recipe.numbers_of(&target.name) else { continue };
        let most = target.inputs.min(target.outputs);
        if rank > most {
            let expected = format!(
                "{} has {} inputs and {} outputs, more than which make no sense",
                target.name, target.inputs, target.outputs
            );
            return Err(TuneError::Value { key: "adapter.rank", value: rank.to_string(), expected });
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(number as u64);
        modules.insert(target.name.clone(), module(model, &target, recipe.kind, (rank, alpha), &mut random, threads)?);
    }
    let options = AdapterOptions { dropout: recipe.dropout, rs_lora: recipe.rs_lora, base_model: None };
    Ok(Adapter::new(config, options, modules)?)
}

fn module(
    model: &Model,
    target: &Target,
    kind: AdapterKind,
    (rank, alpha): (usize, f64),
    random: &mut ChaCha8Rng,
    threads: &Threads,
) -> Result<AdapterModule, TuneError> {
    let (mut a, mut b) = (vec![0.0f32; rank * target.inputs], vec![0.0f32; rank * target.outputs]);
    if target.embedding {
        b.iter_mut().for_each(|b| *b = StandardNormal.sample(random));
    } else {
        let bound = (target.inputs as f32).sqrt().recip();
        // A bound of a positive number of inputs is finite.
        if let Ok(uniform) = Uniform::new_inclusive(-bound, bound) {
            a.iter_mut().for_each(|a| *a = uniform.sample(random));
        }
    }
    let magnitude = (kind == AdapterKind::Dora && !target.embedding).then(|| {
        let mut lengths = vec![0.0; target.outputs];
        row_norms::forward(threads, &mut lengths, model.matrix(target.site), LowRank { a: &a, b: &b, scale: 0.0 });
        lengths
    });
    let tensor = |shape: Vec<usize>, values: Vec<f32>| {
        Tensor::from_f32(shape, values).unwrap_or_else(|e| unreachable!("as many values as the shape says: {e}"))
    };
    let magnitude = magnitude.map(|lengths| tensor(vec![target.outputs], lengths));
    let (a, b) = (tensor(vec![rank, target.inputs], a), tensor(vec![target.outputs, rank], b));
    Ok(AdapterModule { alpha, a, b, magnitude })
}

/// Refuses targets that mean no module.
fn check_names(recipe: &AdapterRecipe, config: &ModelConfig) -> Result<(), TuneError> {
    let targets = targets(config);
    for (name, ..) in recipe.targets.iter().map(TargetRecipe::parts) {
        if !targets.iter().any(|target| means(name, &target.name)) {
            let mut known: Vec<&str> =
                targets.iter().map(|target| target.name.rsplit('.').next().unwrap_or(&target.name)).collect();
            known.sort_unstable();
            known.dedup();
            return Err(TuneError::Target { name: name.to_owned(), known: known.join(", ") });
        }
    }
    Ok(())
}

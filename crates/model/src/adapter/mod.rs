//! Adapters: small changes to a model's linear layers (LoRA, rsLoRA, DoRA) and to its embedding table.
//!
//! An [`Adapter`] holds A, B, alpha and DoRA's magnitude of each module, checked against the geometry, as files keep them;
//! [`AdapterWeights`] are what the forward pass runs with.

mod target;
mod weights;

use std::collections::BTreeMap;

use crate::config::ModelConfig;
use crate::tensor::{DType, Encoding, Tensor};

pub use target::{Part, Target, targets};
pub use weights::AdapterWeights;

/// An adapter that does not fit a model, or says what makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct AdapterError(String);

/// What an adapter says of all its modules.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AdapterOptions {
    /// Probability with which training drops an input of a linear module. The embedding's is never dropped.
    pub dropout: f64,
    /// Whether a change is scaled by `alpha / sqrt(rank)` (rsLoRA) instead of `alpha / rank`.
    pub rs_lora: bool,
    /// The model it was trained on, as its file names it.
    pub base_model: Option<String>,
}

impl AdapterOptions {
    /// What the product of the factors of `module` is multiplied by.
    pub fn scale(&self, module: &AdapterModule) -> f32 {
        let rank = module.rank() as f64;
        (module.alpha / if self.rs_lora { rank.sqrt() } else { rank }) as f32
    }
}

/// The change to one module: `scale * B A`, and with DoRA the length of each row of the outcome.
#[derive(Debug, Clone)]
pub struct AdapterModule {
    /// Numerator of the scale.
    pub alpha: f64,
    /// `[rank, inputs]`; of the embedding `[rank, vocabulary]`.
    pub a: Tensor,
    /// `[outputs, rank]`; of the embedding `[dim, rank]`, so that the change to its table is `scale * (B A)` transposed.
    pub b: Tensor,
    /// DoRA's magnitude, `[outputs]`: the norms of the rows of the adapted matrix. The embedding has none.
    pub magnitude: Option<Tensor>,
}

impl AdapterModule {
    /// Rows of A and columns of B.
    pub fn rank(&self) -> usize {
        self.a.shape().first().copied().unwrap_or(0)
    }

    /// One of its tensors.
    pub fn part(&self, part: Part) -> Option<&Tensor> {
        match part {
            Part::A => Some(&self.a),
            Part::B => Some(&self.b),
            Part::Magnitude => self.magnitude.as_ref(),
        }
    }
}

/// An adapter that fits a model. The output projection of a model with tied embeddings is not adapted with the embedding: an
/// adapter of `token_embeddings` acts on the input side alone.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// What holds for all modules.
    pub options: AdapterOptions,
    /// What was guessed or passed over on reading, in sentences.
    pub notes: Vec<String>,
    config: ModelConfig,
    targets: Vec<Target>,
    modules: BTreeMap<String, AdapterModule>,
}

impl Adapter {
    /// Puts an adapter for `model` together from modules by CoreNet's names, such as `layers.0.attn.qkv_proj`.
    ///
    /// # Errors
    /// If there are no modules, the model has no such module, a shape is wrong, a tensor is not of floats, the embedding has
    /// a magnitude, or a number is out of range.
    pub fn new(
        model: &ModelConfig,
        options: AdapterOptions,
        modules: BTreeMap<String, AdapterModule>,
    ) -> Result<Self, AdapterError> {
        let wrong = |reason: String| AdapterError(reason);
        if modules.is_empty() {
            return Err(wrong("the adapter has no modules".to_owned()));
        }
        if !(0.0..1.0).contains(&options.dropout) {
            let reason = format!("the adapter's dropout is {}; it must be at least 0 and below 1", options.dropout);
            return Err(wrong(reason));
        }
        let targets = targets(model);
        for (name, module) in &modules {
            let Some(target) = targets.iter().find(|target| target.name == *name) else {
                return Err(wrong(format!("the model has no module {name} that could be adapted")));
            };
            check(target, module).map_err(|reason| wrong(format!("adapter of {name}: {reason}")))?;
        }
        Ok(Self { options, notes: Vec::new(), config: model.clone(), targets, modules })
    }

    /// The geometry of the model that it fits.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The modules of the model that could be adapted.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The adapted modules with CoreNet's names, in the order the data meets them.
    pub fn modules(&self) -> impl Iterator<Item = (&Target, &AdapterModule)> {
        self.targets.iter().filter_map(|target| Some((target, self.modules.get(&target.name)?)))
    }

    /// The adapter of the module of CoreNet's `name`, if it is adapted.
    pub fn module(&self, name: &str) -> Option<&AdapterModule> {
        self.modules.get(name)
    }

    /// All tensors, module by module, with their dtypes.
    pub fn tensors(&self) -> impl Iterator<Item = (&Target, Part, &Tensor, DType)> {
        self.modules().flat_map(|(target, module)| {
            Part::ALL.into_iter().filter_map(move |part| {
                let tensor = module.part(part)?;
                Some((target, part, tensor, tensor.encoding().dtype()?))
            })
        })
    }

    /// Keeps the first `rows` ids of the vocabulary: CoreNet pads LLaMA's 32000 pieces to 32128.
    ///
    /// # Errors
    /// If the model has fewer, or none would be left.
    pub fn trim_vocabulary(&mut self, rows: usize) -> Result<(), AdapterError> {
        for target in &mut self.targets {
            let module = self.modules.get_mut(&target.name);
            let size = match target.name.as_str() {
                "token_embeddings" => &mut target.inputs,
                "classifier" => &mut target.outputs,
                _ => continue,
            };
            if rows == 0 || rows > *size {
                return Err(AdapterError(format!("the vocabulary has {size} rows and cannot be cut to {rows}")));
            }
            *size = rows;
            let Some(module) = module else { continue };
            if target.embedding {
                module.a = first_columns(&module.a, rows)?;
            } else {
                module.b = module.b.first_rows(rows);
                module.magnitude = module.magnitude.as_ref().map(|magnitude| magnitude.first_rows(rows));
            }
        }
        self.config.vocab_size = rows;
        Ok(())
    }
}

/// Whether the tensors of `module` are those of an adapter of `target`.
fn check(target: &Target, module: &AdapterModule) -> Result<(), String> {
    if !module.alpha.is_finite() {
        return Err(format!("alpha is {}; it must be a finite number", module.alpha));
    }
    if module.rank() == 0 {
        return Err("its rank is 0; it must be at least 1".to_owned());
    }
    if target.embedding && module.magnitude.is_some() {
        return Err("DoRA is defined for linear modules only".to_owned());
    }
    for part in Part::ALL {
        let Some(tensor) = module.part(part) else { continue };
        let (key, expected) = (target.key(part).0, target.shape(part, module.rank()));
        if tensor.shape() != expected {
            return Err(format!("expected {key} of {expected:?}, found {:?}", tensor.shape()));
        }
        if !matches!(tensor.encoding(), Encoding::Float(_)) {
            return Err(format!("{key} is stored in {}; adapters are of floats", tensor.encoding()));
        }
    }
    Ok(())
}

/// The first `columns` columns of a matrix of floats.
fn first_columns(matrix: &Tensor, columns: usize) -> Result<Tensor, AdapterError> {
    let (&[rows, width], Encoding::Float(dtype)) = (matrix.shape(), matrix.encoding()) else {
        unreachable!("an adapter's tensors were checked")
    };
    let row = |row| &matrix.bytes()[row * width * dtype.size()..][..columns * dtype.size()];
    let bytes: Vec<u8> = (0..rows).flat_map(row).copied().collect();
    Tensor::new(dtype, vec![rows, columns], bytes.into()).map_err(|e| AdapterError(e.to_string()))
}

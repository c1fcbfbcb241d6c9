//! A model on disk with adapters folded into its matrices, tensor by tensor as they are asked for.
//!
//! ```text
//! W' = W + sum of weight (V - W),  V = W + scale B A,  with DoRA each row of V brought to the length that its magnitude says
//! ```

use std::sync::Arc;

use openelm_model::kernels::Threads;
use openelm_model::{Adapter, AdapterModule, Encoding, Role, Site, Tensor};
use serde_json::Value;

use crate::stored::Source;
use crate::{FormatError, StoredModel};

/// The output projection, and the table that it is where they are one.
const HEAD: &str = "classifier.weight";
const TABLE: &str = "token_embeddings.weight";

/// What adapters change in one matrix.
pub(crate) struct Fusion {
    parts: Vec<Part>,
    threads: Threads,
}

impl std::fmt::Debug for Fusion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fusion").field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// What one adapter changes.
#[derive(Debug)]
struct Part {
    weight: f32,
    /// `[rows, rank]`, scaled.
    rows: Vec<f32>,
    /// `[rank, columns]`.
    columns: Vec<f32>,
    rank: usize,
    magnitude: Option<Vec<f32>>,
}

impl Part {
    fn of(adapter: &Adapter, module: &AdapterModule, weight: f32, is_table: bool) -> Self {
        let (rank, scale) = (module.rank(), adapter.options.scale(module));
        let (a, b) = (module.a.to_f32(), module.b.to_f32());
        // The change to a table is the product turned around: its rows are the columns of A.
        let (rows, columns) = if is_table { (turned(&a, rank), turned(&b, b.len() / rank)) } else { (b, a) };
        let rows = rows.into_iter().map(|x| x * scale).collect();
        let magnitude = module.magnitude.as_ref().map(Tensor::to_f32);
        Self { weight, rows, columns, rank, magnitude }
    }
}

/// The transpose of a matrix of `rows` rows.
fn turned(matrix: &[f32], rows: usize) -> Vec<f32> {
    let columns = matrix.len() / rows;
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}

impl Fusion {
    /// The matrix `base`, changed, in `f32`.
    pub fn apply(&self, base: &Tensor) -> Tensor {
        let columns = base.shape().last().copied().unwrap_or(1);
        let mut values = base.to_f32();
        self.threads.for_each_chunk(&mut values, columns, |row, values| {
            let base = values.to_vec();
            let mut changed = vec![0.0; columns];
            for part in &self.parts {
                changed.copy_from_slice(&base);
                let factors = &part.rows[row * part.rank..][..part.rank];
                for (factor, line) in factors.iter().zip(part.columns.chunks_exact(columns)) {
                    changed.iter_mut().zip(line).for_each(|(x, a)| *x = factor.mul_add(*a, *x));
                }
                if let Some(magnitude) = &part.magnitude {
                    let length = changed.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                    let gain = (f64::from(magnitude[row]) / length) as f32;
                    changed.iter_mut().for_each(|x| *x *= gain);
                }
                let changes = values.iter_mut().zip(&changed).zip(&base);
                changes.for_each(|((value, changed), base)| *value += part.weight * (changed - base));
            }
        });
        Tensor::from_f32(base.shape().to_vec(), values)
            .unwrap_or_else(|e| unreachable!("a changed matrix has the shape it had: {e}"))
    }
}

impl StoredModel {
    /// The same model with the sum of `adapters`, each multiplied by its weight, folded into its matrices, which become `f32`. They
    /// are computed when they are asked for. Where the embedding table is the output projection too, an adapter of the embedding,
    /// which acts on the input side alone, asks for an output projection of its own: `untie`.
    ///
    /// # Errors
    /// If an adapter changes a tied embedding and `untie` is not set, or one is of another model.
    pub fn fused(mut self, adapters: &[(Adapter, f32)], untie: bool, threads: &Threads) -> Result<Self, FormatError> {
        let mut fusions: Vec<(Site, Vec<Part>)> = Vec::new();
        for (adapter, weight) in adapters {
            for (target, module) in adapter.modules() {
                let part = Part::of(adapter, module, *weight, target.embedding);
                match fusions.iter_mut().find(|(site, _)| *site == target.site) {
                    Some((_, parts)) => parts.push(part),
                    None => fusions.push((target.site, vec![part])),
                }
            }
        }
        let changes_table = fusions.iter().any(|(site, _)| site.role == Role::Embedding);
        if changes_table && self.config.tied_embeddings {
            if !untie {
                let reason = "an adapter changes the embedding on the input side alone, but this model's table is its output \
                              projection too: folding it in would change the logits; give --untie for an output projection of \
                              its own, or keep the adapter apart"
                    .to_owned();
                return Err(FormatError::Inexpressible { reason });
            }
            self.untie()?;
        }
        for (site, parts) in fusions {
            let name = site.spec(&self.config).name;
            let wrong = || FormatError::Tensor {
                name: name.clone(),
                path: self.path.clone(),
                reason: "there is none".to_owned(),
            };
            let base = self.sources.remove(&name).ok_or_else(wrong)?;
            let fusion = Fusion { parts, threads: threads.clone() };
            self.sources.insert(name, Source::Fused(Box::new(base), Arc::new(fusion)));
        }
        Ok(self)
    }

    /// Gives the output projection a matrix of its own, which is the table as it is.
    fn untie(&mut self) -> Result<(), FormatError> {
        let table = self.tensor(TABLE)?;
        self.sources.insert(HEAD.to_owned(), Source::Tensor(table));
        self.config.tied_embeddings = false;
        if let Some(config) = &mut self.config_json {
            for key in ["share_input_output_layers", "tie_word_embeddings"] {
                if let Some(tied) = config.get_mut(key) {
                    *tied = Value::Bool(false);
                }
            }
        }
        Ok(())
    }
}

/// How a changed matrix is stored.
pub(crate) const ENCODING: Encoding = Encoding::Float(openelm_model::DType::F32);

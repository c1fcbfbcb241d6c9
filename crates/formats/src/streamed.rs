//! A forward pass with one layer in memory at a time: for looking at a model of any size once, not for generating.

use openelm_model::block::{self, Activations, Memory, Pass, Scratch, Span};
use openelm_model::kernels::attention::{CacheType, KvCache};
use openelm_model::kernels::rope::RopeTable;
use openelm_model::kernels::{Matrix, Threads, embedding, rms_norm};
use openelm_model::{LayerWeights, NORM_EPS, Tensor};

use crate::{FormatError, StoredModel};

/// The normalised rows `[ids.len(), dim]` that the output projection of `model` is multiplied with. All ids are within the
/// vocabulary.
pub(crate) fn rows(model: &StoredModel, ids: &[u32], threads: &Threads) -> Result<Vec<f32>, FormatError> {
    let config = &model.config;
    let mut rope = RopeTable::new(config.head_dim, config.rope_theta);
    rope.grow_to(ids.len());
    let span = Span { sequences: 1, time: ids.len(), past: 0 };
    let pass = Pass { threads, config, rope: &rope, span, document_starts: None };
    let mut x = vec![0.0; ids.len() * config.model_dim];
    let mut out = x.clone();
    let table = model.tensor("token_embeddings.weight")?;
    embedding::forward(threads, &mut x, ids, table.matrix(), config.model_dim);
    drop(table);
    let specs = model.specs();
    let (mut kept, mut scratch) = (Activations::default(), Scratch::default());
    for (i, layer) in config.layers.iter().enumerate() {
        model.release();
        let prefix = format!("layers.{i}.");
        let names = specs.iter().map(|spec| &spec.name).filter(|name| name.starts_with(&prefix));
        let tensors = names.map(|name| vector_widened(model.tensor(name)?)).collect::<Result<Vec<_>, FormatError>>()?;
        let weights = LayerWeights::in_order(config, tensors.iter().map(Tensor::matrix));
        let mut cache = KvCache::new(CacheType::F32, layer.kv_heads, config.head_dim);
        let memory = Memory::Cache(&mut cache);
        block::forward(&pass, layer, &weights, &x, &mut out, &mut kept, &mut scratch, memory);
        std::mem::swap(&mut x, &mut out);
    }
    let norm = vector_widened(model.tensor("norm.weight")?)?;
    if let Matrix::F32(norm) = norm.matrix() {
        rms_norm::forward(threads, &mut out, &x, norm, NORM_EPS);
    }
    Ok(out)
}

/// The tensor that the rows are multiplied with for the logits, `[vocabulary, dim]`.
pub(crate) fn head(model: &StoredModel) -> Result<Tensor, FormatError> {
    model.release();
    model.tensor(if model.config.tied_embeddings { "token_embeddings.weight" } else { "classifier.weight" })
}

fn vector_widened(tensor: Tensor) -> Result<Tensor, FormatError> {
    Ok(if tensor.shape().len() == 1 { tensor.widened() } else { tensor })
}

//! The geometry in the metadata of a file of the architecture `openelm`.

use std::collections::HashMap;

use super::parse::{Header, Value};
use crate::inferred::Sizes;

/// Reads the sizes of the model.
pub(super) fn sizes(header: &Header) -> Result<Sizes, String> {
    let values = &header.values;
    let architecture = values.get("general.architecture").and_then(Value::as_text);
    if architecture != Some("openelm") {
        return Err(format!("its architecture is {}; only openelm can be read", architecture.unwrap_or("not named")));
    }
    let layers = integer(values, "openelm.block_count")?;
    let per_layer = |key: &str| per_layer(values, key, layers);
    let query_heads = per_layer("openelm.attention.head_count")?;
    let kv_heads = per_layer("openelm.attention.head_count_kv")?;
    let ffn_dims = per_layer("openelm.feed_forward_length")?;
    let has = |name: &str| header.tensors.iter().any(|tensor| tensor.name == name);
    let embedding = header.tensors.iter().find(|tensor| tensor.name == "token_embd.weight");
    let vocab_size = embedding.and_then(|tensor| tensor.shape.first()).ok_or("it has no tensor token_embd.weight")?;
    if let Some(eps) = number(values, "openelm.attention.layer_norm_rms_epsilon")?
        && (eps.is_nan() || (eps - 1e-6).abs() >= 1e-9)
    {
        return Err(format!("its norms add {eps}; OpenELM's add 1e-6"));
    }
    let head_dim = integer(values, "openelm.attention.key_length")?;
    for key in ["openelm.attention.value_length", "openelm.rope.dimension_count"] {
        if values.contains_key(key) && integer(values, key)? != head_dim {
            return Err(format!(
                "{key} is {}, but its heads are {head_dim} wide; OpenELM's are all of one width",
                integer(values, key)?
            ));
        }
    }
    if let Some(scaling) = values.get("openelm.rope.scaling.type").and_then(Value::as_text)
        && scaling != "none"
    {
        return Err(format!("its rotations are scaled ({scaling}); OpenELM's are not"));
    }
    Ok(Sizes {
        vocab_size: *vocab_size,
        context_length: integer(values, "openelm.context_length")?,
        model_dim: integer(values, "openelm.embedding_length")?,
        head_dim,
        ffn_glu: true,
        qk_norm: has("blk.0.attn_q_norm.weight"),
        tied_embeddings: !has("output.weight"),
        rope_theta: number(values, "openelm.rope.freq_base")?.unwrap_or(10_000.0),
        layers: query_heads.into_iter().zip(kv_heads).zip(ffn_dims).map(|((q, kv), ffn)| (q, kv, ffn)).collect(),
    })
}

fn integer(values: &HashMap<String, Value>, key: &str) -> Result<usize, String> {
    let value = values.get(key).ok_or_else(|| format!("the key {key} is missing"))?;
    value.as_usize().ok_or_else(|| format!("the key {key} is no size"))
}

/// A number that need not be there; but if it is, it must be one.
fn number(values: &HashMap<String, Value>, key: &str) -> Result<Option<f64>, String> {
    let number = |value: &Value| value.as_f64().ok_or_else(|| format!("the key {key} is no number"));
    values.get(key).map(number).transpose()
}

/// A number for each layer, or one for all.
fn per_layer(values: &HashMap<String, Value>, key: &str, layers: usize) -> Result<Vec<usize>, String> {
    // No model has more; a damaged number must not make us allocate for it.
    const MAX_LAYERS: usize = 1 << 16;
    if layers > MAX_LAYERS {
        return Err(format!("openelm.block_count is {layers}"));
    }
    let Some(list) = values.get(key).and_then(Value::as_array) else {
        return integer(values, key).map(|value| vec![value; layers]);
    };
    if list.len() != layers {
        return Err(format!("the key {key} has {} entries for {layers} layers", list.len()));
    }
    list.iter().map(|value| value.as_usize().ok_or_else(|| format!("the key {key} holds no sizes"))).collect()
}

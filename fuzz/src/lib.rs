//! What the fuzz targets share: a model of a few kilobytes, so that files of it can be mutated quickly, and what is done with
//! whatever a reader lets through.

use std::path::PathBuf;

use bytes::Bytes;
use openelm_formats::StoredModel;
use openelm_model::kernels::Threads;
use openelm_model::{
    Adapter, AdapterModule, AdapterOptions, Engine, Geometry, ModelConfig, Multipliers, Session, Tensor, Tokenizer,
    targets,
};

/// The file `name` of `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).join(name)
}

/// The smallest model with all kinds of tensors.
pub fn micro() -> ModelConfig {
    let geometry = Geometry {
        layers: 1,
        dim: 8,
        head_dim: 4,
        gqa_groups: 1,
        ffn_multipliers: Multipliers::Uniform(1.0),
        qkv_multipliers: Multipliers::Uniform(1.0),
        ffn_divisor: 8,
        context_length: 16,
        ..Geometry::default()
    };
    geometry.build(16).expect("the sizes are sound")
}

/// Some tensor of this shape.
pub fn some_tensor(shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|i: usize| (i % 13) as f32 / 16.0 - 0.375);
    Tensor::from_f32(shape.to_vec(), values.collect()).expect("there is a value for each element")
}

/// Uses a model that was read: all of its tensors, its tokenizer, and the forward pass on two tokens.
pub fn use_model(stored: StoredModel) {
    if let Some(Ok(tokenizer)) = stored.tokenizer.as_ref().map(|tokenizer| tokenizer.open()) {
        use_tokenizer(&tokenizer);
    }
    let Ok(model) = stored.into_model() else { return };
    let mut session = Session::new(Engine::new(model.clone(), Threads::single()), 2);
    let _ = session.append(&[0, 1]);
}

/// Uses a tokenizer that was read: there and back.
pub fn use_tokenizer(tokenizer: &Tokenizer) {
    let text =
        "Once upon a  time, 12 élan\n\u{1f600} a ▁ b\t\u{200d}\u{ff5e}e\u{301}\0 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let ids = tokenizer.encode_with(text, true, true);
    tokenizer.decode(&ids);
    tokenizer.decode(&[0, 1, 2, 3, 255, u32::MAX]);
}

/// The bytes as readers take them.
pub fn owned(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(data)
}

/// An adapter of the smallest model: its linear modules with rank 2, by DoRA or LoRA.
pub fn micro_adapter(dora: bool) -> Adapter {
    let modules = targets(&micro()).into_iter().filter(|target| !target.embedding).map(|target| {
        let (a, b) = (some_tensor(&[2, target.inputs]), some_tensor(&[target.outputs, 2]));
        let magnitude = dora.then(|| some_tensor(&[target.outputs]));
        (target.name, AdapterModule { alpha: 4.0, a, b, magnitude })
    });
    Adapter::new(&micro(), AdapterOptions::default(), modules.collect()).expect("the shapes are those of the model")
}

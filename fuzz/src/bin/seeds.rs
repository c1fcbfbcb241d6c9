//! Writes sound files, small ones, into `corpus/TARGET`: what the fuzzer begins with.

use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use openelm_formats::adapter::{corenet as corenet_adapter, mlx as mlx_adapter, peft};
use openelm_formats::gguf::Quantisation;
use openelm_formats::huggingface::{self, WriteOptions};
use openelm_formats::{EmbeddedTokenizer, FormatError, corenet, gguf};
use openelm_fuzz::{golden, micro, micro_adapter, some_tensor};
use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::BlockFormat;
use openelm_model::{DType, TensorSpec};

/// Writes a seed, behind the byte that tells a target what it is.
fn seed(target: &str, name: &str, mode: Option<u8>, bytes: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(target);
    fs::create_dir_all(&folder)?;
    let whole: Vec<u8> = mode.into_iter().chain(bytes.iter().copied()).collect();
    Ok(fs::write(folder.join(name), whole)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = tempfile::tempdir()?;
    let at = |name: &str| temporary.path().join(name);
    let (config, threads) = (micro(), Threads::single());
    let tensor = |spec: &TensorSpec| -> Result<_, FormatError> { Ok(some_tensor(&spec.shape)) };

    for dtype in [DType::F32, DType::BF16] {
        let folder = at(&format!("hf-{dtype}"));
        huggingface::write(&folder, &config, None, &tensor, WriteOptions { dtype, shard_bytes: 0 }, &threads)?;
        seed("safetensors", &dtype.to_string(), None, &fs::read(folder.join("model.safetensors"))?)?;
        seed("config", &format!("json-{dtype}"), Some(0), &fs::read(folder.join("config.json"))?)?;
    }

    let pieces = fs::read(golden("gguf/tokenizer.model"))?;
    let tokenizer = EmbeddedTokenizer::from(Bytes::from(pieces.clone())).into();
    let wide = openelm_model::Geometry {
        layers: 1,
        dim: 32,
        head_dim: 4,
        gqa_groups: 1,
        ffn_divisor: 32,
        ..Default::default()
    };
    for (name, quantisation) in
        [("f32", Quantisation::Float(DType::F32)), ("q8_0", Quantisation::Blocks(BlockFormat::Q8_0))]
    {
        let file = at(name);
        gguf::write(&file, "seed", &wide.build(384)?, &tokenizer, &tensor, quantisation, &threads)?;
        seed("gguf", name, None, &fs::read(file)?)?;
    }

    corenet::write(&at("corenet"), &config, &tensor, DType::F32, &threads)?;
    let weights = fs::read(at("corenet/checkpoint_average.pt"))?;
    seed("pytorch", "file", Some(0), &weights)?;
    let begin = weights.windows(2).position(|bytes| bytes == [0x80, 2]).ok_or("the archive has no pickle")?;
    let end = begin + weights[begin..].windows(2).position(|bytes| bytes == b"u.").ok_or("its pickle has no end")? + 2;
    seed("pytorch", "pickle", Some(1), &weights[begin..end])?;
    seed("config", "yaml", Some(1), &fs::read(at("corenet/config.yaml"))?)?;
    let known = "model:\n  language_modeling:\n    name: general_gpt\n    general_gpt:\n      model_name: OpenELM-270M\n      \
                 vocab_size: &v 32128\n      max_context_length: 2048\n      padding_index: *v\n";
    seed("config", "yaml-known", Some(1), known.as_bytes())?;
    seed("config", "toml", Some(2), toml::to_string(&openelm_model::Geometry::default())?.as_bytes())?;

    seed("sentencepiece", "small", None, &pieces)?;
    seed("tokenizer_json", "bpe", None, include_bytes!("tokenizer.json"))?;

    peft::write(&at("peft"), &micro_adapter(true))?;
    corenet_adapter::write(&at("corenet-adapter"), &micro_adapter(true))?;
    seed("adapter", "peft-config", Some(0), &fs::read(at("peft/adapter_config.json"))?)?;
    seed("adapter", "peft-weights", Some(1), &fs::read(at("peft/adapter_model.safetensors"))?)?;
    seed("adapter", "corenet-yaml", Some(2), &fs::read(at("corenet-adapter/adapter.yaml"))?)?;
    mlx_adapter::write(&at("mlx-adapter"), &micro_adapter(true))?;
    seed("adapter", "mlx-config", Some(3), &fs::read(at("mlx-adapter/adapter_config.json"))?)?;
    seed("adapter", "mlx-weights", Some(4), &fs::read(at("mlx-adapter/adapters.safetensors"))?)?;
    gguf::adapter::write(&at("adapter.gguf"), "micro", &micro_adapter(false))?;
    seed("adapter", "gguf", Some(5), &fs::read(at("adapter.gguf"))?)?;
    Ok(())
}

//! What a model says, as lines to be compared with those of another machine.

mod exports;

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;

use bytes::Bytes;
use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::BlockFormat;
use openelm_model::{
    CacheType, DType, Encoding, Engine, Generation, GenerationOptions, Geometry, Model, ModelConfig, Multipliers,
    SamplingOptions, Session, Tensor, TensorSpec, Token, Tokenizer, tensor_specs,
};
use safetensors::SafeTensors;
use serde_json::Value;

const PROMPT: &str = "Once upon a time there was a little girl who wanted to build a boat. She asked her father for wood";
const TOKENS: usize = 64;

/// How the weights are stored and run.
enum Weights {
    /// Widened to `f32`.
    F32,
    /// As they lie in the file.
    F16,
    /// Quantised, and multiplied in integers.
    Packed(BlockFormat),
}

const CASES: [(&str, Weights, CacheType); 6] = [
    ("f32", Weights::F32, CacheType::F32),
    ("f16", Weights::F16, CacheType::F16),
    ("q8_0", Weights::Packed(BlockFormat::Q8_0), CacheType::F32),
    ("q5_1", Weights::Packed(BlockFormat::Q5_1), CacheType::F16),
    ("q4_1", Weights::Packed(BlockFormat::Q4_1), CacheType::Int8),
    ("q4_0", Weights::Packed(BlockFormat::Q4_0), CacheType::Int8),
];

/// The files of a model in the Hugging Face layout.
#[derive(Default)]
pub struct Files {
    /// `config.json`.
    pub config: Vec<u8>,
    /// `model.safetensors`.
    pub weights: Vec<u8>,
    /// `tokenizer.model`.
    pub tokenizer: Vec<u8>,
}

/// The number of threads; then for each kind of weights the ids of some greedy tokens, and a checksum over the bits of the
/// logits of all tokens, computed once more in few passes.
///
/// # Errors
/// If the files are not those of a model, or there is no memory.
pub fn report(files: &Files) -> Result<String, Box<dyn Error>> {
    let config = config(&files.config)?;
    let tensors = tensors(&config, &files.weights)?;
    let tokenizer = Tokenizer::from_sentencepiece(&files.tokenizer)?;
    let threads = Threads::new(2);
    let mut report = format!("threads {}\n", threads.count());
    for (name, weights, cache) in &CASES {
        let model = match weights {
            Weights::F32 => Model::new(config.clone(), tensors.clone())?.widened(),
            Weights::F16 => Model::new(config.clone(), tensors.clone())?,
            Weights::Packed(format) => packed(&config, &threads, &tensors, *format)?,
        };
        let engine = Engine::new(model, threads.clone()).with_cache(*cache);
        writeln!(report, "{name} {}", line(engine, &tokenizer)?)?;
    }
    Ok(report)
}

fn line(engine: Engine, tokenizer: &Tokenizer) -> Result<String, Box<dyn Error>> {
    let mut session = Session::new(engine, 256);
    let options = GenerationOptions {
        sampling: SamplingOptions { temperature: 0.0, ..SamplingOptions::default() },
        max_tokens: TOKENS,
        ignore_eos: true,
        ..GenerationOptions::default()
    };
    let mut drawn: Vec<Token> = Vec::new();
    for piece in Generation::new(&mut session, tokenizer, &tokenizer.encode_prompt(PROMPT), options)? {
        drawn.extend(piece?.tokens);
    }
    let ids: Vec<String> = drawn.iter().map(|token| token.id.to_string()).collect();
    let mut checksum = 0xcbf2_9ce4_8422_2325_u64;
    let mut again = Session::new(session.engine().clone(), 256);
    again.append_all(session.tokens(), |logits| {
        for logit in logits {
            // FNV-1a by words.
            checksum = (checksum ^ u64::from(logit.to_bits())).wrapping_mul(0x100_0000_01b3);
        }
    })?;
    Ok(format!("{} logits {checksum:016x}", ids.join(" ")))
}

fn config(json: &[u8]) -> Result<ModelConfig, Box<dyn Error>> {
    let json: Value = serde_json::from_slice(json)?;
    let number = |key: &str| json[key].as_u64().map(|n| n as usize).ok_or_else(|| format!("no {key} in the configuration"));
    let multipliers = |key: &str| serde_json::from_value::<Multipliers>(json[key].clone());
    let geometry = Geometry {
        layers: number("num_transformer_layers")?,
        dim: number("model_dim")?,
        head_dim: number("head_dim")?,
        gqa_groups: number("num_gqa_groups")?,
        ffn_multipliers: multipliers("ffn_multipliers")?,
        qkv_multipliers: multipliers("qkv_multipliers")?,
        ffn_divisor: number("ffn_dim_divisor")?,
        ..Geometry::default()
    };
    Ok(geometry.build(number("vocab_size")?)?)
}

/// The tensors by CoreNet's names.
fn tensors(config: &ModelConfig, file: &[u8]) -> Result<HashMap<String, Tensor>, Box<dyn Error>> {
    let file = SafeTensors::deserialize(file)?;
    let tensor = |spec: TensorSpec| {
        let view = file.tensor(&format!("transformer.{}", spec.name))?;
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => DType::F32,
            safetensors::Dtype::F16 => DType::F16,
            other => return Err(format!("{} is of the type {other:?}", spec.name).into()),
        };
        Ok((spec.name, Tensor::new(dtype, view.shape().to_vec(), Bytes::copy_from_slice(view.data()))?))
    };
    tensor_specs(config).into_iter().map(tensor).collect()
}

/// The model with all matrices in `format` whose rows fill whole blocks.
fn packed(
    config: &ModelConfig,
    threads: &Threads,
    tensors: &HashMap<String, Tensor>,
    format: BlockFormat,
) -> Result<Model, Box<dyn Error>> {
    Model::packing(config.clone(), threads, |spec| {
        let tensor = &tensors[&spec.name];
        match Encoding::Blocks(format).bytes_of(&spec.shape) {
            Some(bytes) if spec.shape.len() == 2 => {
                let mut blocks = vec![0; bytes];
                format.quantise(&tensor.to_f32(), &mut blocks);
                Ok(Tensor::blocks(format, spec.shape.clone(), blocks.into())?)
            }
            _ => Ok(tensor.clone()),
        }
    })
}

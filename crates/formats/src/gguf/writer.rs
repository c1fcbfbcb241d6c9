//! Writing a file that llama.cpp loads: metadata, tokenizer, then tensor after tensor.

use std::io::{self, Write};
use std::path::Path;

use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::BlockFormat;
use openelm_model::{Activation, DType, Encoding, ModelConfig, NORM_EPS, Tensor, TensorSpec, tensor_specs};

use super::names::{Names, names_of};
use super::tokenizer::{Pieces, pieces};
use super::types::{file_type, kind_of};
use super::{ALIGNMENT, MAGIC};
use crate::encode::encode;
use crate::{EmbeddedTokenizer, FormatError, atomic};

/// What the matrices become. Vectors stay in `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantisation {
    /// Plain numbers.
    Float(DType),
    /// Blocks; as llama.cpp does it, the embedding table gets 6 or 8 bits, Q4_K and Q5_K give some matrices 6 bits, and rows
    /// that do not fill blocks of 256 get a format with blocks of 32.
    Blocks(BlockFormat),
}

impl Quantisation {
    /// The encoding of most matrices.
    pub fn main(self) -> Encoding {
        match self {
            Quantisation::Float(dtype) => Encoding::Float(dtype),
            Quantisation::Blocks(format) => Encoding::Blocks(format),
        }
    }

    /// The encoding of one tensor of CoreNet.
    pub fn of(self, spec: &TensorSpec, layers: usize) -> Encoding {
        let &[_, columns] = &spec.shape[..] else { return Encoding::Float(DType::F32) };
        let format = match self {
            Quantisation::Float(dtype) => return Encoding::Float(dtype),
            Quantisation::Blocks(BlockFormat::Q8_0) => BlockFormat::Q8_0,
            Quantisation::Blocks(_) if spec.name == "token_embeddings.weight" => BlockFormat::Q6_K,
            Quantisation::Blocks(format @ (BlockFormat::Q4_K | BlockFormat::Q5_K)) => {
                if wants_more_bits(&spec.name, layers) { BlockFormat::Q6_K } else { format }
            }
            Quantisation::Blocks(format) => format,
        };
        let format = match format {
            _ if columns.is_multiple_of(format.block_len()) => format,
            BlockFormat::Q4_K => BlockFormat::Q5_0,
            BlockFormat::Q5_K => BlockFormat::Q5_1,
            _ => BlockFormat::Q8_0,
        };
        if columns.is_multiple_of(format.block_len()) { Encoding::Blocks(format) } else { Encoding::Float(DType::F16) }
    }
}

/// Whether a matrix is one of those where errors hurt most: the attention's input and the feed-forward network's output in the
/// first and last eighth of the layers and in every third between.
fn wants_more_bits(name: &str, layers: usize) -> bool {
    let Some((layer, part)) = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else { return false };
    let Ok(layer) = layer.parse::<usize>() else { return false };
    let eighth = layers / 8;
    let place = layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2;
    place && matches!(part, "attn.qkv_proj.weight" | "ffn.proj_2.weight")
}

/// Writes the model as the file `target`; `name` is what llama.cpp shows. Tensors are asked for one at a time.
///
/// # Errors
/// If llama.cpp's architecture `openelm` cannot express the model, the tokenizer does not fit it, a file is there already, or
/// the system cannot write.
pub fn write(
    target: &Path,
    name: &str,
    config: &ModelConfig,
    tokenizer: &EmbeddedTokenizer,
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    quantisation: Quantisation,
    threads: &Threads,
) -> Result<(), FormatError> {
    if target.exists() {
        return Err(FormatError::Exists { path: target.to_owned() });
    }
    check_expressible(config)?;
    let inexpressible = |reason: String| FormatError::Inexpressible { reason };
    let pieces = pieces(tokenizer, config.vocab_size).map_err(inexpressible)?;
    let plan = plan(config, quantisation);
    let header = header(name, config, &pieces, &plan, quantisation).map_err(inexpressible)?;
    let mut failure = None;
    let written = atomic::write_file(target, |file| {
        file.write_all(&header)?;
        let mut at = header.len();
        for part in &plan {
            let encoded = tensor(&part.spec).and_then(|whole| part.encode(&whole, threads));
            let encoded = encoded.map_err(|e| {
                failure = Some(e);
                io::Error::other("a tensor could not be made")
            })?;
            for (_, bytes) in part.names.iter().zip(encoded.bytes().chunks(part.size)) {
                file.write_all(&vec![0; at.next_multiple_of(ALIGNMENT) - at])?;
                file.write_all(bytes)?;
                at = at.next_multiple_of(ALIGNMENT) + bytes.len();
            }
        }
        Ok(())
    });
    match failure {
        Some(failure) => Err(failure),
        None => written.map_err(FormatError::io(target)),
    }
}

/// llama.cpp's `openelm` is the released family: gated with SiLU, normalised queries and keys, one table at both ends.
fn check_expressible(config: &ModelConfig) -> Result<(), FormatError> {
    let refused = [
        (!config.ffn_glu, "a feed-forward network without a gate"),
        (config.activation != Activation::Swish, "another activation than swish"),
        (!config.qk_norm, "queries and keys that are not normalised"),
        (!config.tied_embeddings, "an output projection of its own"),
    ];
    match refused.iter().find(|(found, _)| *found) {
        Some((_, what)) => {
            let reason = format!("GGUF's architecture openelm knows no {what}; write hf, corenet or mlx instead");
            Err(FormatError::Inexpressible { reason })
        }
        None => Ok(()),
    }
}

/// A tensor of CoreNet, under one name of llama.cpp or cut into two.
struct Part {
    spec: TensorSpec,
    names: Vec<String>,
    encoding: Encoding,
    /// Bytes under each name.
    size: usize,
}

impl Part {
    fn encode(&self, tensor: &Tensor, threads: &Threads) -> Result<Tensor, FormatError> {
        encode(tensor, self.encoding, &self.spec.name, threads)
    }

    /// As the file has it: innermost first.
    fn dimensions(&self) -> Vec<usize> {
        let mut shape = self.spec.shape.clone();
        shape[0] /= self.names.len();
        shape.reverse();
        shape
    }
}

fn plan(config: &ModelConfig, quantisation: Quantisation) -> Vec<Part> {
    let part = |spec: TensorSpec| {
        let names = match names_of(&spec.name)? {
            Names::One(name) => vec![name],
            Names::Two(upper, lower) => vec![upper, lower],
        };
        let encoding = quantisation.of(&spec, config.layers.len());
        let size = encoding.bytes_of(&spec.shape)? / names.len();
        Some(Part { spec, names, encoding, size })
    };
    tensor_specs(config).into_iter().filter_map(part).collect()
}

/// Everything before the first tensor, with its padding.
fn header(
    name: &str,
    config: &ModelConfig,
    pieces: &Pieces,
    plan: &[Part],
    quantisation: Quantisation,
) -> Result<Vec<u8>, String> {
    let mut values = Values::default();
    values.text("general.architecture", "openelm");
    values.text("general.type", "model");
    values.text("general.name", name);
    values.text("general.size_label", &size_label(config.parameters()));
    let per_layer = |size: fn(&openelm_model::LayerConfig) -> usize| config.layers.iter().map(size).collect::<Vec<_>>();
    values.size("openelm.block_count", config.layers.len())?;
    values.size("openelm.context_length", config.context_length)?;
    values.size("openelm.embedding_length", config.model_dim)?;
    values.sizes("openelm.feed_forward_length", &per_layer(|layer| layer.ffn_dim))?;
    values.sizes("openelm.attention.head_count", &per_layer(|layer| layer.query_heads))?;
    values.sizes("openelm.attention.head_count_kv", &per_layer(|layer| layer.kv_heads))?;
    values.float("openelm.rope.freq_base", config.rope_theta as f32);
    values.float("openelm.attention.layer_norm_rms_epsilon", NORM_EPS);
    values.size("openelm.rope.dimension_count", config.head_dim)?;
    values.size("openelm.attention.key_length", config.head_dim)?;
    values.size("openelm.attention.value_length", config.head_dim)?;
    values.size("general.file_type", file_type(quantisation.main()) as usize)?;
    values.size("general.quantization_version", 2)?;
    values.text("tokenizer.ggml.model", "llama");
    values.text("tokenizer.ggml.pre", "default");
    values.texts("tokenizer.ggml.tokens", &pieces.texts);
    values.array("tokenizer.ggml.scores", 6, pieces.scores.iter().map(|score| score.to_le_bytes()));
    values.array("tokenizer.ggml.token_type", 5, pieces.kinds.iter().map(|kind| kind.to_le_bytes()));
    let ids = [
        ("tokenizer.ggml.bos_token_id", pieces.bos),
        ("tokenizer.ggml.eos_token_id", pieces.eos),
        ("tokenizer.ggml.eot_token_id", pieces.end_of_turn),
        ("tokenizer.ggml.unknown_token_id", pieces.unknown),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            values.size(key, id as usize)?;
        }
    }
    if !pieces.adds_bos {
        values.bool("tokenizer.ggml.add_bos_token", false);
    }
    if !pieces.space_prefix {
        values.bool("tokenizer.ggml.add_space_prefix", false);
    }
    let names = plan.iter().flat_map(|part| part.names.iter().map(move |name| (part, name)));
    let mut infos = Vec::new();
    let (mut count, mut offset) = (0u64, 0usize);
    for (part, name) in names {
        put_text(&mut infos, name);
        let dimensions = part.dimensions();
        infos.extend((dimensions.len() as u32).to_le_bytes());
        dimensions.iter().for_each(|&d| infos.extend((d as u64).to_le_bytes()));
        let kind = kind_of(part.encoding).ok_or_else(|| format!("GGUF has no {}", part.encoding))?;
        infos.extend(kind.to_le_bytes());
        infos.extend((offset as u64).to_le_bytes());
        offset += part.size.next_multiple_of(ALIGNMENT);
        count += 1;
    }
    let mut out = MAGIC.to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(values.count.to_le_bytes());
    out.extend(values.bytes);
    out.extend(infos);
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}

/// How llama.cpp names sizes: `270M`, `1.1B`.
fn size_label(parameters: usize) -> String {
    match parameters {
        1_000_000_000.. => format!("{:.1}B", parameters as f64 / 1e9),
        1_000_000.. => format!("{:.0}M", parameters as f64 / 1e6),
        _ => format!("{:.0}K", parameters as f64 / 1e3),
    }
}

/// Keys and values as they stand in a file.
#[derive(Default)]
struct Values {
    bytes: Vec<u8>,
    count: u64,
}

impl Values {
    fn key(&mut self, key: &str, kind: u32) {
        put_text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.count += 1;
    }

    fn text(&mut self, key: &str, text: &str) {
        self.key(key, 8);
        put_text(&mut self.bytes, text);
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        self.key(key, 9);
        self.bytes.extend(8u32.to_le_bytes());
        self.bytes.extend((texts.len() as u64).to_le_bytes());
        texts.iter().for_each(|text| put_text(&mut self.bytes, text));
    }

    fn float(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(value.into());
    }

    fn size(&mut self, key: &str, value: usize) -> Result<(), String> {
        self.key(key, 4);
        self.bytes.extend(u32_of(key, value)?.to_le_bytes());
        Ok(())
    }

    fn sizes(&mut self, key: &str, values: &[usize]) -> Result<(), String> {
        let values = values.iter().map(|&value| Ok(u32_of(key, value)?.to_le_bytes()));
        self.array(key, 5, values.collect::<Result<Vec<_>, String>>()?.into_iter());
        Ok(())
    }

    fn array(&mut self, key: &str, kind: u32, elements: impl ExactSizeIterator<Item = [u8; 4]>) {
        self.key(key, 9);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((elements.len() as u64).to_le_bytes());
        elements.for_each(|element| self.bytes.extend(element));
    }
}

fn u32_of(key: &str, value: usize) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| format!("{key} is {value}, which GGUF cannot hold"))
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.bytes());
}

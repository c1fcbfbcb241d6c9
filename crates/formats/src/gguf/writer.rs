//! Writing a file that llama.cpp loads: metadata, tokenizer, then tensor after tensor.

use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::BlockFormat;
use openelm_model::{
    Activation, DType, Encoding, Family, LayerConfig, ModelConfig, QkNorm, RopeScaling, Site, Tensor, TensorSpec, sites,
};

use super::names::places;
use super::reader::ROPE_FACTORS;
use super::rotation::{interleaved, is_interleaved};
use super::tokenizer::{Pieces, pieces};
use super::types::{file_type, kind_of};
use super::{ALIGNMENT, MAGIC};
use crate::encode::encode;
use crate::places::{Cutter, Place};
use crate::{FormatError, StoredTokenizer, atomic};

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

    /// The encoding of one tensor of CoreNet in a model of `layers` layers.
    pub fn of(self, spec: &TensorSpec, layers: usize) -> Encoding {
        let part = spec.name.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
        let wants_more = match part {
            Some((layer, "attn.qkv_proj.weight" | "ffn.proj_2.weight")) => wants_more_bits(layer, layers),
            _ => false,
        };
        let at_an_end = matches!(&spec.name[..], "token_embeddings.weight" | "classifier.weight");
        self.encoding(&spec.shape, at_an_end, wants_more)
    }

    /// The encoding of a part of a tensor under a name of its own.
    fn of_place(self, spec: &TensorSpec, place: &Place, layers: usize) -> Encoding {
        let part = place.name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        match part {
            // Of queries, keys and values the last are worth most.
            Some((layer, "attn_q.weight" | "attn_k.weight" | "attn_v.weight")) => {
                let wants_more =
                    part.is_some_and(|(_, part)| part == "attn_v.weight") && wants_more_bits(layer, layers);
                self.encoding(&spec.shape, false, wants_more)
            }
            _ => self.of(spec, layers),
        }
    }

    fn encoding(self, shape: &[usize], at_an_end: bool, wants_more: bool) -> Encoding {
        let &[_, columns] = shape else { return Encoding::Float(DType::F32) };
        let format = match self {
            Quantisation::Float(dtype) => return Encoding::Float(dtype),
            Quantisation::Blocks(BlockFormat::Q8_0) => BlockFormat::Q8_0,
            Quantisation::Blocks(_) if at_an_end => BlockFormat::Q6_K,
            Quantisation::Blocks(BlockFormat::Q4_K | BlockFormat::Q5_K) if wants_more => BlockFormat::Q6_K,
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

/// Whether errors hurt most in a layer: in the first and last eighth of the layers and in every third between. It holds for the
/// attention's input, or its values, and for the feed-forward network's output.
fn wants_more_bits(layer: &str, layers: usize) -> bool {
    let Ok(layer) = layer.parse::<usize>() else { return false };
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// Writes the model as the file `target`; `name` is what llama.cpp shows. Tensors are asked for one at a time.
///
/// # Errors
/// If llama.cpp's architecture of that family cannot express the model, the tokenizer does not fit it, a file is there already, or
/// the system cannot write.
pub fn write(
    target: &Path,
    name: &str,
    config: &ModelConfig,
    tokenizer: &StoredTokenizer,
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
    let cutter = Cutter::new(tensor);
    let mut failure = None;
    let written = atomic::write_file(target, |file| {
        file.write_all(&header)?;
        let mut at = header.len();
        for part in &plan {
            let bytes = part.bytes(config, &cutter, threads).map_err(|e| {
                failure = Some(e);
                io::Error::other("a tensor could not be made")
            })?;
            file.write_all(&vec![0; at.next_multiple_of(ALIGNMENT) - at])?;
            file.write_all(&bytes)?;
            at = at.next_multiple_of(ALIGNMENT) + bytes.len();
        }
        Ok(())
    });
    match failure {
        Some(failure) => Err(failure),
        None => written.map_err(FormatError::io(target)),
    }
}

/// llama.cpp's `openelm` is the released family: gated with SiLU, normalised queries and keys, one table at both ends. Its `olmo2`
/// has an output projection of its own, and its `olmo` heads that together are as wide as the model, as `olmo2`'s.
fn check_expressible(config: &ModelConfig) -> Result<(), FormatError> {
    let is_openelm = config.family == Family::OpenElm;
    let is_olmo = matches!(config.family, Family::Olmo | Family::Olmo2);
    let as_wide = config.layers.iter().all(|layer| config.heads(layer).query_dim() == config.model_dim);
    let refused = [
        (!config.ffn_glu, "a feed-forward network without a gate"),
        (config.activation != Activation::Swish, "another activation than swish"),
        (is_openelm && config.qk_norm == QkNorm::None, "queries and keys that are not normalised"),
        (is_openelm && !config.tied_embeddings, "an output projection of its own"),
        (config.family == Family::Olmo2 && config.tied_embeddings, "one table at both ends"),
        (is_olmo && !as_wide, "heads that together are not as wide as the model"),
    ];
    match refused.iter().find(|(found, _)| *found) {
        Some((_, what)) => {
            let (name, others) = (config.family.name(), if is_openelm { "hf, corenet or mlx" } else { "hf or mlx" });
            let reason = format!("GGUF's architecture {name} knows no {what}; write {others} instead");
            Err(FormatError::Inexpressible { reason })
        }
        None => Ok(()),
    }
}

/// What stands under one name of llama.cpp.
enum Part {
    /// A tensor of CoreNet, or some of its rows.
    Rows { site: Site, place: Place, encoding: Encoding },
    /// What rotary frequencies are divided by.
    RopeFactors(Vec<f32>),
}

impl Part {
    fn name(&self) -> &str {
        match self {
            Part::Rows { place, .. } => &place.name,
            Part::RopeFactors(_) => ROPE_FACTORS,
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Part::Rows { encoding, .. } => *encoding,
            Part::RopeFactors(_) => Encoding::Float(DType::F32),
        }
    }

    /// Outermost first.
    fn shape(&self, config: &ModelConfig) -> Vec<usize> {
        match self {
            Part::Rows { site, place, .. } => place.shape(&site.spec(config)),
            Part::RopeFactors(factors) => vec![factors.len()],
        }
    }

    fn bytes(&self, config: &ModelConfig, cutter: &Cutter<'_>, threads: &Threads) -> Result<Bytes, FormatError> {
        match self {
            Part::Rows { site, place, encoding } => {
                let spec = site.spec(config);
                let mut part = cutter.take(&spec, place)?;
                // Values come last, and are not rotated.
                if is_interleaved(config.family, site.role) && place.rows.end < spec.shape[0] {
                    part = interleaved(&part, config.head_dim);
                }
                Ok(encode(&part, *encoding, &spec.name, threads)?.bytes().clone())
            }
            Part::RopeFactors(factors) => Ok(factors.iter().flat_map(|factor| factor.to_le_bytes()).collect()),
        }
    }
}

fn plan(config: &ModelConfig, quantisation: Quantisation) -> Vec<Part> {
    let rows = sites(config).into_iter().flat_map(|site| {
        let spec = site.spec(config);
        places(config, site).into_iter().map(move |place| {
            let encoding = quantisation.of_place(&spec, &place, config.layers.len());
            Part::Rows { site, place, encoding }
        })
    });
    let factors = matches!(config.rope_scaling, RopeScaling::Llama3 { .. }).then(|| {
        let frequencies = openelm_model::kernels::rope::frequencies(config.head_dim, config.rope_theta);
        frequencies.iter().map(|&f| config.rope_scaling.divisor(f.into()) as f32).collect()
    });
    rows.chain(factors.map(Part::RopeFactors)).collect()
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
    values.text("general.architecture", config.family.name());
    values.text("general.type", "model");
    values.text("general.name", name);
    values.text("general.size_label", &size_label(config.parameters()));
    geometry(&mut values, config)?;
    values.size("general.file_type", file_type(quantisation.main()) as usize)?;
    values.size("general.quantization_version", 2)?;
    tokenizer(&mut values, pieces)?;
    let mut infos = Vec::new();
    let mut offset = 0usize;
    for part in plan {
        put_text(&mut infos, part.name());
        let (shape, encoding) = (part.shape(config), part.encoding());
        infos.extend((shape.len() as u32).to_le_bytes());
        // The file has them innermost first.
        shape.iter().rev().for_each(|&d| infos.extend((d as u64).to_le_bytes()));
        let kind = kind_of(encoding).ok_or_else(|| format!("GGUF has no {encoding}"))?;
        infos.extend(kind.to_le_bytes());
        infos.extend((offset as u64).to_le_bytes());
        offset += encoding.bytes_of(&shape).unwrap_or_default().next_multiple_of(ALIGNMENT);
    }
    let mut out = MAGIC.to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((plan.len() as u64).to_le_bytes());
    out.extend(values.count.to_le_bytes());
    out.extend(values.bytes);
    out.extend(infos);
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}

/// The keys that begin with the architecture's name.
fn geometry(values: &mut Values, config: &ModelConfig) -> Result<(), String> {
    let key = |key: &str| format!("{}.{key}", config.family.name());
    let per_layer = |size: fn(&LayerConfig) -> usize| config.layers.iter().map(size).collect::<Vec<_>>();
    let is_openelm = config.family == Family::OpenElm;
    // OpenELM's are lists, whatever they hold; those of the others are one number for all layers.
    let mut sizes = |name: &str, sizes: Vec<usize>| match sizes.first() {
        Some(&size) if !is_openelm => values.size(&key(name), size),
        _ => values.sizes(&key(name), &sizes),
    };
    sizes("feed_forward_length", per_layer(|layer| layer.ffn_dim))?;
    sizes("attention.head_count", per_layer(|layer| layer.query_heads))?;
    sizes("attention.head_count_kv", per_layer(|layer| layer.kv_heads))?;
    values.size(&key("block_count"), config.layers.len())?;
    values.size(&key("context_length"), config.context_length)?;
    values.size(&key("embedding_length"), config.model_dim)?;
    values.float(&key("rope.freq_base"), config.rope_theta as f32);
    let eps =
        if config.family == Family::Olmo { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
    values.float(&key(eps), config.norms.eps);
    values.size(&key("rope.dimension_count"), config.head_dim)?;
    values.size(&key("attention.key_length"), config.head_dim)?;
    values.size(&key("attention.value_length"), config.head_dim)?;
    match config.rope_scaling {
        RopeScaling::Linear { factor } => {
            values.text(&key("rope.scaling.type"), "linear");
            values.float(&key("rope.scaling.factor"), factor as f32);
        }
        // In a tensor.
        RopeScaling::Llama3 { .. } | RopeScaling::None => (),
    }
    if !is_openelm {
        values.size(&key("vocab_size"), config.vocab_size)?;
    }
    Ok(())
}

fn tokenizer(values: &mut Values, pieces: &Pieces) -> Result<(), String> {
    values.text("tokenizer.ggml.model", pieces.model);
    values.text("tokenizer.ggml.pre", pieces.pre);
    values.texts("tokenizer.ggml.tokens", &pieces.texts);
    let lists_merges = !pieces.merges.is_empty();
    if lists_merges {
        values.texts("tokenizer.ggml.merges", &pieces.merges);
    } else {
        values.array("tokenizer.ggml.scores", 6, pieces.scores.iter().map(|score| score.to_le_bytes()));
    }
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
    // Of those with merges it depends on how texts are cut what llama.cpp does where nothing is said.
    if !pieces.adds_bos || lists_merges {
        values.bool("tokenizer.ggml.add_bos_token", pieces.adds_bos);
    }
    if !pieces.space_prefix {
        values.bool("tokenizer.ggml.add_space_prefix", false);
    }
    if let Some(source) = &pieces.chat_template {
        values.text("tokenizer.chat_template", source);
    }
    Ok(())
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
pub(super) struct Values {
    pub bytes: Vec<u8>,
    pub count: u64,
}

impl Values {
    fn key(&mut self, key: &str, kind: u32) {
        put_text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.count += 1;
    }

    pub fn text(&mut self, key: &str, text: &str) {
        self.key(key, 8);
        put_text(&mut self.bytes, text);
    }

    fn texts(&mut self, key: &str, texts: &[String]) {
        self.key(key, 9);
        self.bytes.extend(8u32.to_le_bytes());
        self.bytes.extend((texts.len() as u64).to_le_bytes());
        texts.iter().for_each(|text| put_text(&mut self.bytes, text));
    }

    pub fn float(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(value.into());
    }

    pub fn size(&mut self, key: &str, value: usize) -> Result<(), String> {
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

pub(super) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.bytes());
}

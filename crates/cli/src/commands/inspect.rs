//! `openelm inspect`: what a model on disk is.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use indicatif::HumanBytes;
use openelm_formats::{Inspection, StoredModel, TokenizerSummary, inspect};
use openelm_model::kernels::Threads;
use openelm_model::{Family, LayerConfig, ModelConfig, QkNorm};
use serde_json::{Value, json};

use super::{encodings, shown};
use crate::model::open;

/// Show what a model is: format, geometry, numbers, tokenizer, hashes, memory, warnings.
#[derive(Args)]
pub struct Arguments {
    /// A model of any format, folder or file, or "builtin"
    model: PathBuf,
    /// Tokenizer, if it is not beside the model or in it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let model = open(&arguments.model, arguments.tokenizer.as_deref())?;
    let inspection = inspect(&model, &Threads::new(0))?;
    let mut out = stdout();
    if arguments.json {
        writeln!(out, "{}", as_json(&model, &inspection))?;
        return Ok(());
    }
    for (what, value) in lines(&model, &inspection) {
        writeln!(out, "{what:12} {value}")?;
    }
    Ok(out.flush()?)
}

fn lines(model: &StoredModel, inspection: &Inspection) -> Vec<(&'static str, String)> {
    let config = &model.config;
    let bytes = |bytes: usize| HumanBytes(bytes as u64);
    let mut lines = vec![("model", model.path.display().to_string()), ("format", model.format.to_string())];
    lines.extend(model.released_name().map(|name| ("name", name.to_owned())));
    lines.push(("geometry", geometry(config)));
    lines.push(("vocabulary", config.vocab_size.to_string()));
    lines.push(("context", config.context_length.to_string()));
    lines.push(("parameters", format!("{:.1} M", inspection.parameters as f64 / 1e6)));
    lines.push(("weights", format!("{}: {}", bytes(inspection.weight_bytes), encodings(model))));
    lines.push(("tokenizer", inspection.tokenizer.as_ref().map_or("none".to_owned(), tokenizer)));
    let (weights, cache) = (inspection.weight_bytes, inspection.cache_bytes);
    let (total, context) = (bytes(weights + cache), config.context_length);
    lines.push(("memory", format!("{total} to run: weights, and {} cache at {context} tokens", bytes(cache))));
    for file in &inspection.files {
        let (path, size, hash) = (file.path.display(), HumanBytes(file.bytes), &file.sha256);
        lines.push(("file", format!("{path}, {size}, sha256 {hash}")));
    }
    lines.extend(inspection.warnings.iter().map(|warning| ("warning", warning.clone())));
    lines
}

/// One line: depth, widths, and what differs from the released models.
fn geometry(config: &ModelConfig) -> String {
    let range = |of: fn(&LayerConfig) -> usize| {
        let ends = [config.layers.first(), config.layers.last()].map(|layer| layer.map_or(0, of));
        if ends[0] == ends[1] { ends[0].to_string() } else { format!("{} to {}", ends[0], ends[1]) }
    };
    let family = if config.family == Family::OpenElm { String::new() } else { format!("{}, ", config.family) };
    let mut text = format!(
        "{family}{} layers, width {}, {} query and {} key/value heads of {}, feed-forward {}",
        config.layers.len(),
        config.model_dim,
        range(|layer| layer.query_heads),
        range(|layer| layer.kv_heads),
        config.head_dim,
        range(|layer| layer.ffn_dim),
    );
    for (found, what) in [
        (!config.ffn_glu, ", no gate"),
        (config.family == Family::OpenElm && config.qk_norm == QkNorm::None, ", queries and keys not normalised"),
        (!config.tied_embeddings, ", an output projection of its own"),
    ] {
        text += if found { what } else { "" };
    }
    text
}

fn tokenizer(summary: &TokenizerSummary) -> String {
    let TokenizerSummary { path, pieces, bos, eos } = summary;
    let place = path.as_ref().map_or("in the model".to_owned(), |path| path.display().to_string());
    let id = |id: &Option<u32>| id.map_or("none".to_owned(), |id| id.to_string());
    format!("{place}: {pieces} pieces, begin {}, end {}", id(bos), id(eos))
}

fn as_json(model: &StoredModel, inspection: &Inspection) -> Value {
    let config = &model.config;
    let per_layer = |of: fn(&LayerConfig) -> usize| config.layers.iter().map(of).collect::<Vec<_>>();
    let encodings = inspection.encodings.iter().map(|(encoding, tensors, elements)| {
        json!({ "encoding": encoding.to_string(), "tensors": tensors, "elements": elements })
    });
    let files = inspection
        .files
        .iter()
        .map(|file| json!({ "path": shown(&file.path), "bytes": file.bytes, "sha256": file.sha256 }));
    let tokenizer = inspection.tokenizer.as_ref().map(|tokenizer| {
        json!({ "path": tokenizer.path.as_deref().map(shown), "pieces": tokenizer.pieces, "bos": tokenizer.bos, "eos": tokenizer.eos })
    });
    json!({
        "path": shown(&model.path),
        "format": model.format.to_string(),
        "name": model.released_name(),
        "geometry": {
            "layers": config.layers.len(),
            "model_dim": config.model_dim,
            "head_dim": config.head_dim,
            "query_heads": per_layer(|layer| layer.query_heads),
            "kv_heads": per_layer(|layer| layer.kv_heads),
            "ffn_dims": per_layer(|layer| layer.ffn_dim),
            "vocab_size": config.vocab_size,
            "context_length": config.context_length,
            "ffn_glu": config.ffn_glu,
            "qk_norm": config.qk_norm != QkNorm::None,
            "tied_embeddings": config.tied_embeddings,
            "family": config.family.name(),
            "norm_eps": config.norms.eps.to_string().parse::<f64>().ok(),
            "rope_theta": config.rope_theta,
        },
        "parameters": inspection.parameters,
        "encodings": encodings.collect::<Vec<_>>(),
        "weight_bytes": inspection.weight_bytes,
        "cache_bytes": inspection.cache_bytes,
        "tokenizer": tokenizer,
        "files": files.collect::<Vec<_>>(),
        "warnings": inspection.warnings,
    })
}

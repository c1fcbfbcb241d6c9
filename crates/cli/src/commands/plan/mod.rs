//! `openelm plan`: what a geometry means, layer by layer, and what training it takes.

mod picture;
mod training;

use std::io::{Write, stdout};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use openelm_formats::atomic;
use openelm_model::{Geometry, ModelConfig, Multipliers, Precision};
use serde_json::{Value, json};

use crate::tell;

/// Entries of LLaMA's vocabulary, which the released models have.
const VOCABULARY: usize = 32_000;

/// Show the layers, sizes and memory of a model before it exists.
#[derive(Args)]
pub struct Arguments {
    /// A released model: openelm-270m, openelm-450m, openelm-1.1b or openelm-3b; or one beside it, such as smollm2-135m,
    /// tinyllama-1.1b, llama-3.2-1b, qwen2.5-0.5b, olmo-1b or olmo-2-1b; or the file or folder of any model
    #[arg(conflicts_with_all = ["layers", "dim", "head_dim", "gqa_groups", "ffn", "heads", "ffn_divisor", "no_glu", "untied", "no_qk_norm"])]
    model: Option<String>,
    /// Transformer layers
    #[arg(long, default_value_t = 16)]
    layers: usize,
    /// Width of the model
    #[arg(long, default_value_t = 1280)]
    dim: usize,
    /// Width of one attention head
    #[arg(long, default_value_t = 64)]
    head_dim: usize,
    /// Query heads per key/value head
    #[arg(long, default_value_t = 4)]
    gqa_groups: usize,
    /// Feed-forward width relative to the model's: 4, 0.5..4 (first to last layer), or one number per layer
    #[arg(long, default_value = "0.5..4")]
    ffn: MultiplierArgument,
    /// Attention width relative to the model's, likewise
    #[arg(long, default_value = "0.5..1")]
    heads: MultiplierArgument,
    /// Feed-forward widths are multiples of this
    #[arg(long, default_value_t = 256)]
    ffn_divisor: usize,
    /// A feed-forward network without gate
    #[arg(long)]
    no_glu: bool,
    /// An output projection of its own
    #[arg(long)]
    untied: bool,
    /// No normalisation of queries and keys
    #[arg(long)]
    no_qk_norm: bool,
    /// Entries of the vocabulary [default: the model's own, otherwise 32000; with --train those of the recipe's tokenizer]
    #[arg(long)]
    vocab_size: Option<usize>,
    /// Longest sequence
    #[arg(long, default_value_t = 2048)]
    context: usize,
    /// Show what training by this recipe takes in memory instead
    #[arg(
        long,
        value_name = "RECIPE",
        conflicts_with_all = [
            "model", "layers", "dim", "head_dim", "gqa_groups", "ffn", "heads", "ffn_divisor", "no_glu", "untied",
            "no_qk_norm", "context", "svg",
        ]
    )]
    train: Option<PathBuf>,
    /// Processes that train together; what the first of them takes is shown
    #[arg(long, value_name = "N", requires = "train", default_value = "1")]
    ranks: NonZeroUsize,
    /// Change a value of the recipe, for example train.batch_size=2
    #[arg(long, value_name = "KEY=VALUE", requires = "train")]
    set: Vec<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Draw the layers' parameters, beside a uniform model of the same size, into a file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// `4`, `0.5..4` or `0.5,1,2,4`.
#[derive(Clone)]
struct MultiplierArgument(Multipliers);

impl FromStr for MultiplierArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| part.trim().parse::<f64>().map_err(|_| format!("{part:?} is not a number"));
        let multipliers = match text.split_once("..") {
            Some((first, last)) => Multipliers::List(vec![number(first)?, number(last)?]),
            None if text.contains(',') => Multipliers::List(text.split(',').map(number).collect::<Result<_, _>>()?),
            None => Multipliers::Uniform(number(text)?),
        };
        Ok(Self(multipliers))
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    if let Some(path) = &arguments.train {
        let Arguments { set, vocab_size, ranks, json, .. } = &arguments;
        let text = training::plan(path, set, *vocab_size, *ranks, *json)?;
        return Ok(stdout().write_all(text.as_bytes())?);
    }
    let config = config(&arguments)?;
    let text = if arguments.json { format!("{:#}\n", to_json(&config)) } else { table(&config, arguments.context) };
    if let Some(path) = &arguments.svg {
        let svg = picture::draw(&config)?;
        let written = atomic::write_file(path, |file| file.write_all(svg.as_bytes()));
        written.with_context(|| path.display().to_string())?;
        tell(format!("picture: {}", path.display()));
    }
    Ok(stdout().write_all(text.as_bytes())?)
}

fn config(arguments: &Arguments) -> Result<ModelConfig> {
    if let Some(model) = &arguments.model {
        let mut config = match ModelConfig::by_name(model) {
            Err(_) if Path::new(model).exists() => openelm_formats::open(Path::new(model))?.config,
            named => named?,
        };
        config.vocab_size = arguments.vocab_size.unwrap_or(config.vocab_size);
        config.validate()?;
        return Ok(config);
    }
    let geometry = Geometry {
        layers: arguments.layers,
        dim: arguments.dim,
        head_dim: arguments.head_dim,
        gqa_groups: arguments.gqa_groups,
        ffn_multipliers: arguments.ffn.0.clone(),
        qkv_multipliers: arguments.heads.0.clone(),
        ffn_divisor: arguments.ffn_divisor,
        ffn_glu: !arguments.no_glu,
        qk_norm: !arguments.no_qk_norm,
        tied_embeddings: !arguments.untied,
        context_length: arguments.context,
        ..Geometry::default()
    };
    Ok(geometry.build(arguments.vocab_size.unwrap_or(VOCABULARY))?)
}

/// Key/value cache in 16-bit floating point.
fn kv_bytes_per_token(config: &ModelConfig) -> usize {
    2 * config.kv_elements_per_token()
}

fn table(config: &ModelConfig, context: usize) -> String {
    let mut layers = Table::new();
    layers.load_style(presets::ASCII_MARKDOWN);
    layers.set_header([
        "layer",
        "query heads",
        "KV heads",
        "FFN multiplier",
        "FFN size",
        "parameters",
        "KV bytes/token",
    ]);
    for (index, layer) in config.layers.iter().enumerate() {
        layers.add_row([
            index.to_string(),
            layer.query_heads.to_string(),
            layer.kv_heads.to_string(),
            format!("{:.2}", layer.ffn_multiplier),
            layer.ffn_dim.to_string(),
            thousands(config.layer_parameters(index)),
            (4 * layer.kv_heads * config.head_dim).to_string(),
        ]);
    }
    let mut memory = Table::new();
    memory.load_style(presets::ASCII_MARKDOWN);
    memory.set_header(["weights in".to_owned(), "weights".to_owned(), format!("with a cache of {context} tokens")]);
    let cache = context * kv_bytes_per_token(config);
    for precision in Precision::ALL {
        let weights = config.weight_bytes(precision);
        memory.add_row([precision.to_string(), mebibytes(weights), mebibytes(weights + cache)]);
    }
    for table in [&mut layers, &mut memory] {
        table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    }
    let embedding = config.embedding_parameters();
    format!(
        "{layers}\n\nparameters: {} in all, {} of them in the embedding ({} pieces)\nkey/value cache: {} bytes per token in \
         16 bits\n\n{memory}\n",
        thousands(config.parameters()),
        thousands(embedding),
        config.vocab_size,
        kv_bytes_per_token(config),
    )
}

fn to_json(config: &ModelConfig) -> Value {
    let layers: Vec<Value> = config
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            json!({
                "query_heads": layer.query_heads,
                "kv_heads": layer.kv_heads,
                "ffn_multiplier": layer.ffn_multiplier,
                "ffn_dim": layer.ffn_dim,
                "parameters": config.layer_parameters(index),
                "kv_bytes_per_token": 4 * layer.kv_heads * config.head_dim,
            })
        })
        .collect();
    let [f32, f16, int8, int4] = Precision::ALL.map(|precision| config.weight_bytes(precision));
    json!({
        "model_dim": config.model_dim,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "parameters": config.parameters(),
        "embedding_parameters": config.embedding_parameters(),
        "kv_bytes_per_token": kv_bytes_per_token(config),
        "weight_bytes": { "f32": f32, "f16": f16, "int8": int8, "int4": int4 },
        "layers": layers,
    })
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let grouped: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    grouped.join(" ")
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

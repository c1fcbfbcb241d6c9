//! `openelm compare`: how far the logits of two models are apart.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use openelm_formats::{Comparison, StoredModel, compare};
use serde_json::{Value, json};

use super::{AdapterOptions, ThreadOptions, parse_ids};
use crate::input::read_file;
use crate::model::open;

/// Say how far the logits of two models are apart on a text.
#[derive(Args)]
pub struct Arguments {
    /// A model of any format, folder or file, or "builtin"
    first: PathBuf,
    /// The model to compare with it; with --adapter, the first one with the adapter where nothing is said
    #[arg(required_unless_present = "adapter")]
    second: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterOptions,
    #[command(flatten)]
    text: TextOptions,
    /// Token ids instead of a text, separated by commas
    #[arg(long, conflicts_with_all = ["text", "text_file"])]
    ids: Option<String>,
    /// Tokenizer of both, if none is beside them or in them
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadOptions,
}

/// The text that logits are compared on.
#[derive(Args)]
pub struct TextOptions {
    /// Text to compare the logits on [default: the beginning of Pride and Prejudice]
    #[arg(long)]
    text: Option<String>,
    /// File with the text
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    text_file: Option<PathBuf>,
}

const SAMPLE: &str = include_str!("sample.txt");

impl TextOptions {
    pub fn read(&self) -> Result<String> {
        match (&self.text, &self.text_file) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(file)) => read_file(file),
            (None, None) => Ok(SAMPLE.to_owned()),
        }
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    let tokenizer = arguments.tokenizer.as_deref();
    let first = open(&arguments.first, tokenizer)?;
    let mut second = open(arguments.second.as_ref().unwrap_or(&arguments.first), tokenizer)?;
    let threads = arguments.threads.threads();
    if !arguments.adapter.is_empty() {
        let adapters = arguments.adapter.open(&second.config)?;
        second = second.fused(&adapters, true, &threads)?;
    }
    let ids = match &arguments.ids {
        Some(ids) => parse_ids(ids).context("--ids")?,
        None => common_ids(&first, &second, &arguments.text.read()?)?,
    };
    let comparison = compare(&first, &second, &ids, &threads)?;
    let mut out = stdout();
    if arguments.json {
        writeln!(out, "{}", as_json(&comparison))?;
    } else {
        write!(out, "{}", as_text(&comparison))?;
    }
    Ok(())
}

/// The ids of `text`, which must be the same for both models: otherwise their logits are not about the same.
fn common_ids(first: &StoredModel, second: &StoredModel, text: &str) -> Result<Vec<u32>> {
    let with = if first.tokenizer.is_some() { first } else { second };
    let ids = with.open_tokenizer()?.encode_prompt(text);
    if second.tokenizer.is_some() {
        let others = second.open_tokenizer()?.encode_prompt(text);
        ensure!(
            ids == others,
            "the tokenizers of the two models take the text apart differently; give --tokenizer or --ids"
        );
    }
    Ok(ids)
}

/// The comparison in a few lines.
pub fn as_text(comparison: &Comparison) -> String {
    let Comparison { positions, vocabulary, max_difference, mean_kl, top1_agreement, perplexities } = comparison;
    let mut text = format!("logits on {positions} tokens, {vocabulary} entries of the vocabulary\n");
    text += &format!("  largest difference    {max_difference:.6}\n");
    text += &format!("  mean KL divergence    {mean_kl:.6} nats\n");
    text += &format!("  same most probable    {:.1} %\n", 100.0 * top1_agreement);
    if let Some([first, second]) = perplexities {
        text += &format!("  perplexity            {first:.3} and {second:.3}\n");
    }
    text
}

/// The comparison as JSON; what is infinite is null.
pub fn as_json(comparison: &Comparison) -> Value {
    json!({
        "positions": comparison.positions,
        "vocabulary": comparison.vocabulary,
        "max_difference": comparison.max_difference,
        "mean_kl": comparison.mean_kl,
        "top1_agreement": comparison.top1_agreement,
        "perplexities": comparison.perplexities,
    })
}

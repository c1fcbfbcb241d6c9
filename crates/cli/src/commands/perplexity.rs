//! `openelm perplexity`: how well a model foresees a text.

use std::io::{Write, stdout};
use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use indicatif::ProgressBar;
use openelm_formats::{Evaluation, Perplexity, perplexity};
use serde_json::json;

use super::running::RunningOptions;
use crate::input::read_file;
use crate::model::ModelOptions;

/// Measure how well a model foresees a text: nats per token, perplexity, bits per byte.
#[derive(Args)]
pub struct Arguments {
    /// A text in UTF-8
    file: PathBuf,
    #[command(flatten)]
    model: ModelOptions,
    /// Tokens of a window [default: 512, or the model's context if that is shorter]
    #[arg(long, value_name = "TOKENS")]
    window: Option<usize>,
    /// Count every token once, in windows so many tokens apart; without it, windows lie side by side and their second halves count,
    /// as llama-perplexity does
    #[arg(long, value_name = "TOKENS")]
    stride: Option<usize>,
    /// Read only so many windows
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    running: RunningOptions,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let text = read_file(&arguments.file)?;
    let (stored, tokenizer) = arguments.model.open()?;
    let context = stored.config.context_length;
    let window = arguments.window.unwrap_or(context.min(512));
    ensure!(window <= context, "the window has {window} tokens and the model's context only {context}; shorten it");
    let evaluation = match arguments.stride {
        Some(stride) => Evaluation::Strides { window, stride },
        None => Evaluation::Chunks(window),
    };
    let ids = tokenizer.encode_prompt(&text);
    let limit = window + 1;
    arguments.running.check_memory(&stored, limit)?;
    let mut session = arguments.running.session(stored, limit)?;

    let count = match arguments.stride {
        Some(stride) => 1 + ids.len().saturating_sub(window).div_ceil(stride.max(1)),
        None => ids.len() / window.max(1),
    };
    let count = arguments.windows.map_or(count, |most| most.min(count));
    let bar = ProgressBar::new(count as u64);
    let bos = tokenizer.bos_id().filter(|_| tokenizer.adds_bos());
    let mut read = 0;
    let mut progress = |_: Perplexity| {
        bar.inc(1);
        read += 1;
        if arguments.windows.is_some_and(|most| read >= most) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let found = perplexity(&mut session, &ids, bos, evaluation, &mut progress);
    bar.finish_and_clear();
    let found = found.with_context(|| arguments.file.display().to_string())?;

    // What is not text, such as the token that begins one, has no bytes.
    let tokens = ids.len() - usize::from(bos.is_some());
    let bits_per_byte = found.nats_per_token() / std::f64::consts::LN_2 * tokens as f64 / text.len().max(1) as f64;
    let (nats, per_token) = (found.nats_per_token(), found.perplexity());
    let mut out = stdout();
    if arguments.json {
        let result = json!({
            "tokens": found.tokens,
            "nats_per_token": nats,
            "perplexity": per_token,
            "bits_per_byte": bits_per_byte,
            "window": window,
            "stride": arguments.stride,
            "windows": read,
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(out, "tokens          {} of {}, in {read} windows of {window}", found.tokens, ids.len())?;
        writeln!(out, "nats per token  {nats:.5}")?;
        writeln!(out, "perplexity      {per_token:.4}")?;
        writeln!(out, "bits per byte   {bits_per_byte:.5}")?;
    }
    Ok(out.flush()?)
}

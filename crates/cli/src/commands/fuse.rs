//! `openelm fuse`: an adapter folded into its model, and what that does to the logits.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use openelm_formats::Comparison;
use openelm_model::Adapter;
use serde_json::{Value, json};

use super::compare::{TextOptions, as_json, as_text};
use super::convert::{FormOptions, moved, write};
use super::{AdapterArgument, ThreadOptions, open_adapters, shown};
use crate::model::open;
use crate::tell;

/// Fold adapters into a model, and say how far the logits moved from base to adapted to written.
#[derive(Args)]
pub struct Arguments {
    /// The model that the adapters were trained on, of any format, or "builtin"
    model: PathBuf,
    /// The adapters, several with weights: folders of PEFT's or mlx-lm's, GGUF files or files of CoreNet's
    #[arg(required = true, value_name = "ADAPTER[=WEIGHT]")]
    adapters: Vec<AdapterArgument>,
    /// The new folder, or the new file for gguf
    output: PathBuf,
    #[command(flatten)]
    form: FormOptions,
    /// Give the output projection a matrix of its own where an adapter changes a table that both share
    #[arg(long)]
    untie: bool,
    /// Tokenizer, if it is not beside the model or in it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    #[command(flatten)]
    text: TextOptions,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadOptions,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let tokenizer = arguments.tokenizer.as_deref();
    let base = open(&arguments.model, tokenizer)?;
    let text = arguments.text.read()?;
    ensure!(!arguments.output.exists(), "{} is there already; choose another name", arguments.output.display());
    let (natural, stored) = (base.natural_dtype(), base.main_encoding());
    let target = arguments.form.target(natural)?;
    let adapters: Vec<(Adapter, f32)> = open_adapters(&arguments.adapters, &base.config)?;
    let threads = arguments.threads.threads();
    let adapted = open(&arguments.model, tokenizer)?.fused(&adapters, arguments.untie, &threads)?;
    for warning in base.notes.iter().chain(&target.warnings(&base.config, stored)) {
        tell(format!("warning: {warning}"));
    }
    write(&adapted, &arguments.output, target, &threads)?;
    let written = openelm_formats::open(&arguments.output)?;
    let steps = [
        ("the adapter: from the base to the base with it", moved(&base, &adapted, &text, &threads)?),
        ("the writing: from the base with it to what is written", moved(&adapted, &written, &text, &threads)?),
    ];
    let mut out = stdout();
    if arguments.json {
        let step = |step: &Option<Comparison>| -> Value { step.as_ref().map_or(Value::Null, as_json) };
        let report =
            json!({ "output": shown(&arguments.output), "adapter": step(&steps[0].1), "writing": step(&steps[1].1) });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    for (what, comparison) in &steps {
        if let Some(comparison) = comparison {
            write!(out, "{what}\n{}", as_text(comparison))?;
        }
    }
    Ok(writeln!(out, "{}", shown(&arguments.output))?)
}

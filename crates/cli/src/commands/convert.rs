//! `openelm convert`: a model in another format, with a report.

use std::io::{Write, stdout};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use openelm_formats::gguf::{self, Quantisation};
use openelm_formats::{Comparison, StoredModel, Target, adapter, compare, convert};
use openelm_model::DType;
use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::{AffineFormat, BlockFormat};
use serde_json::{Value, json};

use super::compare::{TextOptions, as_json, as_text};
use super::{AdapterArgument, DTypeArgument, ThreadOptions, encodings, open_adapters, shown};
use crate::interrupt::Stop;
use crate::model::open;
use crate::tell;

/// Write a model, or an adapter for it, in another format, and say how far its logits moved.
#[derive(Args)]
pub struct Arguments {
    /// A model of any format, folder or file, or "builtin"
    model: PathBuf,
    /// The new folder, or the new file for gguf
    output: PathBuf,
    #[command(flatten)]
    form: FormOptions,
    /// Keep only the first rows of the vocabulary: CoreNet pads LLaMA's 32000 pieces to 32128
    #[arg(long, value_name = "ROWS", num_args = 0..=1, require_equals = true, default_missing_value = "32000")]
    trim_vocab: Option<usize>,
    /// Write this adapter of the model instead of the model: --to hf gives a folder for PEFT, mlx one for mlx-lm, gguf a file for
    /// llama.cpp's --lora
    #[arg(long, value_name = "ADAPTER", conflicts_with_all = ["dtype", "bits", "quant", "trim_vocab"])]
    adapter: Option<AdapterArgument>,
    /// Tokenizer to take along, if it is not beside the model or in it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    #[command(flatten)]
    text: TextOptions,
    /// Do not compare the logits afterwards
    #[arg(long)]
    no_compare: bool,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadOptions,
}

/// What a model becomes.
#[derive(Args)]
pub struct FormOptions {
    /// The format
    #[arg(long, value_enum)]
    to: FormatArgument,
    /// Floats to write [default: as the model has them]
    #[arg(long)]
    dtype: Option<DTypeArgument>,
    /// For mlx: quantise matrices to this many bits (2, 3, 4, 5, 6 or 8)
    #[arg(long, value_name = "N")]
    bits: Option<usize>,
    /// For mlx: numbers that share a scale (32, 64 or 128) [default: 64]
    #[arg(long, value_name = "N", requires = "bits")]
    group_size: Option<usize>,
    /// For gguf: what matrices become
    #[arg(long, conflicts_with = "dtype")]
    quant: Option<QuantArgument>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArgument {
    /// A Hugging Face folder
    Hf,
    /// A CoreNet folder
    Corenet,
    /// A folder for mlx-lm
    Mlx,
    /// A file for llama.cpp
    Gguf,
}

#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
#[allow(non_camel_case_types)]
pub enum QuantArgument {
    F32,
    F16,
    Bf16,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_1")]
    Q4_1,
    #[value(name = "q5_0")]
    Q5_0,
    #[value(name = "q5_1")]
    Q5_1,
    #[value(name = "q8_0")]
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl From<QuantArgument> for Quantisation {
    fn from(quant: QuantArgument) -> Self {
        match quant {
            QuantArgument::F32 => Quantisation::Float(DType::F32),
            QuantArgument::F16 => Quantisation::Float(DType::F16),
            QuantArgument::Bf16 => Quantisation::Float(DType::BF16),
            QuantArgument::Q4_0 => Quantisation::Blocks(BlockFormat::Q4_0),
            QuantArgument::Q4_1 => Quantisation::Blocks(BlockFormat::Q4_1),
            QuantArgument::Q5_0 => Quantisation::Blocks(BlockFormat::Q5_0),
            QuantArgument::Q5_1 => Quantisation::Blocks(BlockFormat::Q5_1),
            QuantArgument::Q8_0 => Quantisation::Blocks(BlockFormat::Q8_0),
            QuantArgument::Q4_K => Quantisation::Blocks(BlockFormat::Q4_K),
            QuantArgument::Q5_K => Quantisation::Blocks(BlockFormat::Q5_K),
            QuantArgument::Q6_K => Quantisation::Blocks(BlockFormat::Q6_K),
        }
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    let mut model = open(&arguments.model, arguments.tokenizer.as_deref())?;
    if let Some(argument) = &arguments.adapter {
        return write_adapter(argument, &model, &arguments.output, arguments.form.to);
    }
    let text = arguments.text.read()?;
    if let Some(rows) = arguments.trim_vocab {
        model.trim_vocabulary(rows)?;
    }
    let target = arguments.form.target(model.natural_dtype())?;
    for warning in model.notes.iter().chain(&target.warnings(&model.config, model.main_encoding())) {
        tell(format!("warning: {warning}"));
    }
    let threads = arguments.threads.threads();
    write(&model, &arguments.output, target, &threads)?;
    let written = openelm_formats::open(&arguments.output)?;
    let compared = if arguments.no_compare { None } else { moved(&model, &written, &text, &threads)? };
    report(&arguments, &model, &written, compared)
}

/// Writes the adapter of `model` that `argument` names as `output`.
fn write_adapter(argument: &AdapterArgument, model: &StoredModel, output: &Path, to: FormatArgument) -> Result<()> {
    ensure!(!output.exists(), "{} is there already; choose another name", output.display());
    let mut opened = open_adapters(std::slice::from_ref(argument), &model.config)?;
    let Some((mut adapter, weight)) = opened.pop() else { bail!("there is no adapter") };
    ensure!(weight == 1.0, "an adapter is written as it is; leave its weight {weight} out");
    if adapter.options.base_model.is_none() {
        adapter.options.base_model = Some(shown(&model.path));
    }
    match to {
        FormatArgument::Hf => adapter::peft::write(output, &adapter)?,
        FormatArgument::Corenet => adapter::corenet::write(output, &adapter)?,
        FormatArgument::Mlx => adapter::mlx::write(output, &adapter)?,
        FormatArgument::Gguf => {
            let name = output.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            gguf::adapter::write(output, &name, &adapter)?;
        }
    }
    Ok(writeln!(stdout(), "{}", shown(output))?)
}

impl FormOptions {
    /// The target, with floats of `natural` where nothing is said.
    pub fn target(&self, natural: DType) -> Result<Target> {
        let dtype = self.dtype.map_or(natural, DType::from);
        let to = self.to;
        ensure!(
            to == FormatArgument::Mlx || self.bits.is_none(),
            "--bits is for --to mlx; --to gguf has --quant, and the other formats hold floats only"
        );
        ensure!(
            to == FormatArgument::Gguf || self.quant.is_none(),
            "--quant is for --to gguf; --to mlx has --bits, and the other formats hold floats only"
        );
        Ok(match to {
            FormatArgument::Hf => Target::HuggingFace(dtype),
            FormatArgument::Corenet => Target::CoreNet(dtype),
            FormatArgument::Gguf => Target::Gguf(self.quant.map_or(Quantisation::Float(dtype), Quantisation::from)),
            FormatArgument::Mlx => {
                let Some(bits) = self.bits else { return Ok(Target::Mlx(dtype, None)) };
                let group = self.group_size.unwrap_or(64);
                let Some(format) = AffineFormat::new(bits, group) else {
                    bail!(
                        "MLX has no {bits} bits in groups of {group}: there are 2, 3, 4, 5, 6 and 8 in 32, 64 and 128"
                    );
                };
                Target::Mlx(dtype, Some(format))
            }
        })
    }
}

/// Writes `model` as `output`, with a bar that shows how far it is.
pub fn write(model: &StoredModel, output: &Path, target: Target, threads: &Threads) -> Result<()> {
    let stop = Stop::saying("stopping")?;
    let bar = ProgressBar::new(model.config.parameters() as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {percent}% of the weights, {eta} left") {
        bar.set_style(style);
    }
    let progress = |elements: usize| {
        bar.inc(elements as u64);
        if stop.is_raised() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let converted = convert(model, output, target, threads, &progress);
    bar.finish_and_clear();
    if let (Err(stopped), true) = (&converted, stop.is_raised()) {
        tell(stopped);
        stop.check()?;
    }
    // What comes behind the last tensor can be left at any time.
    stop.leave_at_once();
    converted?.iter().for_each(|warning| tell(format!("warning: {warning}")));
    Ok(())
}

/// How far the logits moved; `None`, and a note, if no tokenizer takes the text apart.
pub fn moved(model: &StoredModel, written: &StoredModel, text: &str, threads: &Threads) -> Result<Option<Comparison>> {
    if model.tokenizer.is_none() {
        tell("note: there is no tokenizer, so that the logits were not compared; give one with --tokenizer");
        return Ok(None);
    }
    let ids = model.open_tokenizer()?.encode_prompt(text);
    Ok(Some(compare(model, written, &ids, threads).context("the model is written, but cannot be compared")?))
}

fn report(
    arguments: &Arguments,
    model: &StoredModel,
    written: &StoredModel,
    comparison: Option<Comparison>,
) -> Result<()> {
    let mut out = stdout();
    if arguments.json {
        let side = |model: &StoredModel| -> Value {
            json!({
                "path": shown(&model.path),
                "format": model.format.to_string(),
                "encodings": encodings(model),
                "bytes": model.size(),
            })
        };
        let comparison = comparison.as_ref().map(as_json);
        writeln!(out, "{}", json!({ "before": side(model), "after": side(written), "comparison": comparison }))?;
        return Ok(());
    }
    for (what, model) in [("before", model), ("after", written)] {
        let (format, size) = (model.format, HumanBytes(model.size() as u64));
        writeln!(out, "{what:7} {size}, {format}: {}", encodings(model))?;
    }
    let share = 100.0 * written.size() as f64 / model.size().max(1) as f64;
    writeln!(out, "size    {share:.0} % of what it was")?;
    if let Some(comparison) = &comparison {
        write!(out, "{}", as_text(comparison))?;
    }
    Ok(())
}

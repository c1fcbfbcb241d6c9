//! `openelm bundle`: a model as a device maps it, and what to expect of it there.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use indicatif::HumanBytes;
use openelm_formats::Target;
use openelm_formats::bundle::{BundleOptions, BundleWeights, Expected, Known, Purpose};
use serde_json::json;

use super::convert::{QuantArgument, write};
use super::{ThreadOptions, encodings, shown};
use crate::model::open;
use crate::tell;

/// Make a bundle for a phone or a browser, and say what to expect of it there.
#[derive(Args)]
pub struct Arguments {
    /// A model of any format, folder or file, or "builtin"
    model: PathBuf,
    /// The new folder [default: the model's name and what the bundle is for, here]
    output: Option<PathBuf>,
    /// Where it is to run
    #[arg(long = "for", value_enum, value_name = "TARGET")]
    purpose: PurposeArgument,
    /// What model and session may take there, such as 1.5G: weights get the most bits that fit [default: 2.1G, for web 2147M]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    memory: Option<u64>,
    /// What matrices become, instead of what fits: fewer bits are faster
    #[arg(long, conflicts_with = "memory")]
    quant: Option<QuantArgument>,
    /// Tokenizer to take along, if it is not beside the model or in it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadOptions,
}

#[derive(Clone, Copy, ValueEnum)]
enum PurposeArgument {
    /// iPhone and iPad
    Ios,
    /// Phones and tablets with Android
    Android,
    /// Browsers
    Web,
}

impl From<PurposeArgument> for Purpose {
    fn from(purpose: PurposeArgument) -> Self {
        match purpose {
            PurposeArgument::Ios => Purpose::Ios,
            PurposeArgument::Android => Purpose::Android,
            PurposeArgument::Web => Purpose::Web,
        }
    }
}

/// A number of bytes: `1.5G` is 1,500,000,000.
fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim().trim_end_matches(['B', 'b']);
    let (number, unit) = match text.chars().last().map(|unit| unit.to_ascii_uppercase()) {
        Some('K') => (&text[..text.len() - 1], 1e3),
        Some('M') => (&text[..text.len() - 1], 1e6),
        Some('G') => (&text[..text.len() - 1], 1e9),
        _ => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number * unit < 1e15 => Ok((number * unit) as u64),
        _ => Err("write a number of bytes, such as 800M or 1.5G".to_owned()),
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    let model = open(&arguments.model, arguments.tokenizer.as_deref())?;
    let purpose = Purpose::from(arguments.purpose);
    let weights = match arguments.quant {
        Some(quant) => BundleWeights::Quantised(quant.into()),
        None => BundleWeights::that_fit(&model, arguments.memory.unwrap_or(purpose.memory()))?,
    };
    let default_output = || PathBuf::from(format!("{}-{}", model.name(), purpose.name()));
    let output = arguments.output.clone().unwrap_or_else(default_output);
    ensure!(!output.exists(), "{} exists already; choose another name or remove it", output.display());
    let target = Target::Bundle(BundleOptions { purpose, weights });
    for warning in model.notes.iter().chain(&target.warnings(&model.config, model.main_encoding())) {
        tell(format!("warning: {warning}"));
    }
    write(&model, &output, target, &arguments.threads.threads())?;
    let written = openelm_formats::open(&output)?;
    let expected = Expected::new(&written.config, written.size() as u64, purpose);
    if purpose == Purpose::Web {
        tell(
            "note: the browser package opens .gguf files and not bundles: openelm convert makes one of the same weights",
        );
    }
    let mut out = stdout();
    if arguments.json {
        let encodings = encodings(&written);
        let report = json!({ "path": shown(&output), "encodings": encodings, "expected": expected.to_json() });
        writeln!(out, "{report}")?;
        return Ok(());
    }
    writeln!(out, "{}\nweights {}: {}", shown(&output), HumanBytes(expected.weights), encodings(&written))?;
    for at in &expected.memory {
        let (total, own) = (HumanBytes(at.total), HumanBytes(at.own));
        writeln!(out, "memory  {total} with {} tokens, {own} of it the process's own, the rest mapped", at.tokens)?;
    }
    for rate in &expected.rates {
        let device = rate.device;
        let how = if device.known == Known::Measured { "as measured" } else { "at most" };
        writeln!(
            out,
            "rate    {:.0} tokens/s on {} by {:.0} GB/s {how} ({})",
            rate.tokens_per_second,
            device.name,
            device.bandwidth / 1e9,
            device.source
        )?;
    }
    if !expected.rates.is_empty() {
        writeln!(
            out,
            "        limits of the memory, 512 tokens into a text; a phone that gets warm falls to about half in ten minutes"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes_are_read_as_people_write_them() {
        assert_eq!(["1.5G", "800MB", "12", "3 k"].map(bytes), [Ok(1_500_000_000), Ok(800_000_000), Ok(12), Ok(3000)]);
        for wrong in ["", "G", "-1G", "nan", "1e30", "1.5T"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}

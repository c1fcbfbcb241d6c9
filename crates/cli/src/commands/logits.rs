//! `openelm logits`: what a model says of a text, in numbers; how anyone checks a conversion.

use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use openelm_formats::StoredModel;
use openelm_model::{Session, check_finite};

use super::parse_ids;
use super::running::RunningOptions;
use crate::input::read_file;
use crate::model::open;

/// Print the logits of every position as JSON: `{"shape":[tokens,vocabulary],"logits":[[…],…]}`.
#[derive(Args)]
pub struct Arguments {
    /// A model of any format, folder or file, or "builtin"
    model: PathBuf,
    #[command(flatten)]
    input: Input,
    /// Tokenizer for --text, if it is not beside the model or in it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    #[command(flatten)]
    running: RunningOptions,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// Token ids, separated by commas
    #[arg(long, allow_hyphen_values = true)]
    ids: Option<String>,
    /// A JSON file with a list of token ids
    #[arg(long, value_name = "FILE")]
    ids_file: Option<PathBuf>,
    /// A text; the token that begins a text is put before it
    #[arg(long)]
    text: Option<String>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let stored = open(&arguments.model, arguments.tokenizer.as_deref())?;
    let ids = ids(&arguments.input, &stored)?;
    check(&ids, stored.config.vocab_size)?;
    arguments.running.check_memory(&stored, ids.len())?;
    print(arguments.running.session(stored, ids.len())?, &ids)
}

fn ids(input: &Input, model: &StoredModel) -> Result<Vec<u32>> {
    let Input { ids, ids_file, text } = input;
    if let Some(ids) = ids {
        return parse_ids(ids).context("--ids");
    }
    if let Some(file) = ids_file {
        return serde_json::from_str(&read_file(file)?)
            .with_context(|| format!("{}: expected a list of ids", file.display()));
    }
    Ok(model.open_tokenizer()?.encode_prompt(text.as_deref().unwrap_or_default()))
}

/// Before anything is printed: half an object is worse than none.
fn check(ids: &[u32], vocabulary: usize) -> Result<()> {
    ensure!(!ids.is_empty(), "there are no ids; give at least one");
    match ids.iter().find(|&&id| id as usize >= vocabulary) {
        Some(id) => bail!("token id {id} is out of range: the model's vocabulary has {vocabulary} tokens"),
        None => Ok(()),
    }
}

fn print(mut session: Session, ids: &[u32]) -> Result<()> {
    let vocabulary = session.engine().model().config().vocab_size;
    let mut out = BufWriter::new(stdout().lock());
    write!(out, "{{\"shape\":[{},{vocabulary}],\"logits\":[", ids.len())?;
    let mut position = 0;
    let mut row = |out: &mut BufWriter<_>, row: &[f32]| -> Result<()> {
        check_finite(row).with_context(|| format!("token {} of the text", position + 1))?;
        write!(out, "{}", if position == 0 { "" } else { "," })?;
        position += 1;
        Ok(serde_json::to_writer(out, row)?)
    };
    let mut written = Ok(());
    session.append_all(ids, |logits| {
        if written.is_ok() {
            written = logits.chunks(vocabulary).try_for_each(|logits| row(&mut out, logits));
        }
    })?;
    if let Err(e) = written {
        // What is still held back is not printed: half an object is worse than none.
        let _ = out.into_parts();
        return Err(e);
    }
    writeln!(out, "]}}")?;
    Ok(out.flush()?)
}

//! `openelm tokenizer`: learn one, look at what it does.

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use openelm_formats::atomic;
use openelm_train::data::{CorpusConfig, DataError, Format, Source, documents};
use openelm_train::{text_repair, train_tokenizer};

use super::parse_ids;
use crate::input::read_stdin;
use crate::interrupt::leave_on_interrupt;
use crate::model::load_tokenizer;
use crate::tell;

/// Learn a tokenizer from a corpus, or encode and decode with one.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Learn a byte-fallback BPE from a corpus and write it as a SentencePiece model
    Train(Train),
    /// Print the ids of a text, as a JSON list
    Encode(Encode),
    /// Print the text of ids
    Decode(Decode),
}

#[derive(Args)]
struct Train {
    /// Files or patterns: text, JSONL or Parquet, also .gz and .zst
    #[arg(required = true)]
    corpus: Vec<String>,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Write over a file that is there already
    #[arg(long)]
    force: bool,
    /// Pieces, bytes and control tokens included
    #[arg(long, default_value_t = 4096)]
    vocab_size: usize,
    /// Key or column of the text in JSONL and Parquet files
    #[arg(long, default_value = "text")]
    text_key: String,
    /// What the files are, where their names do not say it
    #[arg(long, value_parser = format)]
    format: Option<Format>,
    /// Repair the text by ftfy's rules first
    #[arg(long)]
    clean: bool,
}

fn format(name: &str) -> Result<Format, String> {
    match name {
        "text" => Ok(Format::Text),
        "jsonl" => Ok(Format::Jsonl),
        "parquet" => Ok(Format::Parquet),
        _ => Err("known are text, jsonl and parquet".to_owned()),
    }
}

#[derive(Args)]
struct Encode {
    /// A .model or tokenizer.json file, a folder with one, or "builtin"
    tokenizer: PathBuf,
    /// The text; standard input where it is not given
    text: Option<String>,
    /// Put the token that begins a text before the ids
    #[arg(long)]
    bos: bool,
    /// Put the token that ends a text behind the ids
    #[arg(long)]
    eos: bool,
    /// Repair the text by ftfy's rules first
    #[arg(long)]
    clean: bool,
}

#[derive(Args)]
struct Decode {
    /// A .model or tokenizer.json file, a folder with one, or "builtin"
    tokenizer: PathBuf,
    /// The ids, separated by commas or spaces, with or without brackets; standard input where they are not given
    #[arg(allow_hyphen_values = true)]
    ids: Option<String>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    match arguments.command {
        Command::Train(arguments) => train(arguments),
        Command::Encode(Encode { tokenizer, text, bos, eos, clean: repair }) => {
            let tokenizer = load_tokenizer(&tokenizer)?;
            let text = text_or_stdin(text)?;
            let text = if repair { text_repair()?(&text) } else { text };
            let ids = tokenizer.encode_with(&text, bos, eos);
            writeln!(stdout(), "{}", serde_json::to_string(&ids)?)?;
            Ok(())
        }
        Command::Decode(Decode { tokenizer, ids }) => {
            let tokenizer = load_tokenizer(&tokenizer)?;
            let ids = parse_ids(&text_or_stdin(ids)?)?;
            if let Some(id) = ids.iter().find(|&&id| id as usize >= tokenizer.vocab_size()) {
                bail!("id {id} is out of range: the tokenizer has {} pieces", tokenizer.vocab_size());
            }
            writeln!(stdout(), "{}", tokenizer.decode(&ids))?;
            Ok(())
        }
    }
}

fn train(arguments: Train) -> Result<()> {
    let Train { corpus, output, force, vocab_size, text_key, format, clean: repair } = arguments;
    check_output(&output, force)?;
    let source = |path| Source { text_key: text_key.clone(), format, ..Source::new(path) };
    leave_on_interrupt(|| ())?;
    let corpus = CorpusConfig::new(corpus.into_iter().map(source).collect());
    let repair = repair.then(text_repair).transpose()?;
    let bar = indicatif::ProgressBar::new_spinner();
    let texts = documents(&corpus)?.map(|document| {
        let document = document?;
        bar.inc(1);
        bar.set_message(format!("{} documents", bar.position()));
        Ok::<_, DataError>(match repair {
            Some(repair) => repair(&document),
            None => document,
        })
    });
    let model = train_tokenizer(texts, vocab_size)?;
    bar.finish_and_clear();
    let written = atomic::write_file(&output, |file| file.write_all(&model));
    written.with_context(|| output.display().to_string())?;
    tell(format!("{}: {vocab_size} pieces", output.display()));
    Ok(())
}

/// Finds out before the work whether its fruit can be put there.
fn check_output(output: &Path, force: bool) -> Result<()> {
    let name = output.display();
    if output.is_dir() {
        bail!("{name} is a folder; give the file to write, such as {}", output.join("tokenizer.model").display());
    }
    if output.exists() && !force {
        bail!("{name} is there already; give another name, or --force to write over it");
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("{name}: the folder {} does not exist", folder.display());
    }
    // A file without a name: whatever happens, nothing is left of it.
    tempfile::tempfile_in(folder).map(drop).with_context(|| name.to_string())
}

fn text_or_stdin(text: Option<String>) -> Result<String> {
    text.map_or_else(read_stdin, Ok)
}

//! `openelm bench`: how fast a model runs, and how near that is to the machine's limits.

mod scratch;
mod table;

use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use clap::Args;
use openelm_bench::{BenchError, Options, Peer, Source, WeightFormat};
use openelm_formats::{FormatError, StoredModel};
use openelm_model::ModelConfig;

use super::{AdapterOptions, CacheOption, MemoryOptions, note_on_threads, refusal};
use crate::interrupt::leave_on_interrupt;
use crate::model::{BUILTIN, locate};
use crate::tell;
use scratch::Scratch;

/// Measure speed, the machine's limits, and the share of them that a model reaches.
#[derive(Args)]
pub struct Arguments {
    /// A model [default: the one built in]
    #[arg(default_value = BUILTIN, hide_default_value = true, conflicts_with = "config")]
    model: PathBuf,
    /// Measure random weights of this size instead: openelm-270m, openelm-450m, openelm-1.1b, openelm-3b, or a rival such
    /// as smollm2-135m, tinyllama-1.1b, qwen2.5-0.5b, olmo-1b or olmo-2-1b
    #[arg(long, value_name = "NAME")]
    config: Option<String>,
    /// Weight formats, with commas: f32, f16, bf16, q8_0, q4_0, q4_k, …, mlx4, mlx8, … [default: as stored; q4_0 with --config]
    #[arg(long, value_name = "FORMATS", value_delimiter = ',')]
    quant: Vec<WeightFormat>,
    /// Numbers of threads, with commas [default: one per physical core]
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Vec<u16>,
    /// Lengths of prompts, with commas
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "32,128,512,2048", value_parser = clap::value_parser!(u32).range(1..))]
    prompts: Vec<u32>,
    /// Tokens to generate
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Tokens in the cache when decoding is measured again [default: what the model's context leaves]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    fill: Option<u32>,
    /// Numbers of sequences to decode together, with commas
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    sequences: Vec<u16>,
    /// How keys and values are stored
    #[arg(long, value_enum, default_value_t = CacheOption::F32)]
    cache: CacheOption,
    /// Rounds of each measurement, whose median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Path of llama.cpp's llama-bench, which takes its turn after each of ours
    #[arg(long, value_name = "PROGRAM", conflicts_with = "adapter")]
    vs: Option<PathBuf>,
    #[command(flatten)]
    adapter: AdapterOptions,
    #[command(flatten)]
    memory: MemoryOptions,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let peer = arguments.vs.as_deref().map(Peer::new).transpose()?;
    let sources = sources(&arguments)?;
    let config = sources.first().map(Source::size).transpose()?.map(|(config, _)| config);
    let adapters = match config.filter(|_| !arguments.adapter.is_empty()) {
        Some(config) => arguments.adapter.open(&config)?,
        None => Vec::new(),
    };
    let scratch = Scratch::new(&std::env::temp_dir()).context("a folder for temporary files")?;
    let interrupted = remove_on_interrupt(scratch.path())?;
    arguments.threads.iter().copied().for_each(note_on_threads);
    let wide = |numbers: &[u32]| numbers.iter().map(|&n| n as usize).collect();
    let options = Options {
        threads: match &arguments.threads[..] {
            [] => vec![0],
            counts => counts.iter().map(|&count| count.into()).collect(),
        },
        prompts: wide(&arguments.prompts),
        tokens: arguments.tokens as usize,
        sequences: arguments.sequences.iter().copied().map(usize::from).collect(),
        fill: arguments.fill.map(|n| n as usize),
        cache: arguments.cache.into(),
        rounds: arguments.rounds.into(),
        scratch: scratch.path().to_owned(),
        ignore_memory: arguments.memory.ignore_memory,
    };
    let report = openelm_bench::run(&sources, &options, &adapters, peer.as_ref(), &mut |what| tell(what));
    while interrupted.load(Ordering::Relaxed) {
        // What was measured lost its files: the program is about to end.
        std::thread::park();
    }
    let report = report.map_err(|error| match error {
        BenchError::Memory { .. } => refusal(&error),
        _ => error.into(),
    })?;
    let text = if arguments.json { serde_json::to_string_pretty(&report)? + "\n" } else { table::render(&report) };
    Ok(stdout().write_all(text.as_bytes())?)
}

fn sources(arguments: &Arguments) -> Result<Vec<Source<'_>>> {
    let formats = &arguments.quant;
    if let Some(name) = &arguments.config {
        let config = ModelConfig::by_name(name)?;
        let formats =
            if formats.is_empty() { vec!["q4_0".parse().map_err(anyhow::Error::msg)?] } else { formats.clone() };
        return Ok(formats.into_iter().map(|format| Source::Random(config.clone(), format)).collect());
    }
    let path = locate(&arguments.model)?;
    let opener = || -> Box<dyn Fn() -> Result<StoredModel, FormatError>> {
        let path = path.clone();
        Box::new(move || openelm::stored(&path, None))
    };
    if formats.is_empty() {
        return Ok(vec![Source::Stored(opener())]);
    }
    Ok(formats.iter().map(|&format| Source::Encoded(opener(), format)).collect())
}

/// Temporary models are large: Ctrl-C takes them away too. Raises the flag before.
fn remove_on_interrupt(scratch: &Path) -> Result<Arc<AtomicBool>> {
    let (scratch, flag) = (scratch.to_owned(), Arc::new(AtomicBool::new(false)));
    let raised = flag.clone();
    leave_on_interrupt(move || {
        raised.store(true, Ordering::Relaxed);
        // What is being written meanwhile may appear between the last look and the end of the folder.
        for _ in 0..100 {
            let _ = std::fs::remove_dir_all(&scratch);
            if !scratch.exists() {
                break;
            }
        }
    })?;
    Ok(flag)
}

//! One module per command.

pub mod average;
pub mod bench;
pub mod bundle;
pub mod chat;
pub mod compare;
pub mod convert;
pub mod eval;
pub mod examples;
pub mod fuse;
pub mod generate;
pub mod inspect;
pub mod logits;
pub mod manual;
pub mod perplexity;
pub mod plan;
pub mod pretrain;
#[cfg(feature = "hub")]
pub mod pull;
mod running;
mod sampling;
pub mod tokenizer;
pub mod train_log;
mod training;
pub mod tune;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread::available_parallelism;

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use openelm_formats::{FormatError, StoredModel};
use openelm_model::kernels::Threads;
use openelm_model::{Adapter, CacheType, DType, Footprint, Model, ModelConfig, Precision, available_memory};

use crate::model::locate;

use crate::tell;

/// How many threads a command uses.
#[derive(Args)]
pub struct ThreadOptions {
    /// Threads to use [default: one per physical core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl ThreadOptions {
    pub fn threads(&self) -> Threads {
        self.threads.into_iter().for_each(note_on_threads);
        Threads::new(self.threads.map_or(0, usize::from))
    }
}

/// Says so if `threads` are more than the machine can run at once.
pub fn note_on_threads(threads: u16) {
    if let Ok(cores) = available_parallelism()
        && usize::from(threads) > cores.get()
    {
        tell(format!("note: this machine runs {cores} threads at once; {threads} do not make it faster"));
    }
}

/// How a command computes with quantised weights.
#[derive(Args)]
pub struct ArithmeticOptions {
    /// Widen quantised weights to f32 instead of rounding activations to 8 bits: slower, and takes the memory of f32 weights
    #[arg(long)]
    pub exact: bool,
}

impl ArithmeticOptions {
    /// Bytes that the weights of `stored` take in memory.
    pub fn weight_bytes(&self, stored: &StoredModel) -> usize {
        if self.exact { stored.config.weight_bytes(Precision::F32) } else { stored.size() }
    }

    /// The model, ready to run.
    pub fn load(&self, stored: StoredModel, threads: &Threads) -> Result<Model, FormatError> {
        if self.exact { Ok(stored.into_model()?.widened()) } else { stored.into_packed_model(threads) }
    }
}

/// The adapters that a command runs a model with.
#[derive(Args)]
pub struct AdapterOptions {
    /// An adapter (LoRA, DoRA): a folder of PEFT's or mlx-lm's, a GGUF file or a file of CoreNet's, or the name it was pulled by; of several, the sum of
    /// what they change, each times its weight
    #[arg(long, value_name = "ADAPTER[=WEIGHT]")]
    adapter: Vec<AdapterArgument>,
}

/// An adapter, and what it is multiplied by.
#[derive(Clone)]
pub struct AdapterArgument {
    path: PathBuf,
    weight: f32,
}

impl FromStr for AdapterArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once('=').filter(|_| !Path::new(text).exists()) {
            None => Ok(Self { path: text.into(), weight: 1.0 }),
            Some((path, weight)) => match weight.parse() {
                Ok(weight) if f32::is_finite(weight) => Ok(Self { path: path.into(), weight }),
                _ => Err(format!("{weight:?} is not a weight; write ADAPTER=0.5")),
            },
        }
    }
}

impl AdapterOptions {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.adapter.is_empty()
    }

    /// The adapters for a model of the geometry `config`, with their weights.
    pub fn open(&self, config: &ModelConfig) -> Result<Vec<(Adapter, f32)>> {
        open_adapters(&self.adapter, config)
    }
}

/// `adapters` for a model of the geometry `config`, with their weights.
fn open_adapters(adapters: &[AdapterArgument], config: &ModelConfig) -> Result<Vec<(Adapter, f32)>> {
    let open = |AdapterArgument { path, weight }: &AdapterArgument| {
        let adapter = openelm_formats::adapter::open(&locate(path)?, config)?;
        adapter.notes.iter().for_each(tell);
        Ok((adapter, *weight))
    };
    adapters.iter().map(open).collect()
}

/// Whether a command looks at memory before it begins.
#[derive(Args)]
pub struct MemoryOptions {
    /// Begin even if there seems to be too little memory
    #[arg(long)]
    pub ignore_memory: bool,
}

impl MemoryOptions {
    /// Refuses a model of `weights` bytes and a sequence of `tokens` tokens, stored as `cache`, that the machine cannot hold.
    pub fn check(&self, config: &ModelConfig, weights: usize, tokens: usize, cache: CacheType) -> Result<()> {
        match available_memory().filter(|_| !self.ignore_memory) {
            Some(available) => Footprint::new(config, weights, tokens, cache).check(available).map_err(|e| refusal(&e)),
            None => Ok(()),
        }
    }
}

/// Too little memory, with the way round the check.
fn refusal(error: &dyn std::error::Error) -> anyhow::Error {
    anyhow!("{error} (--ignore-memory begins all the same)")
}

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum CacheOption {
    F32,
    F16,
    Int8,
}

impl From<CacheOption> for CacheType {
    fn from(option: CacheOption) -> Self {
        match option {
            CacheOption::F32 => Self::F32,
            CacheOption::F16 => Self::F16,
            CacheOption::Int8 => Self::Int8,
        }
    }
}

/// The floats that weights are written in.
#[derive(Clone, Copy, ValueEnum)]
pub enum DTypeArgument {
    F32,
    F16,
    Bf16,
}

impl From<DTypeArgument> for DType {
    fn from(dtype: DTypeArgument) -> Self {
        match dtype {
            DTypeArgument::F32 => DType::F32,
            DTypeArgument::F16 => DType::F16,
            DTypeArgument::Bf16 => DType::BF16,
        }
    }
}

/// A path as text, which JSON asks for: what is not UTF-8 in it is replaced.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The encodings of a model's tensors, the one with most elements first: `Q4_0 x 96, Q6_K x 1`.
pub fn encodings(model: &StoredModel) -> String {
    let mut found = model.encodings();
    found.sort_by_key(|(.., elements)| std::cmp::Reverse(*elements));
    let parts: Vec<String> = found.iter().map(|(encoding, tensors, _)| format!("{encoding} x {tensors}")).collect();
    parts.join(", ")
}

/// Ids separated by commas or white space, in brackets or not.
pub fn parse_ids(text: &str) -> Result<Vec<u32>> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let parts = inner.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().with_context(|| format!("{part:?} is not a token id"))).collect()
}

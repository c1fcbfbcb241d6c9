//! One module per command.

pub mod average;
pub mod bench;
pub mod generate;
pub mod logits;
pub mod plan;
pub mod pretrain;
#[cfg(feature = "hub")]
pub mod pull;
pub mod tokenizer;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use openelm::kernels::Threads;
use openelm::{Footprint, ModelConfig, available_memory};

/// How many threads a command uses.
#[derive(Args)]
pub struct ThreadOptions {
    /// Threads to use [default: one per physical core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl ThreadOptions {
    pub fn threads(&self) -> Threads {
        Threads::new(self.threads.map_or(0, usize::from))
    }
}

/// Whether a command looks at memory before it begins.
#[derive(Args)]
pub struct MemoryOptions {
    /// Begin even if there seems to be too little memory
    #[arg(long)]
    pub ignore_memory: bool,
}

impl MemoryOptions {
    /// Refuses a model of `weights` bytes and a sequence of `tokens` tokens that the machine cannot hold.
    pub fn check(&self, config: &ModelConfig, weights: usize, tokens: usize) -> Result<()> {
        match available_memory().filter(|_| !self.ignore_memory) {
            Some(available) => Footprint::new(config, weights, tokens).check(available).map_err(|e| refusal(&e)),
            None => Ok(()),
        }
    }
}

/// Too little memory, with the way round the check.
fn refusal(error: &dyn std::error::Error) -> anyhow::Error {
    anyhow!("{error} (--ignore-memory begins all the same)")
}

/// Ids separated by commas or white space, in brackets or not.
pub fn parse_ids(text: &str) -> Result<Vec<u32>> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let parts = inner.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().with_context(|| format!("{part:?} is not a token id"))).collect()
}

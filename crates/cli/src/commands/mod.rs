//! One module per command.

pub mod average;
pub mod pretrain;
pub mod tokenizer;

use clap::Args;
use openelm::kernels::Threads;

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

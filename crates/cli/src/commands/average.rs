//! `openelm average`: the mean of several checkpoints.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use openelm::DType;

/// Average the weights of several checkpoints of one model.
#[derive(Args)]
pub struct Arguments {
    /// Folders with a model each
    #[arg(required = true, value_name = "CHECKPOINT")]
    checkpoints: Vec<PathBuf>,
    /// New folder for the mean
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// Type of the numbers written [default: that of the first checkpoint]
    #[arg(long)]
    dtype: Option<DTypeArgument>,
}

#[derive(Clone, Copy, ValueEnum)]
enum DTypeArgument {
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

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { checkpoints, output, dtype } = arguments;
    openelm_train::average(&checkpoints, &output, dtype.map(DType::from))?;
    let count = checkpoints.len();
    eprintln!("{}: the mean of {count} checkpoint{}", output.display(), if count == 1 { "" } else { "s" });
    Ok(())
}

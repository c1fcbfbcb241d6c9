//! `openelm average`: the mean of several checkpoints.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use openelm_model::DType;

use super::DTypeArgument;
use crate::model::open;
use crate::tell;

/// Average the weights of several checkpoints of one model.
#[derive(Args)]
pub struct Arguments {
    /// Models of any format, folders or files, or "builtin"
    #[arg(required = true, value_name = "CHECKPOINT")]
    checkpoints: Vec<PathBuf>,
    /// New folder for the mean
    #[arg(long, short, value_name = "FOLDER")]
    output: PathBuf,
    /// Type of the numbers written [default: that of the first checkpoint]
    #[arg(long)]
    dtype: Option<DTypeArgument>,
}

pub fn run(arguments: Arguments) -> Result<()> {
    let Arguments { checkpoints, output, dtype } = arguments;
    let models = checkpoints.iter().map(|checkpoint| open(checkpoint, None)).collect::<Result<Vec<_>>>()?;
    openelm_train::average(&models, &output, dtype.map(DType::from))?;
    let count = checkpoints.len();
    tell(format!("{}: the mean of {count} checkpoint{}", output.display(), if count == 1 { "" } else { "s" }));
    Ok(())
}

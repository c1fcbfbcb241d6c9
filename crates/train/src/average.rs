//! The mean of several checkpoints: how the released OpenELM weights were made (CoreNet's `average_ckpts`).

use std::path::{Path, PathBuf};

use openelm_formats::huggingface::{self, WriteOptions};
use openelm_formats::{FormatError, StoredModel, atomic};
use openelm_model::kernels::Threads;
use openelm_model::{DType, Tensor, TensorSpec};

/// Checkpoints that have no mean.
#[derive(Debug, thiserror::Error)]
pub enum AverageError {
    /// Nothing to average.
    #[error("there is no checkpoint to average; name at least one")]
    None,
    /// A model of another shape.
    #[error("{} is another model than {}; only checkpoints of one model can be averaged", other.display(), first.display())]
    Different {
        /// The first model.
        first: PathBuf,
        /// The one that differs.
        other: PathBuf,
    },
    /// A model cannot be read or written.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Writes the mean of `models` to the new folder `output`, with the first one's configuration and tokenizer. Values are added
/// in `f64` and rounded at the end, to `dtype` or to the first model's. Memory holds one tensor at a time.
///
/// # Errors
/// If a model cannot be read, they are not of one shape, or `output` exists or cannot be written.
pub fn average(models: &[StoredModel], output: &Path, dtype: Option<DType>) -> Result<(), AverageError> {
    let first = models.first().ok_or(AverageError::None)?;
    if let Some(other) = models.iter().find(|model| model.config != first.config) {
        return Err(AverageError::Different { first: first.path.clone(), other: other.path.clone() });
    }
    if output.exists() {
        return Err(FormatError::Exists { path: output.to_owned() }.into());
    }
    let dtype = dtype.unwrap_or(first.natural_dtype());
    let mean = |spec: &TensorSpec| -> Result<Tensor, FormatError> {
        let mut sums = vec![0.0f64; spec.len()];
        for model in models {
            let values = model.tensor(&spec.name)?.to_f32();
            sums.iter_mut().zip(values.iter()).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let count = models.len() as f64;
        let values = sums.into_iter().map(|sum| (sum / count) as f32).collect();
        Ok(Tensor::from_f32(spec.shape.clone(), values)?)
    };
    if let Some(parent) = output.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(FormatError::io(parent))?;
    }
    let fill = |folder: &Path| {
        let options = WriteOptions { dtype, shard_bytes: 0 };
        huggingface::write_like(folder, first, &mean, options, &Threads::single())
    };
    let fill = |folder: &Path| fill(folder).map_err(|e: FormatError| e.renamed(folder, output));
    Ok(atomic::write_folder(output, fill, |e| FormatError::io(output)(e))?)
}

//! Adapters on disk: LoRA, rsLoRA and DoRA, as PEFT, CoreNet, mlx-lm and llama.cpp keep them.
//!
//! ```text
//! adapter_config.json, adapter_model.safetensors    (peft)             \
//! a .pt file beside a YAML with model.lora.config   (corenet)           \  Adapter: A, B, magnitude by CoreNet's names of
//! adapter_config.json, adapters.safetensors         (mlx)               /  modules
//! a .gguf file of the type adapter, LoRA only       (gguf::adapter)    /
//! ```
//!
//! All have the same tensors under other names, those of joined matrices part by part (`members`); what a configuration says of
//! kinds of modules (ranks, alphas, regular expressions) is worked out for each module on reading and put together again on writing.
//!
//! ```no_run
//! use std::path::Path;
//! use openelm_formats::{adapter, huggingface};
//!
//! let model = huggingface::read(Path::new("OpenELM-270M"))?;
//! let tuned = adapter::corenet::read(Path::new("openelm_lora_270M.pt"), &model.config)?;
//! adapter::peft::write(Path::new("lora-270m"), &tuned)?;
//! # Ok::<(), openelm_formats::FormatError>(())
//! ```

#[cfg(feature = "corenet")]
pub mod corenet;
#[cfg(feature = "corenet")]
mod corenet_config;
mod cover;
mod members;
pub mod mlx;
mod parts;
pub mod peft;
mod peft_config;

use std::path::Path;

use openelm_model::{Adapter, ModelConfig};

use crate::{FormatError, gguf};
pub(crate) use members::Member;
pub(crate) use parts::{Announced, Layout, Leaf, Settings, assemble, leaves};

/// Rows that CoreNet pads LLaMA's 32000 pieces to.
#[cfg(feature = "corenet")]
const PADDED: usize = 32_128;
#[cfg(feature = "corenet")]
const PIECES: usize = 32_000;

/// The file of the tensors of an adapter of CoreNet's.
const CORENET_WEIGHTS: &str = "adapter.pt";

/// Whether there is an adapter in `folder`, as this library writes them.
pub fn is_in(folder: &Path) -> bool {
    folder.join(peft::CONFIG).exists() || folder.join(CORENET_WEIGHTS).exists()
}

/// Reads the adapter at `path`, which must fit `model`: a folder of PEFT's or mlx-lm's, a GGUF file, or what [`corenet::read`]
/// takes. One of CoreNet's that was trained with a padded vocabulary is cut to the model's.
///
/// # Errors
/// See [`peft::read`], [`mlx::read`], [`gguf::adapter::read`] and [`corenet::read`].
pub fn open(path: &Path, model: &ModelConfig) -> Result<Adapter, FormatError> {
    if path.join(mlx::WEIGHTS).exists() {
        return mlx::read(path, model);
    }
    if path.extension().is_some_and(|extension| extension == "gguf") {
        return gguf::adapter::read(path, model);
    }
    if path.join(peft::CONFIG).exists() {
        return peft::read(path, model);
    }
    of_corenet(path, model)
}

#[cfg(not(feature = "corenet"))]
fn of_corenet(path: &Path, _model: &ModelConfig) -> Result<Adapter, FormatError> {
    Err(FormatError::NoModel { path: path.to_owned(), missing: peft::CONFIG.to_owned() })
}

#[cfg(feature = "corenet")]
fn of_corenet(path: &Path, model: &ModelConfig) -> Result<Adapter, FormatError> {
    match corenet::read(path, model) {
        Err(error @ FormatError::Tensor { .. }) if model.vocab_size == PIECES => {
            let padded = ModelConfig { vocab_size: PADDED, ..model.clone() };
            let Ok(mut adapter) = corenet::read(path, &padded) else { return Err(error) };
            adapter.trim_vocabulary(PIECES)?;
            Ok(adapter)
        }
        outcome => outcome,
    }
}

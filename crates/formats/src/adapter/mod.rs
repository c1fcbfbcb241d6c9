//! Adapters on disk: LoRA, rsLoRA and DoRA, as PEFT and as CoreNet keep them.
//!
//! ```text
//! adapter_config.json, adapter_model.safetensors    (peft)      \
//!                                                                 Adapter: A, B, magnitude by CoreNet's names of modules
//! a .pt file beside a YAML with model.lora.config   (corenet)   /
//! ```
//!
//! Both have the same tensors under other names; what a configuration says of kinds of modules (ranks, alphas, regular
//! expressions) is worked out for each module on reading and put together again on writing.
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

pub mod corenet;
mod corenet_config;
mod cover;
mod parts;
pub mod peft;
mod peft_config;

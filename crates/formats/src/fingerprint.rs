//! What tells one model from all others.

use std::fs::File;
use std::io;

use openelm_model::{Adapter, DType};
use sha2::{Digest, Sha256};

use crate::{FormatError, StoredModel, huggingface};

/// SHA-256, in hexadecimal, of a model's geometry and of all bytes of its weights' files; of one that is in no file, of its tensors.
///
/// # Errors
/// If a file cannot be read.
pub fn fingerprint(model: &StoredModel) -> Result<String, FormatError> {
    let mut hash = Sha256::new();
    hash.update(huggingface::config_to_json(&model.config, DType::F32).to_string());
    for path in &model.files {
        let mut file = File::open(path).map_err(FormatError::io(path))?;
        io::copy(&mut file, &mut hash).map_err(FormatError::io(path))?;
    }
    if model.files.is_empty() {
        for spec in model.specs() {
            hash.update(model.tensor(&spec.name)?.bytes());
        }
    }
    Ok(hexadecimal(&hash.finalize()))
}

/// The same of an adapter: of its modules, whichever format they came in.
pub fn fingerprint_of_adapter(adapter: &Adapter) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{:?}", adapter.options.rs_lora));
    for (target, module) in adapter.modules() {
        hash.update(&target.name);
        hash.update(module.alpha.to_le_bytes());
        for tensor in [Some(&module.a), Some(&module.b), module.magnitude.as_ref()].into_iter().flatten() {
            tensor.to_f32().iter().for_each(|x| hash.update(x.to_le_bytes()));
        }
    }
    hexadecimal(&hash.finalize())
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

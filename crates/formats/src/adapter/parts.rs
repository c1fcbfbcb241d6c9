//! Modules put together from the tensors of a file, whatever the file's names for them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use bytes::Bytes;
use openelm_model::{AdapterModule, DType, Part, Target, Tensor};

use crate::FormatError;

/// A tensor as a file announces it; its bytes are taken once its shape is known to be right.
pub(super) struct Announced<'a> {
    pub shape: Vec<usize>,
    /// `None` if it is not one of floats.
    pub dtype: Option<DType>,
    pub bytes: Box<dyn FnOnce() -> io::Result<Bytes> + 'a>,
}

/// What a configuration says of one module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Settings {
    pub rank: usize,
    pub alpha: f64,
    pub dora: bool,
}

/// Puts the adapters of `targets` together from `tensors`, all of which must belong to one. `name_of` gives a tensor's name in
/// the file `path`, `settings_of` what the configuration says of a module, if it speaks of it.
pub(super) fn assemble(
    mut tensors: HashMap<String, Announced<'_>>,
    targets: &[Target],
    path: &Path,
    name_of: &dyn Fn(&Target, Part) -> String,
    settings_of: &dyn Fn(&Target) -> Option<Settings>,
) -> Result<BTreeMap<String, AdapterModule>, FormatError> {
    let wrong =
        |name: &str, reason: String| FormatError::Tensor { name: name.to_owned(), path: path.to_owned(), reason };
    let mut modules = BTreeMap::new();
    for target in targets {
        let names = Part::ALL.map(|part| name_of(target, part));
        let Some(present) = names.iter().find(|name| tensors.contains_key(*name)) else { continue };
        let Some(settings) = settings_of(target) else {
            let reason = format!("the configuration does not adapt {}; does it belong to these weights?", target.name);
            return Err(wrong(present, reason));
        };
        let mut taken = Vec::new();
        for (part, name) in Part::ALL.into_iter().zip(&names) {
            let expected = target.shape(part, settings.rank);
            let wanted = part != Part::Magnitude || (settings.dora && !target.embedding);
            let tensor = match tensors.remove(name) {
                Some(tensor) if wanted => tensor,
                None if !wanted => continue,
                Some(_) => return Err(wrong(name, "a magnitude is part of DoRA on a linear module only".to_owned())),
                None => return Err(wrong(name, format!("it is missing; expected {expected:?}"))),
            };
            if tensor.shape != expected {
                return Err(wrong(name, format!("expected {expected:?}, found {:?}", tensor.shape)));
            }
            let Some(dtype) = tensor.dtype else {
                return Err(wrong(name, "its dtype cannot be read; F32, F16 and BF16 can".to_owned()));
            };
            let bytes = (tensor.bytes)().map_err(FormatError::io(path))?;
            let tensor = Tensor::new(dtype, expected, bytes).map_err(|e| wrong(name, e.to_string()))?;
            taken.push(tensor);
        }
        let mut taken = taken.into_iter();
        let (Some(a), Some(b)) = (taken.next(), taken.next()) else { unreachable!("A and B are wanted always") };
        let module = AdapterModule { alpha: settings.alpha, a, b, magnitude: taken.next() };
        modules.insert(target.name.clone(), module);
    }
    if let Some(name) = tensors.into_keys().min() {
        return Err(wrong(&name, "the model has no module with such a tensor in its adapter".to_owned()));
    }
    if modules.is_empty() {
        let reason = "it holds no adapter".to_owned();
        return Err(FormatError::Config { path: path.to_owned(), reason });
    }
    Ok(modules)
}

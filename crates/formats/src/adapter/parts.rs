//! Modules put together from the tensors of a file and taken apart again, whatever the file's names for them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use bytes::Bytes;
use openelm_kernels::MappedFile;
use openelm_model::{Adapter, AdapterModule, AdapterOptions, DType, Part, Target, Tensor};

use super::members::{Member, join, split};
use crate::{FormatError, shards};

/// A tensor as a file announces it; its bytes are taken once its shape is known to be right.
pub(crate) struct Announced<'a> {
    pub shape: Vec<usize>,
    /// `None` if it is not one of floats.
    pub dtype: Option<DType>,
    pub bytes: Box<dyn FnOnce() -> io::Result<Bytes> + 'a>,
}

/// What is in a configuration, and what is in the weights, which are mapped.
pub(super) fn read_both(config: &Path, weights: &Path) -> Result<(Vec<u8>, Bytes), FormatError> {
    let text = std::fs::read(config).map_err(FormatError::io(config))?;
    let map = MappedFile::open(weights).map_err(FormatError::io(weights))?;
    Ok((text, Bytes::from_owner(map)))
}

/// The tensors of a safetensors file; `path` is for messages.
pub(super) fn in_safetensors(bytes: Bytes, path: &Path) -> Result<HashMap<String, Announced<'static>>, FormatError> {
    let mut raw = HashMap::new();
    shards::add(&mut raw, bytes, path)?;
    let announced = raw.into_iter().map(|(name, tensor)| {
        let dtype = shards::float(tensor.dtype);
        (name, Announced { shape: tensor.shape, dtype, bytes: Box::new(move || Ok(tensor.bytes)) })
    });
    Ok(announced.collect())
}

/// What a configuration says of one module of a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Settings {
    pub rank: usize,
    pub alpha: f64,
    pub dora: bool,
}

/// How a format names and lays out the tensors of an adapter.
pub(crate) struct Layout<'a> {
    /// The modules that a target is in files.
    pub members: &'a dyn Fn(&Target) -> Vec<Member>,
    /// The name of a tensor of the module of that name.
    pub key: &'a dyn Fn(&Target, &str, Part) -> String,
    /// Whether files hold it with rows and columns exchanged.
    pub transposed: fn(&Target, Part) -> bool,
}

/// What a file has of one of its modules.
pub(crate) struct Leaf<'a> {
    pub target: &'a Target,
    /// The file's name of the module.
    pub name: String,
    pub module: AdapterModule,
}

impl Leaf<'_> {
    /// Its tensors, as the file holds them, by their names there.
    pub fn tensors(&self, layout: &Layout<'_>) -> Vec<(String, Tensor, DType)> {
        let of_part = |part: Part| {
            let tensor = self.module.part(part)?;
            let tensor = if (layout.transposed)(self.target, part) { transposed(tensor) } else { tensor.clone() };
            let dtype = tensor.encoding().dtype()?;
            Some(((layout.key)(self.target, &self.name, part), tensor, dtype))
        };
        Part::ALL.into_iter().filter_map(of_part).collect()
    }
}

/// The modules of `adapter` as files with this `layout` have them.
///
/// # Errors
/// If its tensors make no such modules.
pub(crate) fn leaves<'a>(adapter: &'a Adapter, layout: &Layout<'_>) -> Result<Vec<Leaf<'a>>, FormatError> {
    let mut leaves = Vec::new();
    for (target, module) in adapter.modules() {
        let members = (layout.members)(target);
        let modules = split(target, &members, module, &adapter.options);
        let modules = modules.map_err(|reason| FormatError::Inexpressible { reason })?;
        leaves.extend(
            members
                .into_iter()
                .zip(modules)
                .filter_map(|(member, module)| Some(Leaf { target, name: member.name, module: module? })),
        );
    }
    Ok(leaves)
}

/// Puts the adapters of `targets` together from `tensors` of the file `path`, all of which must belong to one. `settings_of` gives
/// what the configuration says of a module of the file, if it speaks of it; it is told the rank that A has, too.
pub(crate) fn assemble(
    mut tensors: HashMap<String, Announced<'_>>,
    targets: &[Target],
    path: &Path,
    layout: &Layout<'_>,
    options: &AdapterOptions,
    settings_of: &dyn Fn(&str, usize) -> Option<Settings>,
) -> Result<BTreeMap<String, AdapterModule>, FormatError> {
    let mut modules = BTreeMap::new();
    for target in targets {
        let members = (layout.members)(target);
        let parts = members.iter().map(|member| take(&mut tensors, target, member, path, layout, settings_of));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let joined = join(target, &members, parts, options);
        let joined = joined.map_err(|reason| FormatError::Config { path: path.to_owned(), reason })?;
        modules.extend(joined.map(|module| (target.name.clone(), module)));
    }
    if let Some(name) = tensors.into_keys().min() {
        let reason = "the model has no module with such a tensor in its adapter".to_owned();
        return Err(FormatError::Tensor { name, path: path.to_owned(), reason });
    }
    if modules.is_empty() {
        let reason = "it holds no adapter".to_owned();
        return Err(FormatError::Config { path: path.to_owned(), reason });
    }
    Ok(modules)
}

/// Takes the tensors of `member` out of `tensors`, if there are any.
fn take(
    tensors: &mut HashMap<String, Announced<'_>>,
    target: &Target,
    member: &Member,
    path: &Path,
    layout: &Layout<'_>,
    settings_of: &dyn Fn(&str, usize) -> Option<Settings>,
) -> Result<Option<AdapterModule>, FormatError> {
    let wrong =
        |name: &str, reason: String| FormatError::Tensor { name: name.to_owned(), path: path.to_owned(), reason };
    let names = Part::ALL.map(|part| (layout.key)(target, &member.name, part));
    let Some(present) = names.iter().find(|name| tensors.contains_key(*name)) else { return Ok(None) };
    let is_transposed = |part| (layout.transposed)(target, part);
    let announced = tensors.get(&names[0]).and_then(|a| a.shape.get(usize::from(is_transposed(Part::A)))).copied();
    let Some(settings) = settings_of(&member.name, announced.unwrap_or(0)) else {
        let reason = format!("the configuration does not adapt {}; does it belong to these weights?", member.name);
        return Err(wrong(present, reason));
    };
    let outputs = member.outputs.len();
    let mut taken = Vec::new();
    for (part, name) in Part::ALL.into_iter().zip(&names) {
        let mut expected = match part {
            Part::A => vec![settings.rank, target.inputs],
            Part::B => vec![outputs, settings.rank],
            Part::Magnitude => vec![outputs],
        };
        if is_transposed(part) {
            expected.reverse();
        }
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
        taken.push(if is_transposed(part) { transposed(&tensor) } else { tensor });
    }
    let mut taken = taken.into_iter();
    let (Some(a), Some(b)) = (taken.next(), taken.next()) else { unreachable!("A and B are wanted always") };
    Ok(Some(AdapterModule { alpha: settings.alpha, a, b, magnitude: taken.next() }))
}

/// A matrix of floats with rows and columns exchanged. A copy.
fn transposed(matrix: &Tensor) -> Tensor {
    let (&[rows, columns], Some(dtype)) = (matrix.shape(), matrix.encoding().dtype()) else {
        unreachable!("an adapter's factors are matrices of floats")
    };
    let size = dtype.size();
    let element = |(row, column): (usize, usize)| &matrix.bytes()[(row * columns + column) * size..][..size];
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| (row, column)));
    let bytes: Vec<u8> = places.flat_map(element).copied().collect();
    let transposed = Tensor::new(dtype, vec![columns, rows], bytes.into());
    transposed.unwrap_or_else(|_| unreachable!("it has as many bytes as before"))
}

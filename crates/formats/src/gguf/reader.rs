//! Reading a file: mapped, with tensors left where they are.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use openelm_kernels::MappedFile;
use openelm_model::{Encoding, Tensor, tensor_specs};

use super::names::{Names, names_of};
use super::parse::{TensorInfo, parse};
use super::{metadata, tokenizer, types};
use crate::FormatError;
use crate::stored::{Format, Source, StoredModel};
use crate::tokenizer::StoredTokenizer;

/// Reads the model in the file at `path`.
///
/// # Errors
/// See [`FormatError`].
pub fn read(path: &Path) -> Result<StoredModel, FormatError> {
    let map = MappedFile::open(path).map_err(FormatError::io(path))?;
    let model = from_bytes(Bytes::from_owner(map.clone()), path)?;
    Ok(StoredModel { maps: vec![map], ..model })
}

/// Reads a file in memory; `path` is for messages.
///
/// # Errors
/// See [`FormatError`].
pub fn from_bytes(bytes: Bytes, path: &Path) -> Result<StoredModel, FormatError> {
    let damaged = |reason: String| FormatError::Damaged { path: path.to_owned(), kind: "GGUF", reason };
    let header = parse(&bytes).map_err(damaged)?;
    let sizes = metadata::sizes(&header).map_err(damaged)?;
    let config = sizes.into_config().map_err(|source| FormatError::Geometry { path: path.to_owned(), source })?;
    let tokenizer = tokenizer::sentencepiece(&header).map_err(damaged)?;
    let mut infos: HashMap<String, TensorInfo> = HashMap::new();
    for info in header.tensors {
        if let Some(twice) = infos.insert(info.name.clone(), info) {
            return Err(damaged(format!("tensor {} is there twice", twice.name)));
        }
    }
    let mut take = |name: &str, shape: &[usize]| {
        let wrong = |reason: String| FormatError::Tensor { name: name.to_owned(), path: path.to_owned(), reason };
        let info = infos.remove(name).ok_or_else(|| wrong(format!("it is missing; expected {shape:?}")))?;
        if info.shape != shape {
            return Err(wrong(format!("expected {shape:?}, found {:?}", info.shape)));
        }
        Ok((tensor(&bytes, &info).map_err(wrong)?, info))
    };
    let mut sources = HashMap::new();
    for spec in tensor_specs(&config) {
        let source = match names_of(&spec.name) {
            Some(Names::One(name)) => Source::Tensor(take(&name, &spec.shape)?.0),
            Some(Names::Two(upper, lower)) => {
                let half = [spec.shape[0] / 2, spec.shape[1]];
                let (upper, lower) = (take(&upper, &half)?, take(&lower, &half)?);
                adjoining(&bytes, &spec.shape, &upper, &lower)
                    .map_or_else(|| Source::Stacked(upper.0, lower.0), Source::Tensor)
            }
            None => unreachable!("every tensor of a model has a name here"),
        };
        sources.insert(spec.name, source);
    }
    infos.retain(|name, _| !name.starts_with("rope_freqs"));
    if let Some(name) = infos.into_keys().min() {
        let reason = "the architecture openelm has no such tensor".to_owned();
        return Err(FormatError::Tensor { name, path: path.to_owned(), reason });
    }
    Ok(StoredModel {
        config,
        format: Format::Gguf,
        path: path.to_owned(),
        files: vec![path.to_owned()],
        tokenizer: tokenizer.map(|model| StoredTokenizer::SentencePiece(model.into())),
        notes: Vec::new(),
        config_json: None,
        maps: Vec::new(),
        sources,
    })
}

fn tensor(file: &Bytes, info: &TensorInfo) -> Result<Tensor, String> {
    let Some(encoding) = types::encoding_of(info.kind) else {
        return Err(format!("its type (number {} of ggml) cannot be read", info.kind));
    };
    let size = encoding.bytes_of(&info.shape).ok_or("its rows do not fill whole blocks")?;
    let end = info.offset.checked_add(size).filter(|&end| end <= file.len());
    let end = end.ok_or_else(|| format!("it reaches beyond the end of the file at byte {}", file.len()))?;
    wrap(encoding, info.shape.clone(), file.slice(info.offset..end))
}

fn wrap(encoding: Encoding, shape: Vec<usize>, bytes: Bytes) -> Result<Tensor, String> {
    let tensor = match encoding {
        Encoding::Blocks(format) => Tensor::blocks(format, shape, bytes),
        Encoding::Float(dtype) => Tensor::new(dtype, shape, bytes),
        Encoding::Affine(..) => return Err("GGUF has no affine groups".to_owned()),
    };
    tensor.map_err(|e| e.to_string())
}

/// Two tensors as one, without a copy, if the second begins in the file where the first ends and they are stored alike.
fn adjoining(
    file: &Bytes,
    shape: &[usize],
    (upper, above): &(Tensor, TensorInfo),
    (lower, below): &(Tensor, TensorInfo),
) -> Option<Tensor> {
    if upper.encoding() != lower.encoding() || above.offset + upper.size() != below.offset {
        return None;
    }
    let bytes = file.slice(above.offset..below.offset + lower.size());
    wrap(upper.encoding(), shape.to_vec(), bytes).ok()
}

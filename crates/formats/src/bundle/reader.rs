//! Reading: the weights are mapped and stay where they are.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openelm_model::kernels::{MappedFile, Packed};
use openelm_model::{Encoding, Tensor, TensorSpec, tensor_specs};

use super::manifest::{Manifest, TensorEntry, bytes_of, encoding_by_name};
use super::{LINE, MAGIC, MANIFEST, PAGE, VERSION, WEIGHTS};
use crate::stored::{Format, Source, StoredModel};
use crate::tokenizer::StoredTokenizer;
use crate::{FormatError, huggingface, inspect};

/// Reads the bundle in `folder`.
pub(crate) fn read(folder: &Path) -> Result<StoredModel, FormatError> {
    let manifest = Manifest::read(folder)?;
    let path = folder.join(MANIFEST);
    let config = huggingface::config_from_json(manifest.config.to_string().as_bytes(), &path)?;
    manifest.check_files(folder)?;
    let path = folder.join(WEIGHTS);
    let map = MappedFile::open(&path).map_err(FormatError::io(&path))?;
    let bytes = Bytes::from_owner(map.clone());
    check_beginning(&manifest, &bytes, &path)?;
    let mut entries: HashMap<&str, &TensorEntry> = HashMap::new();
    for entry in &manifest.tensors {
        entries.insert(&entry.name, entry);
    }
    let mut sources = HashMap::new();
    for spec in tensor_specs(&config) {
        let entry = entries.get(&spec.name[..]).ok_or_else(|| "there is none".to_owned());
        let found = entry.and_then(|entry| source(entry, &spec, &bytes));
        let wrong = |reason| FormatError::Tensor { name: spec.name.clone(), path: path.clone(), reason };
        let source = found.map_err(wrong)?;
        sources.insert(spec.name, source);
    }
    Ok(StoredModel {
        config,
        format: Format::Bundle,
        path: folder.to_owned(),
        files: vec![path],
        tokenizer: StoredTokenizer::beside(folder),
        notes: Vec::new(),
        config_json: Some(manifest.config),
        generation_config: huggingface::generation_config(folder)?,
        sources,
        maps: vec![map],
    })
}

/// Refuses weights that are another manifest's.
fn check_beginning(manifest: &Manifest, bytes: &[u8], path: &Path) -> Result<(), FormatError> {
    let damaged = |reason: String| FormatError::Damaged { path: path.to_owned(), kind: "bundle", reason };
    let Some((magic, rest)) = bytes.split_at_checked(MAGIC.len()).filter(|_| bytes.len() as u64 >= PAGE) else {
        return Err(damaged(format!("it has {} bytes", bytes.len())));
    };
    if magic != MAGIC {
        return Err(damaged("it does not begin as weights do".to_owned()));
    }
    let (version, rest) = rest.split_at(4);
    if version != VERSION.to_le_bytes() {
        return Err(damaged(format!("its version is not {VERSION}")));
    }
    if rest[..32] != manifest.digest() {
        return Err(damaged(format!(
            "it is not the weights that {MANIFEST} beside it describes; copy the bundle again"
        )));
    }
    Ok(())
}

fn source(entry: &TensorEntry, spec: &TensorSpec, bytes: &Bytes) -> Result<Source, String> {
    if entry.shape != spec.shape {
        return Err(format!("expected {:?}, found {:?}", spec.shape, entry.shape));
    }
    let encoding = encoding_by_name(&entry.encoding).ok_or_else(|| format!("{:?} is no encoding", entry.encoding))?;
    let end = entry.offset.checked_add(entry.bytes).filter(|&end| end <= bytes.len() as u64);
    let (Some(end), true) = (end, entry.offset.is_multiple_of(LINE)) else {
        return Err(format!("{} bytes at {} are not within the weights", entry.bytes, entry.offset));
    };
    if bytes_of(encoding, &spec.shape) != Some(entry.bytes) {
        return Err(format!("{:?} of {encoding} are not {} bytes", spec.shape, entry.bytes));
    }
    let bytes = bytes.slice(entry.offset as usize..end as usize);
    match (encoding, &spec.shape[..]) {
        (Encoding::Blocks(format), &[rows, columns]) => {
            let packed = Packed::from_panels(format, rows, columns, bytes).ok_or("it makes no panels")?;
            Ok(Source::Panels(format, Arc::new(packed)))
        }
        (Encoding::Float(dtype), _) => {
            Tensor::new(dtype, spec.shape.clone(), bytes).map(Source::Tensor).map_err(|e| e.to_string())
        }
        _ => Err(format!("{encoding} are not for {:?}", spec.shape)),
    }
}

/// Reads all of the bundle in `folder` and compares it with its hashes.
///
/// # Errors
/// If a file is not what the manifest says, or it is no bundle; the message names the file.
pub fn verify(folder: &Path) -> Result<(), FormatError> {
    read(folder)?;
    let path = folder.join(WEIGHTS);
    check_weights(folder, &inspect::stored_file(&path).map_err(FormatError::io(&path))?.sha256)
}

/// Refuses weights in `folder` whose hash, which is `found`, is not the manifest's.
pub(crate) fn check_weights(folder: &Path, found: &str) -> Result<(), FormatError> {
    let manifest = Manifest::read(folder)?;
    manifest.file(WEIGHTS).map_or(Ok(()), |entry| entry.check_hash(&folder.join(WEIGHTS), found))
}

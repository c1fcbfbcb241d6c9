//! Writing: one tensor at a time, each in the order of the kernels.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use openelm_model::kernels::{Packed, Threads};
use openelm_model::{DType, Encoding, ModelError, Tensor, TensorSpec};
use sha2::{Digest, Sha256};

use super::expected::Expected;
use super::manifest::{FileEntry, Manifest, TensorEntry, bytes_of};
use super::{BundleOptions, LINE, MAGIC, MANIFEST, PAGE, VERSION, WEIGHTS};
use crate::fingerprint::hexadecimal;
use crate::huggingface::updated_config;
use crate::{FormatError, StoredModel, encode, inspect, shards};

/// Writes `model` as a bundle into `folder`, which is empty.
pub(crate) fn write(
    model: &StoredModel,
    folder: &Path,
    options: BundleOptions,
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    threads: &Threads,
) -> Result<(), FormatError> {
    let specs = model.specs();
    let encodings: Vec<Encoding> = specs.iter().map(|spec| options.weights.encoding(model, spec)).collect();
    let entries = lay_out(&specs, &encodings)?;
    let json = model.config_to_carry(DType::F32);
    let config = updated_config(&model.config, Some(&json), DType::F32);
    let mut manifest = Manifest::new(options.purpose.name(), &model.name(), config, entries);
    model.carry_along(folder)?;
    let sha256 = write_weights(&manifest, &specs, &encodings, folder, tensor, threads)?;
    manifest.files = files(folder, &sha256)?;
    let weights: u64 = manifest.tensors.iter().map(|entry| entry.bytes).sum();
    manifest.expected = Expected::new(&model.config, weights, options.purpose).to_json();
    // The manifest comes last: without it the folder is no bundle.
    let path = folder.join(MANIFEST);
    let json = serde_json::to_value(&manifest).map_err(|e| FormatError::io(&path)(e.into()))?;
    shards::write_json(&path, &json)
}

/// Where each tensor lies.
fn lay_out(specs: &[TensorSpec], encodings: &[Encoding]) -> Result<Vec<TensorEntry>, FormatError> {
    let layer = |spec: &TensorSpec| {
        spec.name.strip_prefix("layers.").and_then(|rest| rest.split('.').next().map(str::to_owned))
    };
    let mut end = PAGE;
    let mut before = None;
    let mut entries = Vec::new();
    for (spec, &encoding) in specs.iter().zip(encodings) {
        let Some(bytes) = bytes_of(encoding, &spec.shape) else {
            let reason = format!("tensor {} has {:?} elements, which {encoding} cannot hold", spec.name, spec.shape);
            return Err(FormatError::Inexpressible { reason });
        };
        let here = Some(layer(spec));
        let offset = end.next_multiple_of(if before == here { LINE } else { PAGE });
        (before, end) = (here, offset + bytes);
        let (name, shape) = (spec.name.clone(), spec.shape.clone());
        entries.push(TensorEntry { name, encoding: encoding.to_string(), shape, offset, bytes });
    }
    Ok(entries)
}

/// Writes the weights and gives their hash.
fn write_weights(
    manifest: &Manifest,
    specs: &[TensorSpec],
    encodings: &[Encoding],
    folder: &Path,
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    threads: &Threads,
) -> Result<String, FormatError> {
    let path = folder.join(WEIGHTS);
    let failed = |e: io::Error| FormatError::io(&path)(e);
    let file = File::create_new(&path).map_err(failed)?;
    let mut out = Hashing { writer: BufWriter::new(&file), hash: Sha256::new(), written: 0 };
    out.put(MAGIC).and_then(|()| out.put(&VERSION.to_le_bytes())).map_err(failed)?;
    out.put(&manifest.digest()).map_err(failed)?;
    for ((spec, &encoding), entry) in specs.iter().zip(encodings).zip(&manifest.tensors) {
        let encoded = encode(&tensor(spec)?, encoding, &spec.name, threads)?;
        out.fill_up_to(entry.offset).map_err(failed)?;
        match (encoding, &spec.shape[..]) {
            (Encoding::Blocks(_), &[_, columns]) => {
                let packed = Packed::new(threads, encoded.matrix(), columns)
                    .map_err(|source| ModelError::Memory { name: spec.name.clone(), source })?;
                out.put(packed.as_ref().map_or(&[], Packed::panels)).map_err(failed)?;
            }
            _ => out.put(encoded.bytes()).map_err(failed)?,
        }
    }
    out.fill_up_to(out.written.next_multiple_of(PAGE)).map_err(failed)?;
    let Hashing { mut writer, hash, .. } = out;
    writer.flush().and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(hexadecimal(&hash.finalize()))
}

/// A file in the making, hashed on the way.
struct Hashing<W> {
    writer: W,
    hash: Sha256,
    written: u64,
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        self.writer.write_all(bytes)
    }

    /// Zeros up to `offset`, which is less than a page ahead.
    fn fill_up_to(&mut self, offset: u64) -> io::Result<()> {
        self.put(&[0; PAGE as usize][..(offset - self.written) as usize])
    }
}

/// All files of `folder`; the weights, whose hash is known, are not read again.
fn files(folder: &Path, weights: &str) -> Result<Vec<FileEntry>, FormatError> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(FormatError::io(folder))? {
        let entry = entry.map_err(FormatError::io(folder))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let bytes = entry.metadata().map_err(FormatError::io(&path))?.len();
        let sha256 = match &name[..] {
            WEIGHTS => weights.to_owned(),
            _ => inspect::stored_file(&path).map_err(FormatError::io(&path))?.sha256,
        };
        files.push(FileEntry { name, bytes, sha256 });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use openelm_model::ModelConfig;
    use openelm_model::kernels::quant::BlockFormat;
    use openelm_model::tensor_specs;

    use super::*;

    #[test]
    fn layers_begin_on_pages_and_tensors_on_cache_lines() {
        let specs = tensor_specs(&ModelConfig::openelm_270m());
        let encoding = |spec: &TensorSpec| match spec.shape[..] {
            [_, _] => Encoding::Blocks(BlockFormat::Q4_0),
            _ => Encoding::Float(DType::F32),
        };
        let encodings: Vec<Encoding> = specs.iter().map(encoding).collect();
        let entries = lay_out(&specs, &encodings).unwrap();
        assert_eq!(entries[0].offset, PAGE);
        for pair in entries.windows(2) {
            assert!(
                pair[1].offset >= pair[0].offset + pair[0].bytes && pair[1].offset.is_multiple_of(LINE),
                "{pair:?}"
            );
            let layer = |entry: &TensorEntry| entry.name.split('.').nth(1).map(str::to_owned);
            let begins = layer(&pair[0]) != layer(&pair[1]);
            assert!(!begins || pair[1].offset.is_multiple_of(PAGE), "{pair:?}");
        }
        let padded = entries.last().map(|last| last.offset + last.bytes).unwrap();
        let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        assert!(padded - bytes < 20 * PAGE, "{} bytes of padding", padded - bytes);
    }
}

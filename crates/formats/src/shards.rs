//! Safetensors files as a set: one or several shards with an index, read into named views and written tensor by tensor.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use openelm_kernels::MappedFile;
use openelm_model::DType;
use safetensors::{Dtype, SafeTensors, View};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::text::read as text_file;
use crate::{FormatError, atomic, lfs, parts};

/// A tensor as a safetensors file holds it.
#[derive(Debug, Clone)]
pub(crate) struct RawTensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Bytes,
    /// The file, for messages.
    pub path: PathBuf,
}

/// The float dtype of a safetensors dtype.
pub(crate) fn float(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// The safetensors dtype of a float dtype.
pub(crate) fn dtype_of(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
    }
}

/// A set of files, taken apart.
#[derive(Default)]
pub(crate) struct Shards {
    /// The tensors, by their names in the files.
    pub tensors: HashMap<String, RawTensor>,
    /// The value of `format` in the metadata of the first file that has one.
    pub format: Option<String>,
    /// The files, mapped.
    pub maps: Vec<MappedFile>,
}

/// Maps `files` and takes them apart.
pub(crate) fn read(files: &BTreeSet<PathBuf>) -> Result<Shards, FormatError> {
    let mut shards = Shards::default();
    for path in files {
        let map = MappedFile::open(path).map_err(FormatError::io(path))?;
        let found = add(&mut shards.tensors, Bytes::from_owner(map.clone()), path)?;
        shards.format = shards.format.or(found);
        shards.maps.push(map);
    }
    Ok(shards)
}

/// Adds the tensors of the file `bytes` and gives the `format` its metadata name.
pub(crate) fn add(
    tensors: &mut HashMap<String, RawTensor>,
    bytes: Bytes,
    path: &Path,
) -> Result<Option<String>, FormatError> {
    let damaged = |reason: String| FormatError::Damaged { path: path.to_owned(), kind: "safetensors", reason };
    if bytes.is_empty() {
        return Err(damaged("it is empty".to_owned()));
    }
    lfs::refuse_pointer(&bytes, path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
    for (name, view) in file.iter() {
        let (shape, bytes) = (view.shape().to_vec(), bytes.slice_ref(view.data()));
        let tensor = RawTensor { dtype: view.dtype(), shape, bytes, path: path.to_owned() };
        if tensors.insert(name.to_owned(), tensor).is_some() {
            let reason = "it is in another file too".to_owned();
            return Err(FormatError::Tensor { name: name.to_owned(), path: path.to_owned(), reason });
        }
    }
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(e.to_string()))?;
    Ok(header.metadata().as_ref().and_then(|metadata| metadata.get("format").cloned()))
}

/// The weights of a model: the file `named`, with the other parts if it is one of several; or else what [`files`] finds.
pub(crate) fn named_or_in(
    folder: &Path,
    stem: &str,
    named: Option<&Path>,
    notes: &mut Vec<String>,
) -> Result<BTreeSet<PathBuf>, FormatError> {
    match named.map(|file| (file, parts::beside(file))) {
        None => files(folder, stem, notes),
        Some((file, None)) => Ok(BTreeSet::from([file.to_owned()])),
        Some((_, Some(Ok(parts)))) => Ok(parts.into_iter().collect()),
        Some((_, Some(Err(missing)))) => {
            let missing = missing.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Err(FormatError::NoModel { path: folder.to_owned(), missing })
        }
    }
}

/// The file `STEM.safetensors` in `folder`, or the shards that `STEM.safetensors.index.json` names. As transformers does it,
/// the single file counts where both are there, unless the index names it.
fn files(folder: &Path, stem: &str, notes: &mut Vec<String>) -> Result<BTreeSet<PathBuf>, FormatError> {
    let single = folder.join(format!("{stem}.safetensors"));
    let index_path = folder.join(format!("{stem}.safetensors.index.json"));
    match (index_path.exists(), single.exists()) {
        (false, false) => {
            let missing = format!("{stem}.safetensors");
            Err(FormatError::NoModel { path: folder.to_owned(), missing })
        }
        (false, true) => Ok(BTreeSet::from([single])),
        (true, false) => indexed(folder, &index_path),
        (true, true) => match indexed(folder, &index_path) {
            Ok(files) if files.contains(&single) => Ok(files),
            _ => {
                let index = index_path.file_name().unwrap_or_default().to_string_lossy();
                notes.push(format!("{index} names other files than {stem}.safetensors, which was read: it may be old"));
                Ok(BTreeSet::from([single]))
            }
        },
    }
}

/// The shards that an index names.
fn indexed(folder: &Path, index_path: &Path) -> Result<BTreeSet<PathBuf>, FormatError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = text_file(index_path)?;
    let wrong = |reason: String| FormatError::Config { path: index_path.to_owned(), reason };
    let index: Index = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
    let mut files = BTreeSet::new();
    for file in index.weight_map.values() {
        // A shard lies beside its index: anything else could make us open a file of someone's choosing.
        if Path::new(file).file_name().is_none_or(|name| name != file.as_str()) {
            return Err(wrong(format!("names the shard {file:?}; shards lie in the folder of their index")));
        }
        let path = folder.join(file);
        if !path.exists() {
            return Err(FormatError::NoModel { path: folder.to_owned(), missing: file.clone() });
        }
        files.insert(path);
    }
    Ok(files)
}

/// A tensor to be written; its bytes are made when its turn comes.
pub(crate) struct Entry<'a> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Box<dyn Fn() -> Result<Bytes, FormatError> + 'a>,
}

impl Entry<'_> {
    fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// How a set of files is written.
pub(crate) struct ShardOptions<'a> {
    /// Name of the only file without its extension, and the beginning of the shards' names.
    pub stem: &'a str,
    /// The value of `format` in the metadata.
    pub format: Option<&'a str>,
    /// Largest file in bytes; 0 means a single file.
    pub shard_bytes: usize,
    /// The index's metadata if it is to be written for a single file too.
    pub index: Option<Value>,
}

/// Writes `entries` into `folder`, each file under a temporary name first.
pub(crate) fn write(folder: &Path, entries: Vec<Entry<'_>>, options: &ShardOptions<'_>) -> Result<(), FormatError> {
    let ShardOptions { stem, format, .. } = *options;
    let total: usize = entries.iter().map(Entry::size).sum();
    let shards = cut(entries, options.shard_bytes);
    let mut weight_map = BTreeMap::new();
    let count = shards.len();
    for (i, shard) in shards.into_iter().enumerate() {
        let file = match count {
            1 => format!("{stem}.safetensors"),
            _ => format!("{stem}-{:05}-of-{count:05}.safetensors", i + 1),
        };
        weight_map.extend(shard.iter().map(|entry| (entry.name.clone(), file.clone())));
        let metadata = format.map(|format| HashMap::from([("format".to_owned(), format.to_owned())]));
        write_file(&folder.join(&file), &shard, metadata)?;
    }
    if count > 1 || options.index.is_some() {
        let metadata = options.index.clone().unwrap_or_else(|| json!({ "total_size": total }));
        let index = json!({ "metadata": metadata, "weight_map": weight_map });
        write_json(&folder.join(format!("{stem}.safetensors.index.json")), &index)?;
    }
    Ok(())
}

/// Writes one safetensors file.
pub(crate) fn write_file(
    target: &Path,
    entries: &[Entry<'_>],
    metadata: Option<HashMap<String, String>>,
) -> Result<(), FormatError> {
    let failure = Mutex::new(None);
    let views = entries.iter().map(|entry| (entry.name.as_str(), Written { entry, failure: &failure }));
    let written = atomic::write_path(target, |path| {
        let written = safetensors::serialize_to_file(views, metadata, path).map_err(std::io::Error::other);
        // A tensor that could not be made must not leave a file with a hole in it.
        if failure.lock().is_ok_and(|failure| failure.is_some()) {
            return Err(std::io::Error::other("a tensor could not be made"));
        }
        written
    });
    match failure.into_inner() {
        Ok(Some(failure)) => Err(failure),
        _ => written.map_err(FormatError::io(target)),
    }
}

/// Writes `value` as the file `target`.
pub(crate) fn write_json(target: &Path, value: &Value) -> Result<(), FormatError> {
    atomic::write_file(target, |file| writeln!(file, "{value:#}")).map_err(FormatError::io(target))
}

/// Cuts the tensors, in order, into files of at most `limit` bytes; a larger tensor has a file of its own.
fn cut(entries: Vec<Entry<'_>>, limit: usize) -> Vec<Vec<Entry<'_>>> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut shards: Vec<Vec<Entry<'_>>> = Vec::new();
    let mut room = 0;
    for entry in entries {
        let size = entry.size();
        match shards.last_mut() {
            Some(shard) if size <= room => {
                shard.push(entry);
                room -= size;
            }
            _ => {
                shards.push(vec![entry]);
                room = limit.saturating_sub(size);
            }
        }
    }
    shards
}

/// An entry as `safetensors` wants it; what goes wrong is kept aside, for its interface knows no errors.
struct Written<'s, 'a> {
    entry: &'s Entry<'a>,
    failure: &'s Mutex<Option<FormatError>>,
}

impl View for Written<'_, '_> {
    fn dtype(&self) -> Dtype {
        self.entry.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.entry.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match (self.entry.bytes)() {
            Ok(bytes) => Vec::from(bytes).into(),
            Err(e) => {
                if let Ok(mut failure) = self.failure.lock() {
                    failure.get_or_insert(e);
                }
                Cow::Borrowed(&[])
            }
        }
    }

    fn data_len(&self) -> usize {
        self.entry.size()
    }
}

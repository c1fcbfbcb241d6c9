//! `bundle.json`: what a bundle says of itself.

use std::fs::File;
use std::path::{Component, Path};

use openelm_model::kernels::Packed;
use openelm_model::kernels::quant::BlockFormat;
use openelm_model::{DType, Encoding};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{VERSION, WEIGHTS};
use crate::{FormatError, text};

/// The manifest's file.
pub(crate) const MANIFEST: &str = "bundle.json";
/// What the manifest says that it is.
const FORMAT: &str = "openelm bundle";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: String,
    version: u32,
    /// What the bundle was made for.
    pub target: String,
    /// What the model is called.
    pub name: String,
    /// What to expect of it, for people.
    pub expected: Value,
    /// Every file but this one.
    pub files: Vec<FileEntry>,
    /// The geometry, in the keys of `config.json`.
    pub config: Value,
    /// Where the tensors lie in the weights, in that order.
    pub tensors: Vec<TensorEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TensorEntry {
    /// CoreNet's name.
    pub name: String,
    pub encoding: String,
    pub shape: Vec<usize>,
    pub offset: u64,
    pub bytes: u64,
}

impl Manifest {
    pub fn new(target: &str, name: &str, config: Value, tensors: Vec<TensorEntry>) -> Self {
        let (format, target, name) = (FORMAT.to_owned(), target.to_owned(), name.to_owned());
        Self { format, version: VERSION, target, name, expected: Value::Null, files: Vec::new(), config, tensors }
    }

    /// Reads the manifest in `folder`.
    pub fn read(folder: &Path) -> Result<Self, FormatError> {
        let path = folder.join(MANIFEST);
        let wrong = |reason: String| FormatError::Damaged { path: path.clone(), kind: "manifest", reason };
        let value: Value = serde_json::from_slice(&text::read(&path)?).map_err(|e| wrong(e.to_string()))?;
        if value["format"] != FORMAT {
            return Err(wrong(format!("its format is {}, not {FORMAT:?}", value["format"])));
        }
        if value["version"] != VERSION {
            let found = &value["version"];
            return Err(wrong(format!(
                "it is of version {found}, and this openelm reads version {VERSION}; make the bundle anew or take another openelm"
            )));
        }
        serde_json::from_value(value).map_err(|e| wrong(e.to_string()))
    }

    /// What manifest and weights have in common, so that neither is taken for another's.
    pub fn digest(&self) -> [u8; 32] {
        let described = serde_json::json!([self.config, self.tensors]);
        Sha256::digest(described.to_string()).into()
    }

    /// Looks at the length of every file, and at the hashes of those that are read whole anyway.
    pub fn check_files(&self, folder: &Path) -> Result<(), FormatError> {
        let manifest = folder.join(MANIFEST);
        let wrong = |reason: String| FormatError::Damaged { path: manifest.clone(), kind: "manifest", reason };
        for entry in &self.files {
            let mut parts = Path::new(&entry.name).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(wrong(format!("{:?} is not the name of a file beside it", entry.name)));
            }
            let path = folder.join(&entry.name);
            let found = File::open(&path).and_then(|file| file.metadata()).map_err(FormatError::io(&path))?.len();
            if found != entry.bytes {
                let reason =
                    format!("it has {found} bytes, and {MANIFEST} says {}; copy the bundle again", entry.bytes);
                return Err(FormatError::Damaged { path, kind: "bundle", reason });
            }
            if entry.name != WEIGHTS {
                entry.check_hash(&path, &crate::inspect::stored_file(&path).map_err(FormatError::io(&path))?.sha256)?;
            }
        }
        self.file(WEIGHTS).map(drop).ok_or_else(|| wrong(format!("it does not name {WEIGHTS}")))
    }

    pub fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|entry| entry.name == name)
    }
}

impl FileEntry {
    /// Refuses the file at `path` if its hash is another one.
    pub fn check_hash(&self, path: &Path, found: &str) -> Result<(), FormatError> {
        if self.sha256 == found {
            return Ok(());
        }
        let reason = format!("its SHA-256 is {found}, and {MANIFEST} says {}; copy the bundle again", self.sha256);
        Err(FormatError::Damaged { path: path.to_owned(), kind: "bundle", reason })
    }
}

/// The encoding of that name.
pub(super) fn encoding_by_name(name: &str) -> Option<Encoding> {
    let floats = [DType::F32, DType::F16, DType::BF16].map(Encoding::Float);
    let mut known = floats.into_iter().chain(BlockFormat::ALL.map(Encoding::Blocks));
    known.find(|encoding| encoding.to_string() == name)
}

/// Bytes that a tensor takes in a bundle; `None` if there is no such tensor.
pub(super) fn bytes_of(encoding: Encoding, shape: &[usize]) -> Option<u64> {
    let bytes = match (encoding, shape) {
        (Encoding::Blocks(format), &[rows, columns]) => Packed::size_of(format, rows, columns),
        (Encoding::Float(_), _) => encoding.bytes_of(shape),
        _ => None,
    };
    bytes.map(|bytes| bytes as u64)
}

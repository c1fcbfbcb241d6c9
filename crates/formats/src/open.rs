//! One door for all formats.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::stored::StoredModel;
use crate::{FormatError, PartName, bundle, corenet, gguf, huggingface, lfs, mlx, text};

/// Reads the model at `path`, a file or a folder, in whichever format it is: Hugging Face, CoreNet, MLX, GGUF or a bundle. Of a file
/// that is one part of several the others are read too.
///
/// # Errors
/// See [`FormatError`]: the message names the file, and the tensor where one is at fault.
pub fn open(path: &Path) -> Result<StoredModel, FormatError> {
    if path.is_dir() {
        return open_folder(path);
    }
    let mut beginning = Vec::new();
    let file = File::open(path).map_err(FormatError::io(path))?;
    file.take(BEGINNING).read_to_end(&mut beginning).map_err(FormatError::io(path))?;
    lfs::refuse_pointer(&beginning, path)?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension {
        "gguf" => gguf::read(path),
        _ if path.file_name().is_some_and(|name| name == bundle::MANIFEST) => bundle::read(folder_of(path)),
        _ if beginning.starts_with(gguf::MAGIC) => gguf::read(path),
        "pt" | "pth" => corenet::read(path),
        _ if beginning.starts_with(b"PK\x03\x04") => corenet::read(path),
        "safetensors" => open_weights(folder_of(path), Some(path)),
        _ => Err(FormatError::Unknown { path: path.to_owned() }),
    }
}

/// What is read of a file to tell its kind.
const BEGINNING: u64 = 64;

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads safetensors files with the `config.json` beside them, which tells whose they are.
fn open_weights(folder: &Path, named: Option<&Path>) -> Result<StoredModel, FormatError> {
    let config = folder.join("config.json");
    let keys: Option<Value> = if config.exists() { serde_json::from_slice(&text::read(&config)?).ok() } else { None };
    let of_corenet = keys.is_some_and(|keys| keys.get("model_type").is_none() && keys.get("model_name").is_some());
    if of_corenet { mlx::read_corenet(folder, named) } else { huggingface::read_named(folder, named) }
}

fn open_folder(folder: &Path) -> Result<StoredModel, FormatError> {
    if folder.join(bundle::MANIFEST).exists() {
        return bundle::read(folder);
    }
    let has = |stem: &str| {
        let [single, index] = ["", ".index.json"].map(|end| folder.join(format!("{stem}.safetensors{end}")));
        single.exists() || index.exists()
    };
    match (has("model"), has("weights")) {
        (true, true) => return open_weights(folder, None),
        (true, false) => return huggingface::read(folder),
        (false, true) => return mlx::read_corenet(folder, None),
        (false, false) => (),
    }
    let entries = std::fs::read_dir(folder).map_err(FormatError::io(folder))?;
    let files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let with = |extension: &str| -> Vec<&PathBuf> {
        files.iter().filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
    };
    // The parts of one model count once.
    let first = |path: &&&PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(PartName::parse).is_none_or(|part| part.number == 1)
    };
    let models: Vec<&PathBuf> = with("gguf").iter().filter(first).copied().collect();
    match (&with("pt")[..], &models[..], &with("gguf")[..]) {
        ([], [], []) => huggingface::read(folder),
        ([], [file], _) | ([], [], [file, ..]) => gguf::read(file),
        ([], several, _) => {
            let reason = format!("holds {} .gguf files; name the one you mean", several.len());
            Err(FormatError::Config { path: folder.to_owned(), reason })
        }
        _ => corenet::read(folder),
    }
}

//! One door for all formats.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::stored::StoredModel;
use crate::{FormatError, corenet, gguf, huggingface, mlx};

/// Reads the model at `path`, a file or a folder, in whichever format it is: Hugging Face, CoreNet, MLX or GGUF.
///
/// # Errors
/// See [`FormatError`]: the message names the file, and the tensor where one is at fault.
pub fn open(path: &Path) -> Result<StoredModel, FormatError> {
    if path.is_dir() {
        return open_folder(path);
    }
    let mut magic = [0; 4];
    let mut file = File::open(path).map_err(FormatError::io(path))?;
    let length = file.read(&mut magic).map_err(FormatError::io(path))?;
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match (&magic[..length], extension) {
        (_, "gguf") | (b"GGUF", _) => gguf::read(path),
        (_, "pt" | "pth") | (b"PK\x03\x04", _) => corenet::read(path),
        (_, "safetensors") => open_folder(folder_of(path)),
        _ => Err(FormatError::Unknown { path: path.to_owned() }),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open_folder(folder: &Path) -> Result<StoredModel, FormatError> {
    let has = |stem: &str| {
        let [single, index] = ["", ".index.json"].map(|end| folder.join(format!("{stem}.safetensors{end}")));
        single.exists() || index.exists()
    };
    if has("weights") {
        return mlx::read_corenet(folder);
    }
    if has("model") {
        return huggingface::read(folder);
    }
    let entries = std::fs::read_dir(folder).map_err(FormatError::io(folder))?;
    let files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let with = |extension: &str| -> Vec<&PathBuf> {
        files.iter().filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
    };
    match (&with("pt")[..], &with("gguf")[..]) {
        ([], []) => huggingface::read(folder),
        ([], [file]) => gguf::read(file),
        ([], several) => {
            let reason = format!("holds {} .gguf files; name the one you mean", several.len());
            Err(FormatError::Config { path: folder.to_owned(), reason })
        }
        _ => corenet::read(folder),
    }
}

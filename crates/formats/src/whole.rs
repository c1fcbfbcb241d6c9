//! Whether a file that came from elsewhere is what its name says, and whole.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::{FormatError, corenet, gguf, lfs, shards, text};

/// Looks at the file at `path`, which is to be called `name`: whether it is of the kind that the name tells, and nothing of it
/// is missing. Weights are not read for it: an archive has its directory at its end, other files say how long they are. Of
/// other kinds than weights and JSON nothing is known.
///
/// # Errors
/// See [`FormatError`].
pub fn check_whole(path: &Path, name: &str) -> Result<(), FormatError> {
    lfs::refuse_pointer_at(path)?;
    match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("pt" | "pth") => corenet::check_whole(path),
        Some("safetensors") => shards::read(&BTreeSet::from([path.to_owned()])).map(drop),
        Some("gguf") => gguf::check_whole(path),
        Some("json") => {
            let wrong = |e: serde_json::Error| FormatError::Config { path: path.to_owned(), reason: e.to_string() };
            serde_json::from_slice::<Value>(&text::read(path)?).map(drop).map_err(wrong)
        }
        _ => Ok(()),
    }
}

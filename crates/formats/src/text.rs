//! Configurations as text, whatever editor saved them.

use std::path::Path;

use crate::{FormatError, lfs};

/// The text of the file at `path`, ready for a parser: see [`plain`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FormatError> {
    let text = std::fs::read(path).map_err(FormatError::io(path))?;
    Ok(plain(&text, path)?.to_vec())
}

/// `text` without the byte order mark that some editors put before UTF-8; `path` is for messages.
///
/// # Errors
/// If it is UTF-16, or stands for a file that Git LFS did not fetch.
pub(crate) fn plain<'a>(text: &'a [u8], path: &Path) -> Result<&'a [u8], FormatError> {
    lfs::refuse_pointer(text, path)?;
    if text.starts_with(&[0xff, 0xfe]) || text.starts_with(&[0xfe, 0xff]) {
        let reason = "it is UTF-16; save it as UTF-8".to_owned();
        return Err(FormatError::Config { path: path.to_owned(), reason });
    }
    Ok(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text))
}

//! Read-only maps of files: weights are paged in as they are used and shared between processes.

use std::fs::File;
use std::path::Path;

/// A file mapped into memory, read-only. An empty file is an empty slice.
pub struct MappedFile(Option<memmap2::Mmap>);

impl MappedFile {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// Whatever opening or mapping it reports.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the map is private and read-only. A file that another process cuts short while it is mapped ends this
        // process with SIGBUS; our own writers never do that, they write a new file and rename it over the old one.
        Ok(Self(Some(unsafe { memmap2::Mmap::map(&file)? })))
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

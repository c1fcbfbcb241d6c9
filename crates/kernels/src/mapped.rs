//! Files mapped into memory, read-only: weights are paged in as they are used and shared between processes.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// A file mapped into memory, read-only; clones share the map. An empty file is an empty slice.
#[derive(Debug, Clone)]
pub struct MappedFile(Option<Arc<memmap2::Mmap>>);

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
        Ok(Self(Some(Arc::new(unsafe { memmap2::Mmap::map(&file)? }))))
    }

    /// Lets go of the pages that were read so far: they no longer count as this process's memory, and come back from the
    /// system's cache or the disk when they are used again.
    pub fn release(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.0 {
            // SAFETY: the pages of a read-only map hold what the file holds, so that dropping them loses nothing; whoever
            // borrows them reads the same bytes afterwards. An error leaves them where they are, which does no harm.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref().map(|map| &map[..]).unwrap_or_default()
    }
}

//! The hub's cache folder, which Hugging Face's own tools share: contents by hash (`blobs`), commits as links to them
//! (`snapshots`), and which commit a branch is (`refs`).

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use openelm_formats::atomic;

use crate::HubError;
use crate::download::Wanted;
use crate::name::Repository;
use crate::repository::Entry;
use crate::settings::Settings;

/// The part of the cache that holds a repository.
pub(crate) struct CachedRepository {
    folder: PathBuf,
    locks: PathBuf,
    revision: String,
}

impl CachedRepository {
    pub(crate) fn new(settings: &Settings, repository: &Repository) -> Self {
        let kind = if repository.is_data_set() { "" } else { "models--" };
        let name = format!("{kind}{}", repository.id.replace('/', "--"));
        Self {
            folder: settings.cache.join(&name),
            locks: settings.cache.join(".locks").join(name),
            revision: repository.revision.clone(),
        }
    }

    /// The folder of the revision that was pulled last, if one was.
    pub(crate) fn snapshot(&self) -> Option<PathBuf> {
        let commit = std::fs::read_to_string(self.reference()).unwrap_or_else(|_| self.revision.clone());
        Some(self.snapshot_of(commit.trim())).filter(|folder| folder.is_dir())
    }

    pub(crate) fn snapshot_of(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    fn reference(&self) -> PathBuf {
        self.folder.join("refs").join(&self.revision)
    }

    /// Where the content of a file is.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Makes the folders that files are fetched to.
    pub(crate) fn prepare(&self) -> Result<(), HubError> {
        for folder in [&self.folder.join("blobs"), &self.folder.join("snapshots"), &self.locks] {
            std::fs::create_dir_all(folder).map_err(HubError::io(folder))?;
        }
        Ok(())
    }

    /// How to fetch `entry` to `target`, its blob.
    pub(crate) fn wanted<'a>(&self, entry: &'a Entry, target: &'a Path) -> Wanted<'a> {
        Wanted {
            file: &entry.file,
            url: &entry.url,
            size: entry.size,
            hash: entry.hash(),
            target,
            part: self.blob(&format!("{}.incomplete", entry.etag)),
            lock: self.locks.join(format!("{}.lock", entry.etag)),
        }
    }

    /// Makes the folder of `commit` with all `entries`, whose contents are here. It is there whole or not at all if it is new.
    pub(crate) fn link(&self, commit: &str, entries: &[Entry]) -> Result<PathBuf, HubError> {
        let snapshot = self.snapshot_of(commit);
        let fill = |folder: &Path| entries.iter().try_for_each(|entry| self.link_file(folder, entry));
        let linked = if snapshot.is_dir() { fill(&snapshot) } else { atomic::write_folder(&snapshot, fill, |e| e) };
        linked.map_err(HubError::io(&snapshot))?;
        Ok(snapshot)
    }

    /// Puts `entry` into `folder`, in place of what has its name there. What is right already is left alone: the cache may be
    /// one that cannot be written to.
    fn link_file(&self, folder: &Path, entry: &Entry) -> io::Result<()> {
        let pointer = folder.join(&entry.file);
        // A file of a data set lies some folders deeper.
        let depth = 2 + entry.file.matches('/').count();
        let blob = Path::new(&"../".repeat(depth)).join("blobs").join(&entry.etag);
        if std::fs::read_link(&pointer).is_ok_and(|there| there == blob) {
            return Ok(());
        }
        pointer.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        match std::fs::remove_file(&pointer) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        link(&self.blob(&entry.etag), &blob, &pointer)
    }

    /// Says that the revision is `commit`.
    pub(crate) fn refer(&self, commit: &str) -> Result<(), HubError> {
        let reference = self.reference();
        if self.revision == commit || std::fs::read(&reference).is_ok_and(|known| known == commit.as_bytes()) {
            return Ok(());
        }
        let parent = reference.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(parent).map_err(HubError::io(parent))?;
        atomic::write_file(&reference, |file| file.write_all(commit.as_bytes())).map_err(HubError::io(&reference))
    }
}

#[cfg(unix)]
fn link(_blob: &Path, relative: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, pointer)
}

/// Links need a privilege on Windows; a second name for the same content does not.
#[cfg(not(unix))]
fn link(blob: &Path, _relative: &Path, pointer: &Path) -> io::Result<()> {
    std::fs::hard_link(blob, pointer)
}

//! A file on its way: bytes beside the target, under another name until they are whole.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::HubError;

/// A file that is not whole yet. It stays on the disk, with what the server called its state, so that the next attempt goes on.
pub(crate) struct Part {
    path: PathBuf,
    tag_path: PathBuf,
    file: File,
    length: u64,
    hasher: Sha256,
}

impl Part {
    /// Opens what an earlier attempt left at `path`, or begins.
    pub(crate) fn open(path: PathBuf) -> Result<Self, HubError> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(HubError::io(&path))?;
        let (hasher, length) = hash(&mut file).map_err(HubError::io(&path))?;
        let mut tag_path = path.clone().into_os_string();
        tag_path.push(".tag");
        Ok(Self { tag_path: tag_path.into(), path, file, length, hasher })
    }

    /// Bytes that are here.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// What the server called the state of the file that these bytes are of.
    pub(crate) fn tag(&self) -> Option<String> {
        std::fs::read_to_string(&self.tag_path).ok().filter(|tag| !tag.is_empty())
    }

    /// Forgets all bytes; those to come are of the state `tag`.
    pub(crate) fn restart(&mut self, tag: Option<&str>) -> Result<(), HubError> {
        let result = (|| {
            // Without a tag the bytes cannot be told from those of another state: a crash in between does no harm.
            remove(&self.tag_path)?;
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            tag.map_or(Ok(()), |tag| std::fs::write(&self.tag_path, tag))
        })();
        (self.length, self.hasher) = (0, Sha256::new());
        result.map_err(|source| HubError::Disk { path: self.path.clone(), source })
    }

    /// Adds bytes at the end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(|source| HubError::Disk { path: self.path.clone(), source })?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// The SHA-256 of what is here, in hexadecimal.
    pub(crate) fn sha256(&self) -> String {
        self.hasher.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Where the bytes are.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name.
    pub(crate) fn finish(self, target: &Path) -> Result<(), HubError> {
        let result = (|| {
            self.file.sync_all()?;
            std::fs::rename(&self.path, target)?;
            remove(&self.tag_path)
        })();
        result.map_err(|source| HubError::Disk { path: self.path.clone(), source })
    }

    /// Removes it.
    pub(crate) fn discard(self) -> Result<(), HubError> {
        remove(&self.path).and_then(|()| remove(&self.tag_path)).map_err(HubError::io(&self.path))
    }
}

/// The state of the hash after all of `file`, and its length.
fn hash(file: &mut File) -> io::Result<(Sha256, u64)> {
    let mut hasher = Sha256::new();
    let mut length = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((hasher, length)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                length += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

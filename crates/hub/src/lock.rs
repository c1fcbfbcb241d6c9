//! One process at a time fetches a file.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::HubError;

/// Locks the file at `path`, which is made for that and stays. The lock ends with the returned value.
///
/// # Errors
/// [`HubError::Busy`] if another process holds it, naming `file`.
pub(crate) fn lock(path: &Path, file: &str) -> Result<File, HubError> {
    let lock = File::options().create(true).truncate(false).write(true).open(path).map_err(HubError::io(path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(HubError::Busy { file: file.to_owned() }),
        // Some network file systems cannot lock; better without than not at all.
        Err(TryLockError::Error(_)) => Ok(lock),
    }
}

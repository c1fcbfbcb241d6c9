//! Checkpoints are written by a thread of their own while training goes on, or at once.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use serde::Serialize;

use super::checkpoint::{Checkpoints, Retention, Snapshot};
use super::error::CheckpointError;

/// Writes one checkpoint at a time.
pub(super) struct Saver {
    checkpoints: Checkpoints,
    retention: Retention,
    writing: Option<JoinHandle<Result<PathBuf, CheckpointError>>>,
}

impl Saver {
    pub fn new(checkpoints: Checkpoints, retention: Retention) -> Self {
        Self { checkpoints, retention, writing: None }
    }

    /// Begins to write `snapshot` on a thread of its own, which then removes the checkpoints that need not stay. Call
    /// [`Saver::wait`] before: the snapshot of the last time may still be in memory.
    pub fn begin<P: Serialize + Send + 'static>(
        &mut self,
        snapshot: Snapshot<'static, P>,
    ) -> Result<(), CheckpointError> {
        debug_assert!(self.writing.is_none(), "one checkpoint at a time");
        let (checkpoints, retention) = (self.checkpoints.clone(), self.retention);
        let target = checkpoints.target(&snapshot);
        let write = move || {
            let path = checkpoints.save(&snapshot)?;
            drop(snapshot);
            checkpoints.prune(retention)?;
            Ok(path)
        };
        let started = thread::Builder::new().name("checkpoint".to_owned()).spawn(write);
        self.writing = Some(started.map_err(|source| CheckpointError::Write { path: target, source })?);
        Ok(())
    }

    /// Writes `snapshot` here and now, without a copy of it. Call [`Saver::wait`] before.
    pub fn save<P: Serialize>(&self, snapshot: &Snapshot<'_, P>) -> Result<PathBuf, CheckpointError> {
        let path = self.checkpoints.save(snapshot)?;
        self.checkpoints.prune(self.retention)?;
        Ok(path)
    }

    /// The checkpoint that was begun, if it is on the disk by now.
    pub fn written(&mut self) -> Result<Option<PathBuf>, CheckpointError> {
        if self.writing.as_ref().is_some_and(JoinHandle::is_finished) { self.wait() } else { Ok(None) }
    }

    /// Waits for the checkpoint that was begun, if there is one.
    pub fn wait(&mut self) -> Result<Option<PathBuf>, CheckpointError> {
        let Some(writing) = self.writing.take() else { return Ok(None) };
        writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(Some)
    }
}

impl Drop for Saver {
    /// Whatever ends the run, a checkpoint under way is finished. Why the run ends is already known.
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            let _ = writing.join();
        }
    }
}

//! What is kept of an update that was not made because it would have spoiled the model. An update of the same step that is
//! refused with another batch has a folder of its own: `spike-step-00000123-2` and so on.
//!
//! ```text
//! spike-step-00000123/  batch.json       ids and loss of each row, gradient norm of each tensor
//!                       step-00000122/   the state before the update, with the position in the corpus behind its batch
//! ```

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use openelm_formats::atomic;
use serde::Serialize;

use super::checkpoint::{Checkpoints, Snapshot};
use super::error::CheckpointError;
use crate::trainer::Trainer;

const BATCH: &str = "batch.json";

/// An update that was not made. `null` in the file where something is no number.
#[derive(Serialize)]
pub(super) struct RefusedUpdate<E> {
    /// The update, counted from 1.
    pub step: u64,
    pub learning_rate: f64,
    pub loss: f64,
    pub smoothed_loss: f64,
    pub standard_deviation: f64,
    pub gradient_norm: f64,
    /// Of each tensor.
    pub gradient_norms: BTreeMap<String, f64>,
    /// What there is to say of each.
    pub micro_batches: Vec<E>,
}

/// The norm of each tensor's gradient.
pub(super) fn gradient_norms(trainer: &Trainer) -> BTreeMap<String, f64> {
    let norm = |values: &[f32]| values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    trainer.gradients().tensors().map(|(spec, values)| (spec.name.clone(), norm(values))).collect()
}

impl<E: Serialize> RefusedUpdate<E> {
    /// Writes the folder into `output`, with the state before the update, and gives its path.
    pub fn save<P: Serialize>(&self, output: &Path, before: &Snapshot<'_, P>) -> Result<PathBuf, CheckpointError> {
        let at = |path: &Path, source| CheckpointError::Io { path: path.to_owned(), source };
        let batch = serde_json::to_vec(self).map_err(|e| at(output, e.into()))?;
        let target = self.folder(output, &batch);
        if target.exists() {
            // Its checkpoint may have been moved away.
            atomic::remove_folder(&target).map_err(|e| at(&target, e))?;
        }
        let fill = |folder: &Path| -> Result<(), CheckpointError> {
            let written = atomic::write_file(&folder.join(BATCH), |file| file.write_all(&batch));
            written.map_err(|e| at(&target.join(BATCH), e))?;
            let checkpoints = Checkpoints::open(folder.to_owned())?;
            checkpoints.save(before).map(drop).map_err(|e| match e {
                // In the temporary folder, whose name means nothing to the reader.
                CheckpointError::Write { path, source } => {
                    at(&target.join(path.file_name().unwrap_or_default()), source)
                }
                other => other,
            })
        };
        atomic::write_folder(&target, fill, |e| at(&target, e))?;
        Ok(target)
    }

    /// The first folder of this step that is free, or was written when the very same update was refused before.
    fn folder(&self, output: &Path, batch: &[u8]) -> PathBuf {
        let mut target = output.join(format!("spike-step-{:08}", self.step));
        let mut number = 1;
        while target.exists() && std::fs::read(target.join(BATCH)).ok().as_deref() != Some(batch) {
            number += 1;
            target.set_file_name(format!("spike-step-{:08}-{number}", self.step));
        }
        target
    }
}

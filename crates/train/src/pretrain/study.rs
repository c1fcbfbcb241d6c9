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

use crate::checkpoint::{CheckpointError, Checkpoints, Snapshot};
use crate::data::{self, Batch};
use crate::{NextToken, Trainer};

const BATCH: &str = "batch.json";

#[derive(Serialize)]
pub(super) struct Study<'a> {
    step: u64,
    learning_rate: f64,
    /// `null` where it is no number, as everywhere below.
    loss: f64,
    smoothed_loss: f64,
    standard_deviation: f64,
    gradient_norm: f64,
    gradient_norms: BTreeMap<String, f64>,
    micro_batches: Vec<Vec<Row<'a>>>,
}

#[derive(Serialize)]
pub(super) struct Row<'a> {
    /// Mean cross-entropy of the row in nats per token, before the update.
    loss: f64,
    ids: &'a [u32],
}

/// What the update would have been.
pub(super) struct Refused<'a> {
    pub rows: &'a [&'a [data::Row]],
    pub learning_rate: f64,
    pub loss: f64,
    pub smoothed_loss: f64,
    pub standard_deviation: f64,
    pub gradient_norm: f64,
}

impl<'a> Study<'a> {
    /// Looks at the gradients that `trainer` has, and at the loss of each row.
    pub fn new(refused: &Refused<'a>, trainer: &mut Trainer, objective: &NextToken) -> Self {
        let norm = |values: &[f32]| values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        let gradients = trainer.gradients().tensors();
        let gradient_norms = gradients.map(|(spec, values)| (spec.name.clone(), norm(values))).collect();
        let mut row = |row: &'a data::Row| Row {
            loss: trainer.validate(objective, &Batch::from_rows(std::slice::from_ref(row))).mean(),
            ids: &row.ids,
        };
        let micro_batches = refused.rows.iter().map(|rows| rows.iter().map(&mut row).collect()).collect();
        Self {
            step: trainer.steps() + 1,
            learning_rate: refused.learning_rate,
            loss: refused.loss,
            smoothed_loss: refused.smoothed_loss,
            standard_deviation: refused.standard_deviation,
            gradient_norm: refused.gradient_norm,
            gradient_norms,
            micro_batches,
        }
    }

    /// Writes the folder into `output`, with the state before the update, and gives its path.
    pub fn save(&self, output: &Path, before: &Snapshot<'_>) -> Result<PathBuf, CheckpointError> {
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

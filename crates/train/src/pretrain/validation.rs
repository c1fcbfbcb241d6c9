//! Losses on texts that are not learnt from.

use std::collections::BTreeMap;

use crate::data::{Batch, DataError, RowStream, StreamState};
use crate::objective::{Loss, NextToken};
use crate::recipe::Recipe;
use crate::run::{RunError, ValidationEntry};
use crate::trainer::Trainer;

/// A corpus that is measured time and again, each time from its beginning.
pub(super) struct Validation<'r> {
    recipe: &'r Recipe,
    name: &'r str,
    stream: RowStream,
    beginning: StreamState,
}

impl<'r> Validation<'r> {
    /// The corpus `name` of the recipe. A row of it is read, so that a mistake is known before the run begins.
    pub fn open(recipe: &'r Recipe, name: &'r str, stream: Result<RowStream, DataError>) -> Result<Self, RunError> {
        let stream = stream.map_err(wrong(name))?;
        let mut validation = Self { recipe, name, beginning: stream.state().clone(), stream };
        if validation.stream.take(1).map_err(wrong(name))?.is_empty() {
            return Err(validation.empty());
        }
        validation.rewind()?;
        Ok(validation)
    }

    /// Mean loss of the model in training.
    pub fn measure(&mut self, trainer: &mut Trainer, objective: &NextToken) -> Result<ValidationEntry, RunError> {
        let mut sums = Loss::default();
        for _ in 0..self.recipe.log.validation_batches {
            let rows = self.stream.take(self.recipe.train.batch_size).map_err(wrong(self.name))?;
            if rows.is_empty() {
                break;
            }
            sums += &trainer.validate(objective, &Batch::from_rows(&rows));
        }
        self.rewind()?;
        if sums.tokens == 0 {
            return Err(self.empty());
        }
        Ok(ValidationEntry {
            step: trainer.steps(),
            corpus: self.name.to_owned(),
            validation_loss: sums.mean(),
            validation_tokens: sums.tokens as u64,
            validation_metrics: BTreeMap::new(),
        })
    }

    /// Goes back to the beginning; the threads that read ahead end.
    fn rewind(&mut self) -> Result<(), RunError> {
        self.stream.restore(self.beginning.clone()).map_err(wrong(self.name))
    }

    fn empty(&self) -> RunError {
        wrong(self.name)(DataError::Empty { tokens: self.recipe.train.sequence_length + 1 })
    }
}

fn wrong(name: &str) -> impl FnOnce(DataError) -> RunError {
    move |source| RunError::Validation { name: name.to_owned(), source }
}

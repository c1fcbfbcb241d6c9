//! Losses on texts that are not learnt from.

use openelm_kernels::cross_entropy::LossSums;

use super::log::ValidationEntry;
use super::{PretrainError, RunTokenizer, mean, rows};
use crate::data::{Batch, DataError};
use crate::recipe::ValidationRecipe;
use crate::{Recipe, Trainer};

/// Mean loss on one of the recipe's validation corpora.
pub(super) fn validate(
    trainer: &mut Trainer,
    recipe: &Recipe,
    validation: &ValidationRecipe,
    tokenizer: &RunTokenizer,
) -> Result<ValidationEntry, PretrainError> {
    let wrong = |source| PretrainError::Validation { name: validation.name.clone(), source };
    let mut corpus = validation.corpus.clone();
    corpus.shuffle_buffer = 0;
    let mut stream = rows(recipe, corpus, tokenizer, false).map_err(wrong)?;
    let mut sums = LossSums::default();
    for _ in 0..recipe.log.validation_batches {
        let rows = stream.take(recipe.train.batch_size).map_err(wrong)?;
        if rows.is_empty() {
            break;
        }
        sums += trainer.validate(&Batch::from_rows(&rows));
    }
    if sums.valid == 0 {
        return Err(wrong(DataError::Empty { tokens: recipe.train.sequence_length }));
    }
    Ok(ValidationEntry {
        step: trainer.steps(),
        corpus: validation.name.clone(),
        validation_loss: mean(sums),
        validation_tokens: sums.valid as u64,
    })
}

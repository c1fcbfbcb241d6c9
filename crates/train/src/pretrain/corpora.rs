//! What pretraining reads: the corpus, those that are held out, and the prompts of samples.

use std::sync::Arc;

use openelm_model::ModelConfig;
use serde::Serialize;

use super::validation::Validation;
use crate::data::{Batch, Counts, DataError, Encode, RowStream, StreamState};
use crate::objective::NextToken;
use crate::recipe::Recipe;
use crate::run::{Datasets, RunError, RunTokenizer, SampleEntry, ValidationEntry};
use crate::samples::Samples;
use crate::text_repair;
use crate::trainer::Trainer;

/// All that a recipe has to be read.
pub(super) struct Corpora<'r> {
    recipe: &'r Recipe,
    objective: NextToken,
    stream: RowStream,
    validation: Vec<Validation<'r>>,
    samples: Samples,
}

impl<'r> Corpora<'r> {
    /// Opens all of it.
    pub fn open(
        recipe: &'r Recipe,
        config: &ModelConfig,
        tokenizer: &RunTokenizer,
        objective: NextToken,
    ) -> Result<Self, RunError> {
        let (encode, pad) = (encoder(recipe, tokenizer)?, pad_id(tokenizer));
        // Rows of one id more than a sequence: without end for training, once and in order otherwise.
        let rows = |corpus, training| {
            RowStream::new(corpus, encode.clone(), recipe.train.sequence_length + 1, pad, recipe.train.seed, training)
        };
        let stream = rows(recipe.data.clone(), true)?;
        let validation = recipe.validation.iter().map(|validation| {
            let mut corpus = validation.corpus.clone();
            corpus.shuffle_buffer = 0;
            // Rows are made in the same way as those that are learnt from.
            corpus.parity = recipe.data.parity;
            Validation::open(recipe, &validation.name, rows(corpus, false))
        });
        let validation = validation.collect::<Result<_, _>>()?;
        let prompt = |text: &str| Ok(tokenizer.tokenizer.encode_prompt(text));
        let samples = Samples::open(&recipe.log, recipe.train.seed, config, tokenizer, prompt)?;
        Ok(Self { recipe, objective, stream, validation, samples })
    }
}

/// A row of a micro-batch.
#[derive(Serialize)]
pub(super) struct ExplainedRow {
    /// Mean cross-entropy of the row in nats per token, before the update.
    loss: f64,
    ids: Vec<u32>,
}

impl Datasets for Corpora<'_> {
    type Batch = Batch;
    type Explanation = Vec<ExplainedRow>;
    type Position = StreamState;

    fn next(&mut self) -> Result<Vec<Batch>, RunError> {
        let train = &self.recipe.train;
        let count = train.batch_size * train.accumulation;
        let rows = self.stream.take(count)?;
        if rows.len() < count {
            return Err(DataError::Empty { tokens: train.sequence_length + 1 }.into());
        }
        Ok(rows.chunks(train.batch_size).map(Batch::from_rows).collect())
    }

    fn position(&self) -> StreamState {
        self.stream.state().clone()
    }

    fn restore(&mut self, position: StreamState) -> Result<(), RunError> {
        Ok(self.stream.restore(position)?)
    }

    fn epochs(&self) -> u64 {
        self.stream.epochs()
    }

    fn counts(&self) -> Vec<Counts> {
        self.stream.counts()
    }

    fn validate(
        &mut self,
        trainer: &mut Trainer,
        note: &mut dyn FnMut(ValidationEntry) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        self.validation.iter_mut().try_for_each(|corpus| note(corpus.measure(trainer, &self.objective)?))
    }

    fn sample(&mut self, trainer: &Trainer) -> Result<Vec<SampleEntry>, RunError> {
        self.samples.write(trainer)
    }

    fn explain(&self, trainer: &mut Trainer, batch: &Batch) -> Vec<ExplainedRow> {
        let mut row = |i: usize| {
            let here = i * batch.time..(i + 1) * batch.time;
            let alone = Batch {
                inputs: batch.inputs[here.clone()].to_vec(),
                targets: batch.targets[here.clone()].to_vec(),
                document_starts: batch.document_starts.as_ref().map(|starts| starts[here].to_vec()),
                sequences: 1,
                time: batch.time,
            };
            let loss = trainer.validate(&self.objective, &alone).mean();
            // The row as it came: its inputs, and the target of the last.
            let ids = alone.inputs.iter().chain(alone.targets.last()).copied().collect();
            ExplainedRow { loss, ids }
        };
        (0..batch.sequences).map(&mut row).collect()
    }
}

/// What fills up a row of CoreNet's pipeline: the id behind the last piece, 32000 for LLaMA's tokenizer.
pub(super) fn pad_id(tokenizer: &RunTokenizer) -> u32 {
    tokenizer.tokenizer.vocab_size() as u32
}

/// How the texts of a run become ids.
fn encoder(recipe: &Recipe, tokenizer: &RunTokenizer) -> Result<Encode, RunError> {
    let tokenizer = tokenizer.tokenizer.clone();
    let repair = recipe.tokenizer.clean.then(text_repair).transpose()?;
    Ok(Arc::new(move |text| match repair {
        Some(repair) => tokenizer.encode_with(&repair(text), true, true),
        None => tokenizer.encode_with(text, true, true),
    }))
}

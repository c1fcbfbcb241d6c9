//! What a tuning run reads: rows of examples, those that are held out, and the prompts of samples.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::TuneError;
use super::examples::Examples;
use super::lesson::{Lesson, Lessons, Tokens};
use super::plan::{order, packed};
use super::recipe::TuneRecipe;
use crate::data::Counts;
use crate::objective::{Loss, Objective};
use crate::run::{Datasets, RunError, SampleEntry, ValidationEntry};
use crate::samples::Samples;
use crate::trainer::Trainer;

/// The random stream that decides which examples are held out: no epoch has so high a number.
const HELD_OUT: u64 = u64::MAX;

/// Where in its examples a run is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Times that all rows were given out.
    epoch: u64,
    /// Rows given out in this one.
    row: usize,
    /// Examples given out in all.
    examples: u64,
    /// Token ids given out in all.
    tokens: u64,
    /// Of the examples' ids, by which they are known again.
    data: String,
    /// Of the model that the run began with.
    base: String,
}

/// Encoded examples, with what the reference says of them.
pub(super) struct Corpus {
    pub examples: Examples,
    /// Two numbers for each pair; empty where nobody asks.
    pub reference: Vec<f64>,
}

impl Corpus {
    /// A lesson of `rows`.
    fn lesson(&mut self, rows: &[Vec<u32>]) -> Result<Lesson, TuneError> {
        let (mut sequences, mut reference) = (Vec::new(), Vec::new());
        for row in rows {
            let mut shared = Vec::new();
            for &example in row {
                let index = example as usize;
                let mut sides = self.examples.get(index)?;
                reference.extend(self.reference.get(2 * index..2 * index + 2).into_iter().flatten());
                // Both sides of a pair have a sequence of their own.
                match sides.len() {
                    1 => shared.append(&mut sides),
                    _ => sequences.extend(sides.into_iter().map(|side| vec![side])),
                }
            }
            if !shared.is_empty() {
                sequences.push(shared);
            }
        }
        let rows: Vec<Vec<&Tokens>> =
            sequences.iter().map(|row| row.iter().map(|tokens| &tokens[..]).collect()).collect();
        Ok(Lesson::new(&rows, reference))
    }
}

/// All that a recipe has to be read.
pub(super) struct Classroom<'r> {
    recipe: &'r TuneRecipe,
    objective: Lessons,
    corpus: Corpus,
    /// The examples that are learnt from.
    learnt: Vec<u32>,
    /// Examples of their own that are held out, and their rows.
    validation: Option<Corpus>,
    held_out: Vec<Vec<u32>>,
    width: usize,
    rows: Vec<Vec<u32>>,
    place: Place,
    samples: Option<Samples>,
}

impl<'r> Classroom<'r> {
    /// Lays out the examples of `corpus`, of at most `width` targets each, and of `validation`.
    ///
    /// # Errors
    /// If nothing is left to learn from.
    pub fn new(
        recipe: &'r TuneRecipe,
        objective: Lessons,
        corpus: Corpus,
        mut validation: Option<Corpus>,
        (width, base): (usize, &str),
    ) -> Result<Self, TuneError> {
        let count = corpus.examples.len();
        let held = (recipe.data.held_out * count as f64).ceil() as usize;
        if held >= count {
            let reason = format!("of {count} examples {held} are held out (data.held_out)");
            return Err(TuneError::Empty { what: "data.sources", reason });
        }
        let mut shuffled = order(count, recipe.train.seed, HELD_OUT);
        let mut held_out = shuffled.split_off(count - held);
        held_out.sort_unstable();
        shuffled.sort_unstable();
        let data = match &validation {
            Some(validation) => format!("{}{}", corpus.examples.sha256, validation.examples.sha256),
            None => corpus.examples.sha256.clone(),
        };
        if let Some(validation) = &mut validation {
            held_out = (0..validation.examples.len() as u32).collect();
        }
        let place = Place { data, base: base.to_owned(), ..Place::default() };
        let mut classroom = Self {
            recipe,
            objective,
            corpus,
            learnt: shuffled,
            validation,
            held_out: Vec::new(),
            width,
            rows: Vec::new(),
            place,
            samples: None,
        };
        let of = classroom.validation.as_ref().unwrap_or(&classroom.corpus);
        classroom.held_out = classroom.laid_out(&held_out, &of.examples);
        classroom.rows = classroom.plan(0);
        Ok(classroom)
    }

    /// With what writes samples.
    pub fn with_samples(self, samples: Samples) -> Self {
        Self { samples: Some(samples), ..self }
    }

    /// The rows of the epoch `epoch`.
    fn plan(&self, epoch: u64) -> Vec<Vec<u32>> {
        let places = order(self.learnt.len(), self.recipe.train.seed, epoch);
        let examples: Vec<u32> = places.into_iter().map(|place| self.learnt[place as usize]).collect();
        self.laid_out(&examples, &self.corpus.examples)
    }

    fn laid_out(&self, order: &[u32], examples: &Examples) -> Vec<Vec<u32>> {
        match self.recipe.data.packing && self.recipe.preference.is_none() {
            true => packed(order, self.width, |example| examples.targets(example as usize)),
            false => order.iter().map(|&example| vec![example]).collect(),
        }
    }

    /// Updates in which everything is learnt from `epochs` times, the last one perhaps in part.
    pub fn updates(&self, epochs: f64) -> u64 {
        let whole = epochs.trunc() as u64;
        let rows: usize = (0..whole).map(|epoch| self.plan(epoch).len()).sum();
        let part = epochs.fract() * if epochs.fract() > 0.0 { self.plan(whole).len() as f64 } else { 0.0 };
        let of_update = self.recipe.train.batch_size * self.recipe.train.accumulation;
        (((rows as f64 + part) / of_update as f64).ceil() as u64).max(1)
    }

    fn row(&mut self) -> Vec<u32> {
        if self.place.row == self.rows.len() {
            self.place.epoch += 1;
            self.place.row = 0;
            self.rows = self.plan(self.place.epoch);
        }
        self.place.row += 1;
        self.rows[self.place.row - 1].clone()
    }
}

/// A micro-batch of an update that was not made.
#[derive(Serialize)]
pub struct ExplainedLesson {
    /// Its mean loss, before the update.
    loss: f64,
    /// Inputs of each sequence, and the target of the last.
    ids: Vec<Vec<u32>>,
}

impl Datasets for Classroom<'_> {
    type Batch = Lesson;
    type Explanation = ExplainedLesson;
    type Position = Place;

    fn next(&mut self) -> Result<Vec<Lesson>, RunError> {
        let train = &self.recipe.train;
        let (batch_size, accumulation) = (train.batch_size, train.accumulation);
        let before = self.place.clone();
        let mut lessons = Vec::with_capacity(accumulation);
        for _ in 0..accumulation {
            let rows: Vec<Vec<u32>> = (0..batch_size).map(|_| self.row()).collect();
            match self.corpus.lesson(&rows) {
                Ok(lesson) => lessons.push(lesson),
                Err(e) => {
                    if before.epoch != self.place.epoch {
                        self.rows = self.plan(before.epoch);
                    }
                    self.place = before;
                    return Err(e.into());
                }
            }
            self.place.examples += rows.iter().map(|row| row.len() as u64).sum::<u64>();
        }
        self.place.tokens += lessons.iter().map(|lesson| lesson.amount() as u64).sum::<u64>();
        Ok(lessons)
    }

    fn position(&self) -> Place {
        self.place.clone()
    }

    fn restore(&mut self, place: Place) -> Result<(), RunError> {
        let changed = |what| Err(TuneError::Changed { what }.into());
        if place.base != self.place.base {
            return changed("the model, or the adapter it begins with, is");
        }
        if place.data != self.place.data {
            return changed("the examples, or how they become tokens, are");
        }
        self.rows = self.plan(place.epoch);
        if place.row > self.rows.len() {
            return changed("the number of rows is");
        }
        self.place = place;
        Ok(())
    }

    fn epochs(&self) -> u64 {
        self.place.epoch
    }

    fn counts(&self) -> Vec<Counts> {
        let Place { epoch, examples, tokens, .. } = self.place;
        vec![Counts { epochs: epoch, documents: examples, tokens, ..Counts::default() }]
    }

    fn validate(
        &mut self,
        trainer: &mut Trainer,
        note: &mut dyn FnMut(ValidationEntry) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let (mut sums, mut tokens) = (Loss::default(), 0);
        let corpus = self.validation.as_mut().unwrap_or(&mut self.corpus);
        let batches = self.held_out.chunks(self.recipe.train.batch_size).take(self.recipe.log.validation_batches);
        for rows in batches {
            let lesson = corpus.lesson(rows)?;
            tokens += lesson.amount() as u64;
            sums += &trainer.validate(&self.objective, &lesson);
        }
        // Tokens of pairs that a hinge is content with do not count in a loss.
        if tokens == 0 {
            return Ok(());
        }
        let means = sums.metrics.iter().map(|sum| sum / sums.amount);
        let named = self.objective.metrics().iter().map(|name| (*name).to_owned()).zip(means);
        note(ValidationEntry {
            step: trainer.steps(),
            corpus: "validation".to_owned(),
            validation_loss: sums.mean(),
            validation_tokens: tokens,
            validation_metrics: named.filter(|(_, mean)| mean.is_finite()).collect::<BTreeMap<_, _>>(),
        })
    }

    fn sample(&mut self, trainer: &Trainer) -> Result<Vec<SampleEntry>, RunError> {
        self.samples.as_ref().map_or(Ok(Vec::new()), |samples| samples.write(trainer))
    }

    fn explain(&self, trainer: &mut Trainer, lesson: &Lesson) -> ExplainedLesson {
        let sequences = &lesson.sequences;
        let rows = sequences.inputs.chunks(sequences.time).zip(sequences.targets.chunks(sequences.time));
        let ids = rows.map(|(inputs, targets)| inputs.iter().chain(targets.last()).copied().collect());
        ExplainedLesson { loss: trainer.validate(&self.objective, lesson).mean(), ids: ids.collect() }
    }
}

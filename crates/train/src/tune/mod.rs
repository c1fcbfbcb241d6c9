//! Tuning a model that is trained already: on answers or on preferences, all of its weights or an adapter.
//!
//! ```text
//! rows of files -> Example: what each says -> template: pieces, and who said them -> token ids, some of them learnt
//!     -> rows in which examples do not see each other -> Lesson -> the loop of every training (run)
//! ```
//!
//! A method is an objective ([`Lessons`]) and a choice of what is trained, nothing else.

mod classroom;
mod error;
mod example;
mod examples;
mod lesson;
mod plan;
mod preference;
mod recipe;
mod reference;
mod start;
mod template;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use openelm_formats::{FormatError, StoredModel};
use openelm_model::kernels::Threads;
use openelm_model::kernels::rounded::Products;

use crate::collective::Collective;
use crate::precision;
use crate::recipe::{ProductPrecision, Sharding};
use crate::reduction::Distribution;
use crate::run::{Event, Outcome, RunError, RunTokenizer, Settings, Training, run};
use crate::samples::Samples;
use crate::trainer::{Trainer, TrainerOptions};
use classroom::{Classroom, Corpus};
pub use classroom::{ExplainedLesson, Place};
pub use error::TuneError;
use examples::{Encoding, Examples};
pub use lesson::{Lesson, Lessons, PreferenceObjective};
use preference::Preference;
pub use preference::PreferenceLoss;
pub use recipe::{
    AdapterKind, AdapterRecipe, BaseRecipe, Beginning, ExamplesRecipe, Learn, PreferenceRecipe, RowSource,
    TargetNumbers, TargetRecipe, TooLong, TuneRecipe, TuneScheduleRecipe, TuneTrainRecipe,
};
use reference::Reference;
use start::Base;
pub use start::fresh as fresh_adapter;
use template::Templates;
pub use template::{TemplateChoice, TemplateName};

/// Rows between two words on how reading gets on.
const NOTED_ROWS: u64 = 256;

/// Tunes the model `stored`, which is the one that `recipe` names, as one of several `ranks`: see [`run`]. What is learnt from is
/// read and encoded before the first update.
///
/// # Errors
/// See [`RunError`].
pub fn tune_on(
    ranks: Arc<dyn Collective>,
    recipe: &TuneRecipe,
    stored: StoredModel,
    threads: Threads,
    stop: &AtomicBool,
    watch: &mut dyn FnMut(Event),
) -> Result<Option<Outcome>, RunError> {
    if recipe.output.is_file() {
        return Err(TuneError::Output(recipe.output.clone()).into());
    }
    let mut recipe = recipe.clone();
    let before = || Some(TuneRecipe::load(&recipe.output.join("recipe.toml"), &[]).ok()?.train.precision);
    recipe.train.precision = precision::decided(recipe.train.precision, before, true, &*ranks, &threads)?;
    let mut tuning = Tuning::load(&recipe, stored, &threads)?;
    if ranks.rank() == 0 {
        tuning.prepare(&threads, stop, watch)?;
    }
    run(&tuning, ranks, threads, stop, watch)
}

/// A recipe, and what it begins with.
struct Tuning<'r> {
    recipe: &'r TuneRecipe,
    base: Base,
    fingerprint: String,
    tokenizer: RunTokenizer,
    templates: Templates,
    objective: Lessons,
    /// On rank 0, until the run takes it.
    classroom: RefCell<Option<Classroom<'r>>>,
    steps: u64,
}

impl<'r> Tuning<'r> {
    fn load(recipe: &'r TuneRecipe, stored: StoredModel, threads: &Threads) -> Result<Self, TuneError> {
        let missing = || FormatError::NoTokenizer { path: stored.path.clone(), what: "" };
        let tokenizer = RunTokenizer::of(stored.tokenizer.as_ref().ok_or_else(missing)?)?;
        stored.check_vocabulary(&tokenizer.tokenizer)?;
        let templates = Templates::of(recipe.data.template.as_ref(), &stored, &tokenizer.tokenizer)?;
        let base = Base::load(stored, recipe, threads)?;
        let objective = match &recipe.preference {
            None => Lessons::Answers { z_weight: recipe.optimizer.z_loss },
            Some(preference) => {
                let (loss, beta, gamma) = (preference.loss, preference.beta(), preference.gamma);
                Lessons::Preferences(PreferenceObjective(Preference { loss, beta, gamma }))
            }
        };
        let fingerprint = base.fingerprint();
        Ok(Self { recipe, base, fingerprint, tokenizer, templates, objective, classroom: RefCell::new(None), steps: 0 })
    }

    /// Reads and encodes what is learnt from and measured, and asks the reference where there is one.
    fn prepare(&mut self, threads: &Threads, stop: &AtomicBool, watch: &mut dyn FnMut(Event)) -> Result<(), RunError> {
        let data = &self.recipe.data;
        let max_length = self.recipe.max_length(self.base.config())?;
        let tokenizer = &*self.tokenizer.tokenizer;
        let (templates, pairs) = (&self.templates, self.recipe.preference.is_some());
        let encoding = Encoding { recipe: data, tokenizer, templates, pairs, max_length };
        let mut read = |sources: &[RowSource], what: &'static str| {
            let examples = Examples::read(&encoding, sources, what, &self.recipe.output, stop, &mut |done| {
                if done.is_multiple_of(NOTED_ROWS) {
                    watch(Event::Preparing { what: "reading examples", done, of: None });
                }
            })?;
            watch(Event::Prepared(format!("{what}: {}", examples.summary())));
            Ok::<_, TuneError>(examples)
        };
        let learnt = read(&data.sources, "data.sources")?;
        let validation = match data.validation.is_empty() {
            true => None,
            false => Some(read(&data.validation, "data.validation")?),
        };
        let template = learnt.template.clone();
        let [learnt, validation] = [Some(learnt), validation]
            .map(|examples| examples.map(|examples| self.with_reference(examples, threads, stop, watch)).transpose());
        let (Some(learnt), validation) = (learnt?, validation?) else {
            unreachable!("there are examples to learn from")
        };
        let size = (max_length, self.fingerprint.as_str());
        let classroom = Classroom::new(self.recipe, self.objective, learnt, validation, size)?;
        self.steps =
            self.recipe.train.steps.unwrap_or_else(|| classroom.updates(self.recipe.train.epochs.unwrap_or(1.0)));
        let prompt = |message: &str| template.prompt(message, tokenizer);
        let (log, seed) = (&self.recipe.log, self.recipe.train.seed);
        let samples = Samples::open(log, seed, self.base.config(), &self.tokenizer, prompt)?;
        self.classroom = RefCell::new(Some(classroom.with_samples(samples)));
        Ok(())
    }

    fn with_reference(
        &self,
        mut examples: Examples,
        threads: &Threads,
        stop: &AtomicBool,
        watch: &mut dyn FnMut(Event),
    ) -> Result<Corpus, TuneError> {
        let mut reference = Vec::new();
        if let Some(preference) = self.recipe.preference.as_ref().filter(|preference| preference.loss.has_reference()) {
            let folder = preference.cache.clone().unwrap_or_else(|| self.recipe.output.join("reference"));
            let of = Some(examples.len() as u64);
            let (base, fingerprint, products) = (&self.base, &self.fingerprint[..], self.products());
            let asked = Reference { base, fingerprint, products, threads, folder: &folder, stop };
            reference = asked.of(&mut examples, &mut |done| {
                watch(Event::Preparing { what: "asking the reference", done, of });
            })?;
        }
        Ok(Corpus { examples, reference })
    }

    fn products(&self) -> Products {
        if self.recipe.train.precision == ProductPrecision::BF16 { Products::BF16 } else { Products::F32 }
    }
}

impl<'r> Training for Tuning<'r> {
    type Batch = Lesson;
    type Objective = Lessons;
    type Datasets = Classroom<'r>;

    fn settings(&self) -> Settings {
        let TuneRecipe { output, train, log, checkpoint, spike, .. } = self.recipe;
        Settings {
            output: output.clone(),
            recipe: self.recipe.to_toml(),
            steps: self.steps,
            schedule: self.recipe.schedule(self.steps),
            accumulation: train.accumulation,
            shares: train.shares,
            sharded: train.sharding == Sharding::Optimizer,
            log: log.clone(),
            measures_start: true,
            checkpoint: checkpoint.clone(),
            spike: spike.clone(),
        }
    }

    fn changes_since(&self, before: &Path, _: u64) -> Vec<String> {
        match TuneRecipe::load(before, &[]) {
            Ok(before) => self.recipe.changes_since(&before),
            Err(e) => vec![e.to_string()],
        }
    }

    fn tokenizer(&self) -> &RunTokenizer {
        &self.tokenizer
    }

    fn objective(&self) -> &Lessons {
        &self.objective
    }

    fn trainer(&self, threads: Threads, distribution: Distribution) -> Result<Trainer, RunError> {
        let options = TrainerOptions {
            optimizer: self.recipe.optimizer.options(),
            keeping: self.recipe.keeping(),
            products: self.products(),
            distribution,
            dropout_seed: Some(self.recipe.train.seed),
            ..TrainerOptions::default()
        };
        Ok(Trainer::new(self.base.trainable()?, threads, options))
    }

    fn datasets(&self) -> Result<Classroom<'r>, RunError> {
        Ok(self.classroom.take().unwrap_or_else(|| unreachable!("rank 0 prepares what it reads, once")))
    }
}

//! The model that is evaluated.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use openelm_formats::{StoredModel, fingerprint, fingerprint_of_adapter};
use openelm_kernels::Threads;
use openelm_kernels::rounded::Products;
use openelm_model::{Adapter, AdapterWeights, CacheType, Engine, Tokenizer};
use serde_json::{Value, json};

use crate::EvalError;
use crate::journal::Journal;
use crate::results::Results;
use crate::run::{Evaluation, Options, Prepared, Progress};
use crate::schedule::Scorer;
use crate::task::Selection;

/// How a model runs while it is evaluated.
pub struct Running {
    /// What changes it, each times its weight.
    pub adapters: Vec<(Adapter, f32)>,
    /// Whether quantised weights are widened, instead of products in integers with activations rounded to 8 bits.
    pub exact: bool,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// What it runs on.
    pub threads: Threads,
}

/// A model that is ready to be evaluated, and how it will be.
pub struct Subject {
    /// What it is called.
    pub name: String,
    /// What tells it from all others, as far as scores go.
    pub identity: Value,
    /// How it will be evaluated.
    pub options: Options,
    /// The model at work.
    pub scorer: Scorer,
    tokenizer: Tokenizer,
}

impl Subject {
    /// Makes `stored` ready.
    ///
    /// # Errors
    /// If texts are to begin with a token that `tokenizer` does not have, or weights cannot be read.
    pub fn load(
        stored: StoredModel,
        tokenizer: Tokenizer,
        running: Running,
        options: Options,
    ) -> Result<Self, EvalError> {
        if options.bos && tokenizer.bos_id().is_none() {
            return Err(EvalError::NoBos);
        }
        let Running { adapters, exact, cache, threads } = running;
        let known =
            |(adapter, weight): &(_, f32)| json!({ "sha256": fingerprint_of_adapter(adapter), "weight": weight });
        let name = stored.path.display().to_string();
        let mut identity = json!({
            "sha256": fingerprint(&stored)?,
            "format": stored.format.to_string(),
            "weights": stored.main_encoding().to_string(),
            "parameters": stored.config.parameters(),
            "adapters": adapters.iter().map(known).collect::<Vec<_>>(),
            "cache": format!("{cache:?}").to_lowercase(),
        });
        let model = if exact { stored.into_model()?.widened() } else { stored.into_packed_model(&threads)? };
        // Whether weights of sixteen bits are multiplied as such is the machine's choice.
        identity["arithmetic"] = match (exact, model.products()) {
            (true, _) => "widened",
            (false, Products::F32) => "integers",
            (false, Products::BF16) => "bf16",
        }
        .into();
        let adapters: Vec<(&Adapter, f32)> = adapters.iter().map(|(adapter, weight)| (adapter, *weight)).collect();
        let weights = (!adapters.is_empty()).then(|| AdapterWeights::combined(&adapters, &model, &threads));
        let engine = Engine::new(model, threads).with_cache(cache);
        let scorer = Scorer::new(engine, weights.map(Arc::new), options.context);
        Ok(Self { name, identity, options, scorer, tokenizer })
    }

    /// Evaluates `tasks`, which are those of `selections`; with a folder the results and each document go there. Finished queries
    /// are in `journal`, whatever happens.
    ///
    /// # Errors
    /// See [`EvalError`]; [`EvalError::Stopped`] when `stop` was raised.
    pub fn evaluate(
        &mut self,
        selections: &[Selection],
        tasks: Vec<Prepared<'_>>,
        journal: Journal,
        folder: Option<&Path>,
        stop: &AtomicBool,
        on_progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Results, EvalError> {
        let Self { name, identity, options, scorer, tokenizer } = self;
        let mut evaluation = Evaluation { scorer, tokenizer, options: options.clone(), journal, stop };
        let tasks = evaluation.run(tasks, folder, on_progress)?;
        let mut identity = identity.clone();
        identity["name"] = name.as_str().into();
        let results = Results::new(identity, options, selections, tasks);
        folder.map_or(Ok(()), |folder| results.write(folder))?;
        Ok(results)
    }
}

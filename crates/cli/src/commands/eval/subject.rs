//! The model that is evaluated.

use anyhow::{Result, ensure};
use openelm_eval::{Options, Scorer, tokens_in_memory};
use openelm_formats::{StoredModel, fingerprint, fingerprint_of_adapter};
use openelm_model::Tokenizer;
use serde_json::{Value, json};

use super::{Arguments, Bos};
use crate::commands::running::combined;
use crate::commands::shown;

/// A model that is ready to be evaluated, and how it will be.
pub struct Subject {
    /// What it is called.
    pub name: String,
    /// What tells it from all others, as far as scores go.
    pub identity: Value,
    pub options: Options,
    pub scorer: Scorer,
    pub tokenizer: Tokenizer,
}

impl Subject {
    pub fn load(arguments: &Arguments, stored: StoredModel, tokenizer: Tokenizer) -> Result<Self> {
        let context = arguments.context.unwrap_or(stored.config.context_length);
        let bos = arguments.bos.map_or(tokenizer.adds_bos(), |bos| bos == Bos::Yes);
        ensure!(!bos || tokenizer.bos_id().is_some(), "--bos=yes: the tokenizer has no token that begins a text");
        let options = Options { limit: arguments.limit, seed: arguments.seed, ..Options::new(bos, context) };
        let running = &arguments.running;
        running.check_memory(&stored, tokens_in_memory(context))?;
        let adapters = running.adapter.open(&stored.config)?;
        let known =
            |(adapter, weight): &(_, f32)| json!({ "sha256": fingerprint_of_adapter(adapter), "weight": weight });
        let name = shown(&stored.path);
        let identity = json!({
            "sha256": fingerprint(&stored)?,
            "format": stored.format.to_string(),
            "weights": stored.main_encoding().to_string(),
            "parameters": stored.config.parameters(),
            "adapters": adapters.iter().map(known).collect::<Vec<_>>(),
            "arithmetic": running.arithmetic.name(),
            "cache": format!("{:?}", running.cache).to_lowercase(),
        });
        let engine = running.engine(stored)?;
        let adapter = combined(&adapters, &engine);
        Ok(Self { name, identity, options, scorer: Scorer::new(engine, adapter, context), tokenizer })
    }
}

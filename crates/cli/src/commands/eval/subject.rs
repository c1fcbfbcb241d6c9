//! The model that is evaluated, as it is asked for on the command line.

use anyhow::Result;
use openelm_eval::{Options, Running, Subject, tokens_in_memory};
use openelm_formats::StoredModel;
use openelm_model::Tokenizer;

use super::{Arguments, Bos};

/// `stored`, ready to be evaluated.
pub fn load(arguments: &Arguments, stored: StoredModel, tokenizer: Tokenizer) -> Result<Subject> {
    let context = arguments.context.unwrap_or(stored.config.context_length);
    let bos = arguments.bos.map_or(tokenizer.adds_bos(), |bos| bos == Bos::Yes);
    let options = Options { limit: arguments.limit, seed: arguments.seed, ..Options::new(bos, context) };
    let running = &arguments.running;
    running.check_memory(&stored, tokens_in_memory(context))?;
    let running = Running {
        adapters: running.adapter.open(&stored.config)?,
        exact: running.arithmetic.exact,
        cache: running.cache.into(),
        threads: running.threads.threads(),
    };
    Ok(Subject::load(stored, tokenizer, running, options)?)
}

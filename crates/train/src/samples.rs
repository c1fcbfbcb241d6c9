//! What the model in training writes at a moment of the run.

use std::sync::Arc;

use openelm_model::{Engine, GenerationOptions, ModelConfig, SamplingOptions, Session, Tokenizer, generate};

use crate::recipe::LogRecipe;
use crate::run::{RunError, RunTokenizer, SampleEntry};
use crate::trainer::Trainer;

/// The recipe's prompts, as text and as ids, if samples are to be written at all.
pub(crate) struct Samples {
    prompts: Vec<(String, Vec<u32>)>,
    options: GenerationOptions,
    tokenizer: Arc<Tokenizer>,
}

impl Samples {
    /// Encodes the prompts of `log`, so that one which does not suit the model is known before the run begins. The draws depend on
    /// the recipe's `seed` alone, so that samples of different moments differ by the model.
    pub fn open(
        log: &LogRecipe,
        seed: u64,
        config: &ModelConfig,
        tokenizer: &RunTokenizer,
        encode: impl Fn(&str) -> Result<Vec<u32>, String>,
    ) -> Result<Self, RunError> {
        let wanted = if log.sample_every > 0 { &log.prompts[..] } else { &[] };
        let encode = |prompt: &String| {
            let ids = encode(prompt).map_err(|reason| failed(prompt, reason))?;
            let (tokens, most) = (ids.len(), config.context_length);
            match tokens {
                0 => Err(failed(prompt, "it has no token; begin with a word".to_owned())),
                _ if tokens > most => Err(failed(prompt, format!("it has {tokens} tokens, the model takes {most}"))),
                _ => Ok((prompt.clone(), ids)),
            }
        };
        let sampling = SamplingOptions { temperature: 0.8, seed, ..SamplingOptions::default() };
        let max_tokens = log.sample_tokens;
        Ok(Self {
            prompts: wanted.iter().map(encode).collect::<Result<_, _>>()?,
            options: GenerationOptions { sampling, max_tokens, ..GenerationOptions::default() },
            tokenizer: tokenizer.tokenizer.clone(),
        })
    }

    /// A text for each prompt.
    pub fn write(&self, trainer: &Trainer) -> Result<Vec<SampleEntry>, RunError> {
        let (model, adapter) = trainer.model().runnable(trainer.threads()).map_err(|reason| failed("", reason))?;
        let limit = model.config().context_length;
        let engine = Arc::new(Engine::new(model, trainer.threads().clone()));
        let sample = |(prompt, ids): &(String, Vec<u32>)| {
            let mut session = match &adapter {
                None => Session::new(engine.clone(), limit),
                Some(adapter) => Session::adapted(engine.clone(), limit, adapter.clone())
                    .map_err(|e| failed(prompt, e.to_string()))?,
            };
            let text = generate(&mut session, &self.tokenizer, ids, self.options.clone());
            let text = text.map_err(|e| failed(prompt, e.to_string()))?;
            Ok(SampleEntry { step: trainer.steps(), prompt: prompt.clone(), text })
        };
        self.prompts.iter().map(sample).collect()
    }
}

fn failed(prompt: &str, reason: String) -> RunError {
    RunError::Sample { prompt: prompt.to_owned(), reason }
}

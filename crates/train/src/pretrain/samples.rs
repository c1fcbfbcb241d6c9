//! What the model writes at a moment of the run.

use std::sync::Arc;

use openelm_model::{
    Engine, GenerationOptions, Model, ModelConfig, SamplingOptions, Session, Tensor, TensorSpec, Tokenizer, generate,
};

use crate::recipe::Recipe;
use crate::run::{RunError, RunTokenizer, SampleEntry};
use crate::trainer::Trainer;

/// The recipe's prompts, as text and as ids, if samples are to be written at all.
pub(super) struct Samples {
    prompts: Vec<(String, Vec<u32>)>,
    options: GenerationOptions,
    tokenizer: Arc<Tokenizer>,
}

impl Samples {
    /// Encodes the prompts, so that one which does not suit the model is known before the run begins.
    pub fn open(recipe: &Recipe, config: &ModelConfig, tokenizer: &RunTokenizer) -> Result<Self, RunError> {
        let wanted = if recipe.log.sample_every > 0 { &recipe.log.prompts[..] } else { &[] };
        let encode = |prompt: &String| {
            let ids = tokenizer.tokenizer.encode_prompt(prompt);
            let (tokens, most) = (ids.len(), config.context_length);
            match tokens {
                0 => Err(failed(prompt, "it has no token; begin with a word".to_owned())),
                _ if tokens > most => Err(failed(prompt, format!("it has {tokens} tokens, the model takes {most}"))),
                _ => Ok((prompt.clone(), ids)),
            }
        };
        // The draws depend on the recipe's seed alone, so that samples of different moments differ by the model.
        let sampling = SamplingOptions { temperature: 0.8, seed: recipe.train.seed, ..SamplingOptions::default() };
        let max_tokens = recipe.log.sample_tokens;
        Ok(Self {
            prompts: wanted.iter().map(encode).collect::<Result<_, _>>()?,
            options: GenerationOptions { sampling, max_tokens, ..GenerationOptions::default() },
            tokenizer: tokenizer.tokenizer.clone(),
        })
    }

    /// A text for each prompt.
    pub fn write(&self, trainer: &Trainer) -> Result<Vec<SampleEntry>, RunError> {
        let config = trainer.config();
        let copy = |(spec, values): (&TensorSpec, &[f32])| {
            let tensor = Tensor::from_f32(spec.shape.clone(), values.to_vec());
            tensor.map(|tensor| (spec.name.clone(), tensor)).map_err(|e| failed("", e.to_string()))
        };
        let tensors = trainer.parameters().tensors().map(copy).collect::<Result<_, _>>()?;
        let model = Model::new(config.clone(), tensors).map_err(|e| failed("", e.to_string()))?;
        let engine = Arc::new(Engine::new(model, trainer.threads().clone()));
        let sample = |(prompt, ids): &(String, Vec<u32>)| {
            let mut session = Session::new(engine.clone(), config.context_length);
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

//! What the model writes at a moment of the run.

use openelm::kernels::Threads;
use openelm::{GenerationOptions, Model, SamplingOptions, Session, Tensor, TensorSpec, generate};

use super::log::SampleEntry;
use super::{PretrainError, RunTokenizer};
use crate::{Recipe, Trainer};

/// A text for each prompt of the recipe. The draws depend on the recipe's seed alone, so that samples of different moments
/// differ by the model.
pub(super) fn samples(
    trainer: &Trainer,
    recipe: &Recipe,
    tokenizer: &RunTokenizer,
    threads: &Threads,
) -> Result<Vec<SampleEntry>, PretrainError> {
    let config = trainer.config();
    let failed = |prompt: &str, reason: String| PretrainError::Sample { prompt: prompt.to_owned(), reason };
    let copy = |(spec, values): (&TensorSpec, &[f32])| {
        let tensor = Tensor::from_f32(spec.shape.clone(), values.to_vec());
        tensor.map(|tensor| (spec.name.clone(), tensor)).map_err(|e| failed("", e.to_string()))
    };
    let tensors = trainer.parameters().tensors().map(copy).collect::<Result<_, _>>()?;
    let model = Model::new(config.clone(), tensors).map_err(|e| failed("", e.to_string()))?;
    let sampling = SamplingOptions { temperature: 0.8, seed: recipe.train.seed, ..SamplingOptions::default() };
    let options = GenerationOptions { sampling, max_tokens: recipe.log.sample_tokens, ..GenerationOptions::default() };
    let sample = |prompt: &String| {
        let mut session = Session::new(&model, threads.clone(), config.context_length);
        let ids = tokenizer.tokenizer.encode_with(prompt, true, false);
        let generation = generate(&mut session, &tokenizer.tokenizer, &ids, &options, |_| ());
        let text = generation.map_err(|e| failed(prompt, e.to_string()))?.text;
        Ok(SampleEntry { step: trainer.steps(), prompt: prompt.clone(), text })
    };
    recipe.log.prompts.iter().map(sample).collect()
}

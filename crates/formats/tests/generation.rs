//! Agreement with the tokens that `transformers` generates greedily (`tests/golden/generate`; exact).

#![allow(clippy::unwrap_used)]

use openelm_formats::huggingface;
use openelm_model::kernels::Threads;
use openelm_model::{Finish, GenerationOptions, Model, Sampler, SamplingOptions, Session, Tokenizer, generate};
use openelm_testing::{golden, json};
use serde_json::Value;

fn model() -> Model {
    huggingface::read(&golden("tiny/hf")).unwrap().into_model().unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

#[test]
fn greedy_tokens_with_and_without_penalties() {
    let model = model();
    let greedy = SamplingOptions { temperature: 0.0, ..SamplingOptions::default() };
    let cases = json(&golden("generate/greedy.json"));
    let mut compared = 0;
    for case in cases["cases"].as_array().unwrap() {
        for (key, expected) in case.as_object().unwrap() {
            let options = match key.as_str() {
                "greedy" => greedy.clone(),
                "repetition_penalty_1_2" => SamplingOptions { repetition_penalty: 1.2, ..greedy.clone() },
                "no_repeat_ngram_3" => SamplingOptions { no_repeat_ngram: 3, ..greedy.clone() },
                "repetition_penalty_1_1_and_no_repeat_ngram_2" => {
                    SamplingOptions { repetition_penalty: 1.1, no_repeat_ngram: 2, ..greedy.clone() }
                }
                _ => continue,
            };
            let mut sampler = Sampler::new(options).unwrap();
            let (mut history, expected) = (ids(&case["prompt"]), ids(expected));
            let mut session = Session::new(&model, Threads::new(2), history.len() + expected.len());
            let mut logits = session.append(&history).unwrap();
            for &id in &expected {
                assert_eq!(sampler.sample(logits, &history), Ok(id), "{key} at {}", history.len());
                history.push(id);
                logits = session.append(&[id]).unwrap();
            }
            compared += 1;
        }
    }
    assert!(compared >= 12, "only {compared} cases");
}

#[test]
fn generation_streams_what_it_returns_and_knows_when_to_end() {
    let model = model();
    let tokenizer = Tokenizer::open(&golden("tokenizer_small")).unwrap();
    // The model has fewer ids than the tokenizer: any that both have will do.
    let prompt = [1, 300, 301, 302];
    let run = |options: &GenerationOptions, limit| {
        let mut session = Session::new(&model, Threads::new(2), limit);
        let mut streamed = String::new();
        let generation = generate(&mut session, &tokenizer, &prompt, options, |text| streamed.push_str(text)).unwrap();
        assert_eq!(streamed, generation.text);
        generation
    };
    let sampling = SamplingOptions { temperature: 0.8, seed: 3, ..SamplingOptions::default() };
    let options = GenerationOptions { sampling, max_tokens: 40, ignore_eos: true, ..GenerationOptions::default() };
    let whole = run(&options, 500);
    assert_eq!((whole.finish, whole.ids.len()), (Finish::MaxTokens, 40));
    let both: Vec<u32> = prompt.iter().chain(&whole.ids).copied().collect();
    assert_eq!(tokenizer.decode(&both), format!("{}{}", tokenizer.decode(&prompt), whole.text));

    let middle: String = whole.text.chars().skip(10).take(3).collect();
    let stopped = run(&GenerationOptions { stop: vec![middle.clone()], ..options.clone() }, 500);
    assert_eq!(stopped.finish, Finish::Stop);
    assert_eq!(stopped.text, whole.text[..whole.text.find(&middle).unwrap()]);

    let full = run(&options, prompt.len() + 7);
    assert_eq!(full.finish, Finish::ContextFull);
    assert_eq!(full.ids, whole.ids[..full.ids.len()]);

    let nothing = run(&GenerationOptions { max_tokens: 0, ..options }, 500);
    assert!(nothing.text.is_empty() && nothing.ids.is_empty());
}

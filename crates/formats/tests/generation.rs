//! Agreement with the tokens that `transformers` generates greedily (`tests/golden/generate`; exact).

#![allow(clippy::unwrap_used)]

use openelm_formats::huggingface;
use openelm_model::kernels::Threads;
use openelm_model::{
    Engine, Finish, Generation, GenerationOptions, Model, Sampler, SamplingOptions, Session, Token, Tokenizer,
};
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
            let mut session = Session::new(Engine::new(model.clone(), Threads::new(2)), history.len() + expected.len());
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
        let mut session = Session::new(Engine::new(model.clone(), Threads::new(2)), limit);
        let mut generation = Generation::new(&mut session, &tokenizer, &prompt, options.clone()).unwrap();
        let (mut text, mut tokens) = (String::new(), Vec::new());
        for piece in generation.by_ref() {
            let piece = piece.unwrap();
            text += &piece.text;
            tokens.extend(piece.tokens);
        }
        let finish = generation.finish().unwrap();
        assert!(generation.next().is_none());
        let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
        // The same state afterwards however it ended.
        assert_eq!(session.tokens(), [&prompt[..], &ids].concat());
        (text, tokens, ids, finish)
    };
    let sampling = SamplingOptions { temperature: 0.8, seed: 3, ..SamplingOptions::default() };
    let options = GenerationOptions { sampling, max_tokens: 40, ignore_eos: true, ..GenerationOptions::default() };
    let (text, _, ids, finish) = run(&options, 500);
    assert_eq!((finish, ids.len()), (Finish::MaxTokens, 40));
    let both: Vec<u32> = prompt.iter().chain(&ids).copied().collect();
    assert_eq!(tokenizer.decode(&both), format!("{}{text}", tokenizer.decode(&prompt)));

    let middle: String = text.chars().skip(10).take(3).collect();
    let (stopped, _, _, finish) = run(&GenerationOptions { stop: vec![middle.clone()], ..options.clone() }, 500);
    assert_eq!(finish, Finish::Stop);
    assert_eq!(stopped, text[..text.find(&middle).unwrap()]);

    let (_, _, full, finish) = run(&options, prompt.len() + 7);
    assert_eq!(finish, Finish::ContextFull);
    assert_eq!(full, ids[..7]);

    let (nothing, tokens, ..) = run(&GenerationOptions { max_tokens: 0, ..options.clone() }, 500);
    assert!(nothing.is_empty() && tokens.is_empty());

    let (_, tokens, same, _) = run(&GenerationOptions { log_probabilities: true, ..options }, 500);
    assert_eq!(same, ids);
    let mut session = Session::new(Engine::new(model.clone(), Threads::new(1)), 500);
    session.append(&prompt).unwrap();
    for Token { id, log_probability: found } in tokens {
        let logits = session.logits().unwrap();
        let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        let expected = f64::from(logits[id as usize]) - total.ln();
        assert!((f64::from(found.unwrap()) - expected).abs() < 1e-5);
        session.append(&[id]).unwrap();
    }
}

#[test]
fn a_generation_that_is_dropped_leaves_a_session_that_goes_on() {
    let model = model();
    let tokenizer = Tokenizer::open(&golden("tokenizer_small")).unwrap();
    let options = GenerationOptions {
        sampling: SamplingOptions { temperature: 0.0, repetition_penalty: 1.3, ..SamplingOptions::default() },
        max_tokens: 30,
        ignore_eos: true,
        ..GenerationOptions::default()
    };
    let session = || Session::new(Engine::new(model.clone(), Threads::new(2)), 500);
    let mut whole = session();
    let ids = |generation: Generation<'_>, pieces| -> Vec<u32> {
        generation.take(pieces).flat_map(|piece| piece.unwrap().tokens).map(|token| token.id).collect()
    };
    let expected = ids(Generation::new(&mut whole, &tokenizer, &[1, 300, 301], options.clone()).unwrap(), usize::MAX);
    // Stopped after a few pieces, it goes on behind them as if it had not been: penalties see what was there before.
    let mut stopped = session();
    let first = ids(Generation::new(&mut stopped, &tokenizer, &[1, 300, 301], options.clone()).unwrap(), 3);
    assert!(!first.is_empty() && first.len() < 30);
    let options = GenerationOptions { max_tokens: 30 - first.len(), ..options };
    let second = ids(Generation::new(&mut stopped, &tokenizer, &[], options).unwrap(), usize::MAX);
    assert_eq!([first, second].concat(), expected);
}

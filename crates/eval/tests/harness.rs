//! Agreement with lm-evaluation-harness 0.4.9.1: what is asked, what the model says of it, and what that makes.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use openelm_eval::{
    Done, Encoding, Evaluation, Harness, Journal, Library, Options, Outcome, Rendered, Scorer, Sources, TaskName,
    TaskResult, prepare,
};
use openelm_model::kernels::Threads;
use openelm_model::{Engine, Tokenizer};
use openelm_testing::{json, shared};
use serde_json::Value;

/// The model and the tokenizer that the harness was run with, and the folder of what it gave.
fn golden() -> Option<(Engine, Tokenizer, PathBuf)> {
    let (folder, tokenizer) = (shared("golden/eval")?, shared("golden/tokenizer/tokenizer.model")?);
    let model = openelm_formats::open(&folder.join("model")).unwrap().into_model().unwrap();
    Some((Engine::new(model, Threads::new(2)), Tokenizer::open(&tokenizer).unwrap(), folder))
}

/// 1e-3, and 1e-4 of the value: what a mean over few tokens of another order of sums may differ by.
#[track_caller]
fn assert_near(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-3 + 1e-4 * expected.abs(), "{what}: {found} instead of {expected}");
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Evaluates `task` into `folder`, by the older rules.
fn evaluate(
    engine: Engine,
    tokenizer: &Tokenizer,
    docs: &Path,
    name: &str,
    options: Options,
    folder: &Path,
) -> TaskResult {
    let library = Library::new(Harness::V0_4_9_1).unwrap();
    let selection = library.select(&TaskName::parse(name).unwrap(), 0).unwrap();
    let sources = Sources { folder: Some(docs.to_owned()), hub: None };
    let tasks = prepare(&selection.tasks(), &sources, &options).unwrap();
    let mut scorer = Scorer::new(engine, None, options.context);
    let stop = AtomicBool::new(false);
    let mut evaluation =
        Evaluation { scorer: &mut scorer, tokenizer, options, journal: Journal::default(), stop: &stop };
    evaluation.run(tasks, Some(folder), &mut |_| {}).unwrap().remove(0).1
}

/// The requests of a document of the harness: contexts and continuations.
fn requests(sample: &Value) -> (Vec<String>, Vec<String>) {
    let texts = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    if let Some(requests) = sample["requests"].as_array() {
        let pairs: Vec<Vec<String>> = requests.iter().map(texts).collect();
        return pairs.into_iter().map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
    }
    if let Some(text) = sample["text"].as_str() {
        return (vec![String::new()], vec![text.to_owned()]);
    }
    let continuations = texts(&sample["continuations"]);
    // Of long contexts the tail alone was kept.
    let context = sample.get("context").or(sample.get("context_tail")).and_then(Value::as_str).unwrap();
    (vec![context.to_owned(); continuations.len()], continuations)
}

#[test]
fn requests_log_likelihoods_decisions_metrics_and_errors_are_those_of_the_harness() {
    let Some((_, tokenizer, folder)) = golden() else { return };
    let results = json(&folder.join("results.json"));
    for (tag, expected) in results["tasks"].as_object().unwrap() {
        let (engine, ..) = golden().unwrap();
        let shots = expected["num_fewshot"].as_u64().unwrap();
        let name = format!("{}:{shots}", expected["task"].as_str().unwrap());
        let context = expected["max_length"].as_u64().unwrap() as usize;
        let options = Options::new(expected["add_bos_token"].as_bool().unwrap(), context);
        let out = tempfile::tempdir().unwrap();
        let found = evaluate(engine, &tokenizer, &folder.join("docs"), &name, options.clone(), out.path());

        assert_eq!(f64::from(found.version), expected["version"].as_f64().unwrap(), "{tag}");
        for (metric, score) in &found.metrics {
            let of = |suffix: &str| &expected["results"][format!("{metric}{suffix},none")];
            let value = of("").as_f64().unwrap();
            // Perplexities are exponentials of sums: they differ by as much as those, relatively.
            let tolerance = if metric.ends_with("perplexity") { 1e-3 * value } else { 1e-6f64.max(1e-4 * value) };
            assert!((score.value - value).abs() <= tolerance, "{tag} {metric}: {} instead of {value}", score.value);
            match of("_stderr").as_f64() {
                Some(stderr) => {
                    let tolerance = if metric == "likelihood_diff" { 1e-3 } else { 1e-6 };
                    assert!((score.stderr.unwrap() - stderr).abs() <= tolerance, "{tag} {metric}: {score:?}, {stderr}");
                }
                None => assert_eq!(score.stderr, None, "{tag} {metric}"),
            }
        }

        let key = expected["task"].as_str().unwrap();
        let ours = lines(&out.path().join("samples").join(format!("{key}.jsonl")));
        let theirs = lines(&folder.join("samples").join(format!("{tag}.jsonl")));
        assert_eq!((ours.len(), found.documents), (theirs.len(), theirs.len()), "{tag}");
        for (place, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            let what = format!("{tag} document {place}");
            let (contexts, continuations) = requests(theirs);
            let found_contexts: Vec<String> = match &ours["context"] {
                Value::String(context) => vec![context.clone(); contexts.len()],
                several => serde_json::from_value(several.clone()).unwrap(),
            };
            for (found, context) in found_contexts.iter().zip(&contexts) {
                let same =
                    if theirs.get("context_tail").is_some() { found.ends_with(context) } else { found == context };
                assert!(same, "{what}:\n{found}\n{context}");
            }
            assert_eq!(ours["continuations"], Value::from(continuations.clone()), "{what}");
            let likelihoods: Vec<f64> = match theirs.get("loglikelihoods") {
                Some(values) => serde_json::from_value(values.clone()).unwrap(),
                None => vec![theirs["loglikelihood"][0][0].as_f64().unwrap()],
            };
            let found: Vec<f64> = serde_json::from_value(ours["log_likelihoods"].clone()).unwrap();
            assert_eq!(found.len(), likelihoods.len(), "{what}");
            found.iter().zip(&likelihoods).for_each(|(&found, &expected)| assert_near(found, expected, &what));
            if let Some(greedy) = theirs.get("is_greedy") {
                assert_eq!(ours["greedy"], *greedy, "{what}");
            }
            for (metric, value) in theirs["metrics"].as_object().unwrap() {
                let found = &ours["metrics"][metric];
                match (found.as_f64(), value.as_f64()) {
                    (Some(found), Some(expected)) => assert_near(found, expected, &what),
                    _ => {
                        assert_near(found[0].as_f64().unwrap(), value[0].as_f64().unwrap(), &what);
                        assert_eq!(found[1], value[1], "{what}");
                    }
                }
            }
            let Some(tokens) = theirs.get("token_ids").and_then(Value::as_array) else { continue };
            let rendered = asked(found_contexts, continuations);
            // Without the second BOS that 0.4.9.1 has behind an empty context.
            let harness = Harness::V0_4_13;
            let encoding = Encoding { tokenizer: &tokenizer, bos: options.bos, context: 1 << 20, harness };
            for (query, expected) in encoding.queries(&rendered).unwrap().of_continuations.iter().zip(tokens) {
                let (begin, end) = query[0].tokens.split_at(query[0].tokens.len() - query[0].scored);
                assert_eq!(serde_json::json!({"context_len": begin.len(), "continuation": end}), *expected, "{what}");
            }
        }
    }
}

/// A document without anything to measure.
fn asked(contexts: Vec<String>, continuations: Vec<String>) -> Rendered {
    let lengths = vec![1; continuations.len()];
    Rendered { contexts, continuations, lengths, answer: None, labels: None, counted: [0; 2], is_text: false }
}

#[test]
fn direct_requests_are_encoded_and_scored_as_by_the_harness() {
    let Some((engine, tokenizer, folder)) = golden() else { return };
    let expected = json(&folder.join("requests.json"));
    let mut scorer = Scorer::new(engine, None, 2048);
    let stop = AtomicBool::new(false);
    let mut score = |queries: &[openelm_eval::Query]| {
        let mut sum = Outcome { log_likelihood: 0.0, greedy: true };
        let take = &mut |done| {
            if let Done::Query(_, outcome) = done {
                sum.log_likelihood += outcome.log_likelihood;
                sum.greedy &= outcome.greedy;
            }
        };
        scorer.score(queries, &stop, take).unwrap();
        sum
    };
    for request in expected["loglikelihood"].as_array().unwrap() {
        let text = |key: &str| vec![request[key].as_str().unwrap().to_owned()];
        let queries = |harness| {
            let encoding = Encoding { tokenizer: &tokenizer, bos: true, context: 2048, harness };
            encoding.queries(&asked(text("context"), text("continuation"))).unwrap().of_continuations.remove(0)
        };
        // The ids were written down without the second BOS that 0.4.9.1 has behind an empty context, and scores.
        let query = &queries(Harness::V0_4_13)[0];
        let (begin, end) = query.tokens.split_at(query.tokens.len() - query.scored);
        assert_eq!(Value::from(begin.to_vec()), request["context_ids"], "{request}");
        assert_eq!(Value::from(end.to_vec()), request["continuation_ids"], "{request}");
        let found = score(&queries(Harness::V0_4_9_1));
        assert_near(found.log_likelihood, request["loglikelihood"].as_f64().unwrap(), &request.to_string());
        assert_eq!(Value::from(found.greedy), request["is_greedy"], "{request}");
    }
    for request in expected["rolling"].as_array().unwrap() {
        let bos = request["add_bos_token"].as_bool().unwrap();
        let context = request["max_length"].as_u64().unwrap() as usize;
        let encoding = Encoding { tokenizer: &tokenizer, bos, context, harness: Harness::V0_4_13 };
        let text = vec![request["text"].as_str().unwrap().to_owned()];
        let rendered = Rendered { is_text: true, ..asked(vec![String::new()], text) };
        let windows = encoding.queries(&rendered).unwrap().of_continuations.remove(0);
        let shape: Vec<[usize; 2]> = windows.iter().map(|w| [w.tokens.len() - w.scored, w.scored]).collect();
        assert_eq!(serde_json::json!(shape), request["windows"], "{request}");
        assert_near(score(&windows).log_likelihood, request["loglikelihood"].as_f64().unwrap(), "rolling");
    }
}

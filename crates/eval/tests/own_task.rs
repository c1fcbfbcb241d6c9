//! A task of one's own on the model in this repository: batching, order, sharing, interruption, and what can be wrong with it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use openelm_eval::{
    Done, Earlier, EvalError, Evaluation, Harness, Journal, Library, Options, Outcome, Prepared, Query, Results,
    Scorer, Selection, Sources, TaskName, TaskResult, prepare,
};
use openelm_model::kernels::Threads;
use openelm_model::{Engine, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

const TASK: &str = r#"
name = "animals"
version = 1
metrics = ["acc", "acc_norm"]

[data]
files = { test = "test.jsonl", train = "train.jsonl" }
split = "test"

[prompt]
kind = "choices"
description = "Of the fox and the geese.\n\n"
context = "Question: {{question}}\nAnswer:"
choices = "choices"
answer = "answer"

[shots]
split = "train"
order = "first"
"#;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new(task: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.write("task.toml", task);
        let document = |i: usize| {
            let animals = ["a fox", "a goose", "the old king of the forest", "the fox and the goose"];
            let question = format!("Who met {} on day {}?", animals[i % 3], i * 7 % 11);
            json!({"question": question, "choices": animals[..2 + i % 3], "answer": i % 2}).to_string() + "\n"
        };
        place.write("test.jsonl", &(0..40).map(document).collect::<String>());
        place.write("train.jsonl", &(40..45).map(document).collect::<String>());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn selection(&self, shots: usize) -> Result<Selection, EvalError> {
        let name =
            TaskName { name: self.path("task.toml").to_str().unwrap().to_owned(), shots: Some(shots), harness: None };
        Library::new(Harness::default())?.select(&name, 0)
    }

    fn refusal(&self) -> String {
        let selection = match self.selection(0) {
            Ok(selection) => selection,
            Err(e) => return e.to_string(),
        };
        match prepare(&selection.tasks(), &nowhere(), &Options::new(true, 256)) {
            Ok(tasks) => match evaluate(tasks, None, Journal::default(), &AtomicBool::new(false), 1) {
                Ok(_) => panic!("nothing is wrong"),
                Err(e) => e.to_string(),
            },
            Err(e) => e.to_string(),
        }
    }
}

fn nowhere() -> Sources<'static> {
    Sources { folder: None, hub: None }
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/storyteller")
}

fn engine(threads: usize) -> Engine {
    let model = openelm_formats::open(&model()).unwrap().into_model().unwrap();
    Engine::new(model, Threads::new(threads))
}

fn evaluate(
    tasks: Vec<Prepared<'_>>,
    folder: Option<&Path>,
    journal: Journal,
    stop: &AtomicBool,
    threads: usize,
) -> Result<(TaskResult, usize), EvalError> {
    let tokenizer = Tokenizer::open(&model()).unwrap();
    let options = Options::new(true, 256);
    let mut scorer = Scorer::new(engine(threads), None, options.context);
    let mut evaluation = Evaluation { scorer: &mut scorer, tokenizer: &tokenizer, options, journal, stop };
    let results = evaluation.run(tasks, folder, &mut |_| {});
    Ok((results?.remove(0).1, evaluation.scorer.computed()))
}

fn samples(folder: &Path) -> String {
    fs::read_to_string(folder.join("samples/animals.jsonl")).unwrap()
}

#[test]
fn bits_do_not_depend_on_batching_order_sharing_or_threads() {
    let place = Place::new(TASK);
    let selection = place.selection(3).unwrap();
    let run = |threads, name: &str| {
        let folder = place.path(name);
        let tasks = prepare(&selection.tasks(), &nowhere(), &Options::new(true, 256)).unwrap();
        let (result, computed) =
            evaluate(tasks, Some(&folder), Journal::default(), &AtomicBool::new(false), threads).unwrap();
        (samples(&folder), result, computed)
    };
    let (together, result, computed) = run(2, "two");
    assert_eq!((result.documents, result.shots), (40, 3));
    assert_eq!((&together, &result), (&run(1, "one").0, &run(1, "again").1));

    // Each continuation alone, in an engine that has seen nothing before, in the opposite order.
    let tokenizer = Tokenizer::open(&model()).unwrap();
    let mut scorer = Scorer::new(engine(1), None, 256);
    let mut alone = 0;
    for sample in together.lines().rev().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let context = sample["context"].as_str().unwrap();
        let begin = tokenizer.encode_with(context, true, false);
        for (place, continuation) in sample["continuations"].as_array().unwrap().iter().enumerate().rev() {
            let whole = tokenizer.encode_with(&format!("{context}{}", continuation.as_str().unwrap()), true, false);
            let query = Query { scored: whole.len() - begin.len(), tokens: [&begin, &whole[begin.len()..]].concat() };
            alone += query.tokens.len() - 1;
            let mut found = None;
            let take = &mut |done| {
                if let Done::Query(_, outcome) = done {
                    found = Some(outcome);
                }
            };
            scorer.score(&[query], &AtomicBool::new(false), take).unwrap();
            let Outcome { log_likelihood, greedy } = found.unwrap();
            assert_eq!(log_likelihood.to_bits(), sample["log_likelihoods"][place].as_f64().unwrap().to_bits());
            assert_eq!(Value::from(greedy), sample["greedy"][place]);
        }
    }
    // The shots are computed once.
    assert!(5 * computed < alone, "{computed} tokens instead of {alone}");
}

#[test]
fn an_interrupted_evaluation_goes_on_to_the_same_bits() {
    let place = Place::new(TASK);
    let selection = place.selection(0).unwrap();
    let tasks = || prepare(&selection.tasks(), &nowhere(), &Options::new(true, 256)).unwrap();
    let identity = json!({"sha256": "of the model"});
    let journal = |name: &str| {
        fs::create_dir_all(place.path(name)).unwrap();
        Journal::open(&place.path(name), &identity).unwrap()
    };
    let whole = place.path("whole");
    let (result, computed) = evaluate(tasks(), Some(&whole), journal("whole"), &AtomicBool::new(false), 1).unwrap();

    let parts = place.path("parts");
    // Some of the queries, as a process that was killed leaves them.
    fs::create_dir_all(&parts).unwrap();
    let finished = fs::read_to_string(whole.join("requests.jsonl")).unwrap();
    let half: Vec<&str> = finished.lines().take(finished.lines().count() / 2).collect();
    fs::write(parts.join("requests.jsonl"), half.join("\n") + "\n{\"query\":\"00").unwrap();
    let (again, rest) = evaluate(tasks(), Some(&parts), journal("parts"), &AtomicBool::new(false), 2).unwrap();
    assert_eq!((again, samples(&parts)), (result.clone(), samples(&whole)));
    assert!(0 < rest && rest < computed, "{rest} of {computed}");

    let (third, nothing) = evaluate(tasks(), Some(&parts), journal("parts"), &AtomicBool::new(false), 1).unwrap();
    assert_eq!((third, nothing), (result, 0));

    // Asked to stop before it begins: nothing is written but what is finished.
    let stopped = place.path("stopped");
    let outcome = evaluate(tasks(), Some(&stopped), journal("stopped"), &AtomicBool::new(true), 1);
    assert!(matches!(outcome, Err(EvalError::Stopped)));
    assert!(!stopped.join("samples/animals.jsonl").exists());
}

#[test]
fn results_are_read_as_they_were_written_and_groups_are_means() {
    let place = Place::new(TASK);
    place.write("group.toml", "name = \"both\"\nmembers = [{ task = \"TASK\", metric = \"acc\" }, { task = \"TASK:2\", metric = \"acc_norm\" }]"
        .replace("TASK", place.path("task.toml").to_str().unwrap()).as_str());
    let name = TaskName::parse(place.path("group.toml").to_str().unwrap()).unwrap();
    let selections = [Library::new(Harness::default()).unwrap().select(&name, 0).unwrap()];
    let options = Options::new(true, 256);
    let tokenizer = Tokenizer::open(&model()).unwrap();
    let tasks = prepare(&openelm_eval::distinct(&selections), &nowhere(), &options).unwrap();
    assert_eq!([tasks[0].key(), tasks[1].key()], ["animals-0shot", "animals-2shot"]);
    let stop = AtomicBool::new(false);
    let mut scorer = Scorer::new(engine(2), None, 256);
    let mut evaluation = Evaluation {
        scorer: &mut scorer,
        tokenizer: &tokenizer,
        options: options.clone(),
        journal: Journal::default(),
        stop: &stop,
    };
    let found = evaluation.run(tasks, Some(place.folder.path()), &mut |_| {}).unwrap();
    let expected = (found[0].1.metrics["acc"].value + found[1].1.metrics["acc_norm"].value) / 2.0;
    let results = Results::new(json!({"sha256": "a"}), &options, &selections, found);
    assert!((results.groups["both"].score.value - expected).abs() < 1e-12);
    results.write(place.folder.path()).unwrap();
    let earlier = Earlier::open(place.folder.path()).unwrap();
    assert_eq!(earlier.results(), &results);
    assert_eq!(earlier.values("animals-0shot", "acc").unwrap().len(), 40);
}

#[test]
fn what_is_wrong_with_a_task_or_its_documents_is_named() {
    let with = |old: &str, new: &str| Place::new(&TASK.replace(old, new)).refusal();
    for (old, new, expected) in [
        ("split = \"test\"\n\n[prompt]", "\n[prompt]", "missing field `split`"),
        ("answer = \"answer\"", "", "needs `prompt.answer`"),
        ("version = 1", "version = 1\ncolour = 3", "unknown field `colour`"),
        ("\"acc_norm\"", "\"accuracy\"", "unknown variant `accuracy`"),
        ("choices = \"choices\"", "choices = \"choices[\"", "prompt.choices"),
        ("{{question}}", "{{qestion}}", "qestion"),
        ("{{question}}", "{{question.nothing()}}", "nothing"),
        ("choices = \"choices\"", "choices = \"question\"", "test.jsonl, document 1: prompt.choices"),
        ("choices = \"choices\"", "choices = \"[a, b]\"", "is not there; the document has question, choices, answer"),
        (
            "answer = \"answer\"",
            "answer = \"choices.index(gold)\"",
            "prompt.answer: invalid operation: what it looks for is not",
        ),
        ("answer = \"answer\"", "answer = \"gold\"", "test.jsonl, document 1: prompt.answer"),
        ("test.jsonl", "nowhere.jsonl", "nowhere.jsonl"),
        ("name = \"animals\"", "name = \"../animals\"", "must be of letters"),
    ] {
        let message = with(old, new);
        assert!(message.contains(expected) && message.lines().count() == 1, "{new}: {message}");
    }

    let document = |text: &str| {
        let place = Place::new(TASK);
        let sound = r#"{"question": "Who?", "choices": ["a", "b"], "answer": 0}"#;
        place.write("test.jsonl", &format!("{sound}\n{text}\n"));
        place.refusal()
    };
    for (text, expected) in [
        ("{\"question\":", "document 2: no JSON"),
        ("[1]", "document 2: no JSON object"),
        (r#"{"question": "Who?", "choices": ["a", "b"]}"#, "document 2: prompt.answer"),
        (
            r#"{"question": "Who?", "choices": ["a", "b"], "answer": 2}"#,
            "document 2: prompt.answer: 2 is no place among 2",
        ),
        (r#"{"question": "Who?", "choices": [], "answer": 0}"#, "document 2: prompt.choices: the list is empty"),
        (
            &json!({"question": "Who?", "choices": ["a", "fox ".repeat(400)], "answer": 0}).to_string(),
            "raise --context",
        ),
    ] {
        let message = document(text);
        assert!(message.contains(expected) && message.contains("test.jsonl"), "{text}: {message}");
    }

    let place = Place::new(TASK);
    let selection = place.selection(6).unwrap();
    let error = prepare(&selection.tasks(), &nowhere(), &Options::new(true, 256)).err().unwrap().to_string();
    assert!(error.contains("asked for 6 shots") && error.contains("only 5 documents"), "{error}");
}

#[test]
fn what_does_not_fit_the_context_loses_its_beginning_and_is_counted() {
    let place = Place::new(TASK);
    let selection = place.selection(5).unwrap();
    let options = Options::new(true, 48);
    let tasks = prepare(&selection.tasks(), &nowhere(), &options).unwrap();
    let tokenizer = Tokenizer::open(&model()).unwrap();
    let stop = AtomicBool::new(false);
    let mut scorer = Scorer::new(engine(2), None, 48);
    let mut evaluation =
        Evaluation { scorer: &mut scorer, tokenizer: &tokenizer, options, journal: Journal::default(), stop: &stop };
    let result = evaluation.run(tasks, None, &mut |_| {}).unwrap().remove(0).1;
    assert_eq!((result.truncated, result.requests), (result.requests, 119));
}

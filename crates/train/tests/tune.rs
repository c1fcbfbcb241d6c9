//! Tuning runs on a small model: what is tuned goes on to the bit wherever it stopped, and what is wrong is said before the first
//! update.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use openelm_formats::{StoredModel, StoredTokenizer, adapter};
use openelm_model::kernels::Threads;
use openelm_testing::golden;
use openelm_train::collective::Local;
use openelm_train::run::{Event, Outcome, RunError};
use openelm_train::tune::{TuneRecipe, tune_on};
use tempfile::TempDir;

/// A folder with examples, pairs and a recipe of a few updates.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let things = ["fox", "hen", "barn", "moon", "well", "mill", "oak"];
        let row = |i: usize| {
            let (a, b) = (things[i % 7], things[i * 3 % 5]);
            match i % 3 {
                0 => format!(
                    "{{\"instruction\": \"Name the {a}.\", \"input\": \"\", \"output\": \"It is the {b}, number {i}.\"}}"
                ),
                1 => format!("{{\"prompt\": \"The {a} and the\", \"completion\": \" {b} went home.\"}}"),
                _ => format!(
                    "{{\"messages\": [{{\"role\": \"user\", \"content\": \"Who is the {a}?\"}}, {{\"role\": \"assistant\", \
                     \"content\": \"A {b}.\"}}]}}"
                ),
            }
        };
        let rows: Vec<String> = (0..40).map(row).collect();
        fs::write(folder.path().join("rows.jsonl"), rows.join("\n")).unwrap();
        let pair = |i: usize| {
            let (a, b) = (things[i % 7], things[(i + 1) % 7]);
            format!("{{\"prompt\": \"The {a} {i} is\", \"chosen\": \" a {a}, yes.\", \"rejected\": \" no {b}\"}}")
        };
        let pairs: Vec<String> = (0..20).map(pair).collect();
        fs::write(folder.path().join("pairs.jsonl"), pairs.join("\n")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A recipe that writes into the folder `output`, with more lines.
    fn recipe(&self, output: &str, data: &str, rest: &str) -> TuneRecipe {
        let (output, data) = (self.path(output), self.path(data));
        let text = format!(
            "output = \"{}\"\nmodel = {{ path = \"model\" }}\ndata = {{ sources = [{{ path = \"{}\" }}], held_out = 0.1, max_length = 120, template = \"plain\" }}\n\
             schedule = {{ max_lr = 1e-2 }}\nlog = {{ every = 1, validate_every = 3 }}\ncheckpoint = {{ every = 2, keep = 0 }}\n{rest}\n",
            output.display(),
            data.display()
        );
        let path = self.path("recipe.toml");
        fs::write(&path, text).unwrap();
        TuneRecipe::load(&path, &[]).unwrap()
    }
}

const TRAIN: &str = "train = { batch_size = 2, accumulation = 4, steps = 6, shares = 4 }\n";

fn model(path: &str) -> StoredModel {
    let mut model = openelm_formats::open(&golden(path)).unwrap();
    model.tokenizer = Some(StoredTokenizer::File(golden("gguf/tokenizer.model")));
    model
}

/// Runs on `ranks` ranks with `threads` threads each until `step` was made.
fn run_until(
    recipe: &TuneRecipe,
    path: &str,
    (ranks, threads): (usize, usize),
    step: u64,
) -> Result<Outcome, RunError> {
    let stop = AtomicBool::new(false);
    let mut results = Local::on_each(ranks, |rank| {
        let mut watch = |event: Event| {
            if matches!(event, Event::Step(entry) if entry.step == step) {
                stop.store(true, Ordering::Relaxed);
            }
        };
        tune_on(Arc::new(rank), recipe, model(path), Threads::new(threads), &stop, &mut watch)
    });
    results.remove(0).map(Option::unwrap)
}

fn run(recipe: &TuneRecipe, path: &str) -> Result<Outcome, RunError> {
    run_until(recipe, path, (1, 1), u64::MAX)
}

fn losses(output: &Path) -> Vec<f64> {
    let log = fs::read_to_string(output.join("log.jsonl")).unwrap();
    let entries = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    entries.filter_map(|entry| entry["validation_loss"].as_f64()).collect()
}

/// The file `name` of two checkpoints must be the same.
fn assert_same(name: &str, a: &Path, b: &Path) {
    let [a, b] = [a, b].map(|checkpoint| fs::read(checkpoint.join(name)).unwrap());
    assert!(a == b, "{name} differs");
}

#[test]
fn an_adapter_with_dropout_goes_on_to_the_bit_on_any_number_of_ranks_and_threads() {
    let desk = Desk::new();
    for (name, adapter, base) in [
        ("lora", "adapter = { rank = 4, dropout = 0.2 }", "gguf/a-F32.gguf"),
        (
            "dora",
            "adapter = { kind = \"dora\", rank = 3, dropout = 0.1, rs_lora = true, targets = [\"qkv_proj\", { name = \"proj_2\", rank = 5 }] }",
            "gguf/a-F32.gguf",
        ),
        ("qdora", "adapter = { kind = \"dora\", rank = 3, dropout = 0.1 }", "gguf/a-Q4_0.gguf"),
    ] {
        let rest = format!("{TRAIN}{adapter}");
        let [whole, parts] = ["whole", "parts"].map(|part| desk.recipe(&format!("{name}-{part}"), "rows.jsonl", &rest));
        let outcome = run(&whole, base).unwrap();
        assert!(outcome.finished);
        for (size, step) in [((1, 2), 1), ((2, 1), 3), ((4, 1), u64::MAX)] {
            run_until(&parts, base, size, step).unwrap();
        }
        let last = parts.output.join("checkpoints/step-00000006");
        for file in ["adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "state.json"] {
            assert_same(file, &outcome.checkpoint, &last);
        }
        assert!(!last.join("model.safetensors").exists() && !last.join("trained.safetensors").exists());
        let adapter = adapter::open(&last, &model(base).config).unwrap();
        assert_eq!(adapter.modules().any(|(_, module)| module.magnitude.is_some()), name != "lora");
        let losses = losses(&parts.output);
        // Before the first update, half-way and at the end.
        assert!(losses.len() == 3 && losses.is_sorted_by(|a, b| b < a), "{name}: nothing was learnt: {losses:?}");
    }
}

#[test]
fn all_weights_go_on_to_the_bit_and_are_a_model() {
    let desk = Desk::new();
    let [whole, parts] = ["whole", "parts"]
        .map(|part| desk.recipe(part, "rows.jsonl", TRAIN).changed(&["schedule.max_lr=1e-3".to_owned()]).unwrap());
    let outcome = run(&whole, "gguf/a-F16.gguf").unwrap();
    run_until(&parts, "gguf/a-F16.gguf", (1, 2), 3).unwrap();
    let again = run(&parts, "gguf/a-F16.gguf").unwrap();
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        assert_same(file, &outcome.checkpoint, &again.checkpoint);
    }
    let tuned = openelm_formats::open(&again.checkpoint).unwrap();
    assert_eq!(tuned.config.parameters(), model("gguf/a-F16.gguf").config.parameters());
    let losses = losses(&whole.output);
    assert!(losses[1] < losses[0], "nothing was learnt: {losses:?}");
}

#[test]
fn preferences_are_learnt_and_the_reference_is_asked_once() {
    let desk = Desk::new();
    for loss in ["sigmoid", "hinge", "ipo", "orpo", "simpo"] {
        let rest = format!("{TRAIN}adapter = {{ rank = 4, dropout = 0.0 }}\npreference = {{ loss = \"{loss}\" }}\n");
        let recipe = desk.recipe(loss, "pairs.jsonl", &rest);
        run_until(&recipe, "gguf/a-F32.gguf", (1, 2), 2).unwrap();
        let reference = || {
            let entries = fs::read_dir(recipe.output.join("reference")).into_iter().flatten().flatten();
            entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap())).collect::<Vec<_>>()
        };
        let before = reference();
        assert_eq!(before.len(), usize::from(matches!(loss, "sigmoid" | "hinge" | "ipo")), "{loss}");
        let outcome = run(&recipe, "gguf/a-F32.gguf").unwrap();
        assert!(outcome.finished && reference() == before, "{loss}");
        let log = fs::read_to_string(recipe.output.join("log.jsonl")).unwrap();
        let entries: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let margins: Vec<f64> = entries.iter().filter_map(|entry| entry["metrics"]["margin"].as_f64()).collect();
        assert!(margins.len() == 6 && margins[5] > margins[0], "{loss}: nothing was learnt: {margins:?}");
        if loss == "sigmoid" {
            // Before the first update the policy is the reference, to the bit.
            assert_eq!(margins[0], 0.0);
        }
        let measured = entries.iter().find(|entry| entry["validation_loss"].is_number()).unwrap();
        assert!(measured["validation_metrics"]["accuracy"].is_number(), "{measured}");
    }
}

#[test]
fn other_examples_or_another_model_do_not_go_on() {
    let desk = Desk::new();
    let recipe = desk.recipe("run", "rows.jsonl", &format!("{TRAIN}adapter = {{ rank = 4 }}"));
    run_until(&recipe, "gguf/a-F32.gguf", (1, 1), 2).unwrap();
    let says = |recipe: &TuneRecipe, base: &str, expected: &str| {
        let message = run(recipe, base).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    says(&recipe, "gguf/a-Q8_0.gguf", "the model, or the adapter it begins with, is not what it was");
    let other = desk.recipe("run", "rows.jsonl", &format!("{TRAIN}adapter = {{ rank = 5 }}"));
    says(&other, "gguf/a-F32.gguf", "another adapter");
    let whole = desk.recipe("run", "rows.jsonl", TRAIN);
    says(&whole, "gguf/a-F32.gguf", "another choice of what is trained");
    let rows = fs::read_to_string(desk.path("rows.jsonl")).unwrap();
    fs::write(desk.path("rows.jsonl"), rows.replacen("fox", "dog", 1)).unwrap();
    says(&recipe, "gguf/a-F32.gguf", "the examples, or how they become tokens, are not what it was");
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_leaves_nothing() {
    let desk = Desk::new();
    let good = "{\"prompt\": \"a\", \"completion\": \"b\"}\n";
    let write = |row: &str| fs::write(desk.path("bad.jsonl"), format!("{good}{row}\n")).unwrap();
    let says = |recipe: &TuneRecipe, expected: &str| {
        let message = run(recipe, "gguf/a-F32.gguf").unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!recipe.output.exists(), "{} is left", recipe.output.display());
    };
    let recipe = desk.recipe("bad", "bad.jsonl", "adapter = { rank = 2 }");
    for (row, expected) in [
        ("{\"prompt\": \"a\"}", "bad.jsonl, line 2: it has no completion or response; there are prompt"),
        ("{\"prompt\": \"a\", \"completion\": \" \"}", "bad.jsonl, line 2: completion is empty"),
        ("{\"prompt\": \"a\", \"completion\": 7}", "line 2: completion is not a text"),
        ("{\"question\": \"a\"}", "line 2: it is no example: it has question; expected messages"),
        ("[1]", "line 2: not a JSON object"),
        ("{\"messages\": []}", "line 2: the conversation does not end with an answer"),
        ("{\"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}", "line 2: a message is by \"tool\""),
        ("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "line 2: it is a pair of answers"),
    ] {
        write(row);
        says(&recipe, expected);
    }
    write(&format!("{{\"prompt\": \"a\", \"completion\": \"{}\"}}", "long ".repeat(100)));
    says(&recipe, "line 2: it has ");
    let pairs = desk.recipe("bad", "bad.jsonl", "preference = {}");
    fs::write(desk.path("bad.jsonl"), "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}").unwrap();
    says(&pairs, "line 1: chosen and rejected are equal");
    fs::write(
        desk.path("bad.jsonl"),
        "[{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}, {\"prompt\": \"a\"}]",
    )
    .unwrap();
    says(&pairs, "bad.jsonl, row 2: it is no pair of answers");
    fs::write(desk.path("bad.jsonl"), good).unwrap();
    says(&desk.recipe("bad", "bad.jsonl", "adapter = { targets = [\"q_proj\"] }"), "\"q_proj\" matches no module");
    says(&desk.recipe("bad", "bad.jsonl", "adapter = { rank = 4000 }"), "adapter.rank is 4000");
    says(&desk.recipe("bad", "bad.jsonl", "adapter = {}"), "data.sources has no example: of 1 examples 1 are held out");
}

//! Tuning as people do it: a first run without a recipe, killed and gone on with, and what becomes of its adapter.

#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use openelm_testing::golden;
use support::{openelm, output, path, refused};

fn examples(folder: &Path) -> String {
    let file = folder.join("mine.jsonl");
    let row = |i: usize| {
        format!("{{\"prompt\": \"Number {i} is\", \"completion\": \" the {} one.\"}}\n", ["red", "blue", "last"][i % 3])
    };
    fs::write(&file, (0..60).map(row).collect::<String>()).unwrap();
    path(&file).to_owned()
}

fn begin<'a>(data: &'a str, run: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = ["tune", "--data", data, "--output", run, "--threads", "1", "--set", "log.every=1"];
    [&start[..], more].concat()
}

fn logged(run: &Path) -> usize {
    fs::read_to_string(run.join("log.jsonl")).map_or(0, |text| text.lines().count())
}

#[test]
fn a_run_without_a_recipe_survives_kill_9_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let data = examples(folder.path());
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    let sets = ["--set", "train.epochs=40", "--set", "checkpoint.every=2", "--set", "checkpoint.keep=0"];
    let arguments = |run| begin(&data, path(run), &sets);
    output(&arguments(&whole));
    for updates in [3, 8] {
        let mut child = openelm(&arguments(&killed)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while logged(&killed) < updates && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < Duration::from_secs(120), "nothing happens");
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = child.kill();
        child.wait().unwrap();
    }
    let said = output(&arguments(&killed));
    let last = Path::new(said.trim()).file_name().unwrap().to_owned();
    for name in ["adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "state.json"] {
        let [a, b] = [&whole, &killed].map(|run| fs::read(run.join("checkpoints").join(&last).join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
    // The recipe that was used is there, and goes on with the same run.
    let again = output(&["tune", path(&whole.join("recipe.toml")), "--threads", "1"]);
    assert!(again.contains("checkpoints/step-"), "{again}");
}

#[test]
fn an_adapter_runs_is_compared_and_folded_in() {
    let folder = tempfile::tempdir().unwrap();
    let data = examples(folder.path());
    let run = folder.path().join("run");
    let checkpoint = output(&begin(&data, path(&run), &["--dora", "--set", "train.epochs=6"])).trim().to_owned();
    let logits = |more: &[&str]| -> Vec<f64> {
        let text = output(&[&["logits", "builtin", "--ids", "1,5,9,200"], more].concat());
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        value["logits"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|row| row.as_array().unwrap())
            .map(|x| x.as_f64().unwrap())
            .collect()
    };
    let difference = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let (base, adapted) = (logits(&[]), logits(&["--adapter", &checkpoint]));
    assert!(difference(&base, &adapted) > 1e-3, "the adapter does nothing");
    assert!(difference(&base, &logits(&["--adapter", &format!("{checkpoint}=0")])) < 1e-4, "a weight of nothing");
    let fused = folder.path().join("fused");
    let report = output(&["fuse", "builtin", &checkpoint, path(&fused), "--to", "hf", "--dtype", "f32", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["adapter"]["max_difference"].as_f64().unwrap() > 1e-3, "{report}");
    assert_eq!(report["writing"]["max_difference"], 0.0, "{report}");
    let text = output(&["logits", path(&fused), "--ids", "1,5,9,200"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let merged: Vec<f64> = value["logits"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|x| x.as_f64().unwrap())
        .collect();
    let moved = difference(&merged, &adapted);
    assert!(moved < 1e-4, "merged and unmerged differ by {moved}");
    let compared = output(&["compare", "builtin", "--adapter", &checkpoint, "--json"]);
    let compared: serde_json::Value = serde_json::from_str(&compared).unwrap();
    assert_eq!(compared, report["adapter"]);
}

#[test]
fn what_cannot_be_is_said_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let data = examples(folder.path());
    let run = folder.path().join("run");
    let says = |more: &[&str], expected: &str| {
        refused(&begin(&data, path(&run), more), &[expected]);
        assert!(!run.exists());
    };
    says(&["--dpo"], "mine.jsonl, line 1: it is no pair of answers");
    says(&["--set", "adapter.targets=[\"nothing\"]"], "\"nothing\" matches no module of the model");
    says(&["--set", "adapter.rank=0"], "adapter.rank is 0; it must be at least 1");
    says(&["--set", "data.max_length=100000"], "data.max_length is 100000; the model's context has");
    // A tokenizer of a larger model.
    let (tiny, other) = (golden("tiny/hf"), golden("../../models/storyteller/tokenizer.model"));
    let (tiny, other) = (format!("model.path={}", tiny.display()), format!("model.tokenizer={}", other.display()));
    says(
        &["--set", &tiny, "--set", &other, "--set", "data.max_length=16"],
        "the tokenizer has 4096 pieces but the model only 512",
    );
}

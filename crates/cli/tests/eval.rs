//! `openelm eval` as a user calls it, on the model that is built in.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use openelm_testing::shared;
use serde_json::{Value, json};
use support::{output, path, refused};
use tempfile::TempDir;

/// Two data sets of a few documents each, as the hub has them.
fn data() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, documents: &[Value]| {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, documents.iter().map(|document| format!("{document}\n")).collect::<String>()).unwrap();
    };
    let question = |i: usize| {
        let labels = if i.is_multiple_of(2) { ["A", "B", "C"] } else { ["1", "2", "3"] };
        json!({
            "id": i.to_string(),
            "question": format!("What did the fox do on day {i}?"),
            "choices": {"text": ["It ran.", "It went to the forest.", "It slept in the sun"], "label": labels},
            "answerKey": labels[i % 3],
        })
    };
    write("ai2_arc/ARC-Easy/test.jsonl", &(0..12).map(question).collect::<Vec<_>>());
    write("ai2_arc/ARC-Easy/train.jsonl", &(20..29).map(question).collect::<Vec<_>>());
    let passage = |i: usize| {
        let passage = format!("Fox -- The fox is an animal of the forest, number {i}.");
        json!({"question": "is the fox an animal", "passage": passage, "idx": i, "label": i % 2})
    };
    write("boolq/validation.jsonl", &(0..6).map(passage).collect::<Vec<_>>());
    folder
}

fn in_folder(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}

#[test]
fn results_samples_table_and_chart_are_written_and_compared() {
    let data = data();
    let out = tempfile::tempdir().unwrap();
    let (first, second) = (in_folder(out.path(), "first"), in_folder(out.path(), "second"));
    let chart = in_folder(out.path(), "chart.svg");
    let call = ["eval", "--tasks", "arc_easy:2,boolq", "--data", path(data.path())];
    let table = output(&[&call[..], &["--output", path(&first)]].concat());
    assert!(table.contains("| arc_easy | 1       | 2     | acc_norm |"), "{table}");
    assert_eq!(fs::read_to_string(first.join("results.md")).unwrap(), table);
    let results: Value = serde_json::from_str(&fs::read_to_string(first.join("results.json")).unwrap()).unwrap();
    let task = &results["tasks"]["arc_easy"];
    assert_eq!((task["documents"].as_u64(), task["requests"].as_u64()), (Some(12), Some(36)));
    assert_eq!(task["data"].as_array().unwrap().len(), 2);
    assert!((task["metrics"]["acc"]["chance"].as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(results["model"]["name"], "builtin");
    let samples = fs::read_to_string(first.join("samples/arc_easy.jsonl")).unwrap();
    let sample: Value = serde_json::from_str(samples.lines().next().unwrap()).unwrap();
    assert_eq!(sample["continuations"][1], " It went to the forest.");
    assert!(sample["context"].as_str().unwrap().ends_with("Question: What did the fox do on day 0?\nAnswer:"));

    // The same again: nothing is computed, and not a byte differs.
    let again = output(&[&call[..], &["--output", path(&first), "--threads", "1"]].concat());
    assert_eq!(again, table);
    assert_eq!(fs::read_to_string(first.join("samples/arc_easy.jsonl")).unwrap(), samples);

    let compared = output(
        &[
            &call[..],
            &["--output", path(&second), "--cache", "int8", "--compare", path(&first), "--compare", "openelm-270m"],
            &["--chart", path(&chart)],
        ]
        .concat(),
    );
    assert!(compared.contains("p = 1.00") && compared.contains("53.98"), "{compared}");
    let svg = fs::read_to_string(chart).unwrap();
    assert!(
        svg.contains("</svg>") && svg.contains("arc_easy") && svg.contains("OpenELM-270M") && svg.contains("chance")
    );

    let other = ["--output", path(&first), "--cache", "f16"];
    refused(&[&call[..], &other].concat(), &["requests.jsonl", "another model", "choose another folder"]);
}

#[test]
fn weight_formats_are_swept_into_one_table() {
    let data = data();
    let call =
        ["eval", "--tasks", "arc_easy", "--data", path(data.path()), "--sweep", "q8_0,mlx4", "--text", "The fox ran."];
    let table = output(&call);
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(table.contains("q8_0") && table.contains("flipped") && table.contains("arc_easy acc_norm"), "{table}");
    let lines: Value = serde_json::from_str(&output(&[&call[..], &["--json"]].concat())).unwrap();
    assert!(lines[1]["bytes"].as_u64().unwrap() < lines[0]["bytes"].as_u64().unwrap());
    assert!(lines[1]["mean_kl"].as_f64().unwrap() < lines[2]["mean_kl"].as_f64().unwrap());
    assert!(lines[1]["flipped"]["arc_easy acc"].is_u64());
}

#[test]
fn the_papers_table_has_its_sources_and_what_was_measured() {
    let table = output(&["eval", "--table", "openelm-paper"]);
    for part in ["| OLMo-1.2B", "43.57", "| OpenELM-1.1B", "45.93", "[1] ", "Table 1"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    assert!(!table.contains("measured here"));
    let list = output(&["eval", "--list"]);
    assert!(list.contains("mmlu_abstract_algebra") && list.contains("openelm-zero-shot"), "{list}");
}

#[test]
fn what_cannot_be_evaluated_is_said_in_one_sentence() {
    let data = data();
    let data = path(data.path());
    refused(&["eval", "--tasks", "helaswag", "--data", data], &["helaswag", "perhaps \"hellaswag\"", "--list"]);
    refused(
        &["eval", "--tasks", "hellaswag", "--data", data],
        &["hellaswag.validation.jsonl", "hellaswag/validation.jsonl"],
    );
    refused(&["eval", "--tasks", "llm_adapters_boolq"], &["not on the hub", "--data"]);
    refused(&["eval", "--tasks", "arc_easy@0.3", "--data", data], &["0.3", "0.4.9.1 and 0.4.13"]);
    refused(&["eval", "--tasks", "arc_easy:10", "--data", data], &["10 shots", "only 9"]);
    refused(&["eval", "--tasks", "arc_easy", "--data", data, "--compare", "GPT"], &["GPT", "OpenELM-270M"]);
    refused(&["eval", "--tasks", "arc_easy", "--data", data, "--model", "nowhere"], &["nowhere"]);
    let schema = tempfile::tempdir().unwrap();
    for (document, missing) in [
        (json!({ "text": "in another schema" }), "choices"),
        (json!({ "choices": { "text": ["a", "b"], "label": ["A", "B"] }, "answerKey": "A" }), "question"),
    ] {
        fs::write(schema.path().join("arc_easy.test.jsonl"), format!("{document}\n")).unwrap();
        let undefined = format!("`{missing}` is undefined");
        refused(
            &["eval", "--tasks", "arc_easy", "--data", path(schema.path())],
            &["arc_easy.test.jsonl, document 1", &undefined],
        );
    }
}

/// Every task on the first documents of its whole set, in the hub's schemas.
#[test]
fn every_task_runs_on_its_data_set() {
    let Some(sets) = shared("assets/eval") else { return };
    let tasks = "openelm-zero-shot,commonsense-peft,openbookqa,social_iqa,truthfulqa_mc1,truthfulqa_mc2,race,lambada_openai,\
        crows_pairs_english:25,mmlu_astronomy:5,arc_challenge:25";
    let call = ["eval", "--tasks", tasks, "--data", path(&sets), "--limit", "3", "--context", "256", "--json"];
    let results: Value = serde_json::from_str(&output(&call)).unwrap();
    assert_eq!(results["tasks"].as_object().unwrap().len(), 24);
    assert!(results["groups"]["openelm-zero-shot"]["score"]["value"].is_f64());
    assert!(results["tasks"]["arc_challenge-25shot"]["truncated"].as_u64().unwrap() > 0);
}

//! The command as a user runs it.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use openelm_testing::{golden, json, max_difference, npz};
use serde_json::Value;
use support::{openelm, output, path, refused};

#[test]
fn the_built_in_model_writes_and_the_seed_decides_what() {
    let arguments = ["generate", "Once upon a time", "-n", "30", "--seed", "7"];
    let text = output(&arguments);
    assert!(text.starts_with("Once upon a time") && text.len() > 40, "{text}");
    assert_eq!(text, output(&[&arguments[..], &["--threads", "1"]].concat()));
    assert_ne!(text, output(&["generate", "Once upon a time", "-n", "30", "--seed", "8"]));

    let json: Value = serde_json::from_str(&output(&[&arguments[..], &["--json"]].concat())).unwrap();
    assert_eq!(format!("Once upon a time{}\n", json["text"].as_str().unwrap()), text);
    assert_eq!(json["ids"].as_array().unwrap().len(), 30);
    assert!(json["tokens_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn prompts_come_from_files_and_standard_input_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    std::fs::write(&file, "The rabbit").unwrap();
    let expected = output(&["generate", "The rabbit", "-n", "5", "--greedy"]);
    assert_eq!(output(&["generate", "--file", path(&file), "-n", "5", "--greedy"]), expected);

    let mut child = openelm(&["generate", "-n", "5", "--greedy"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"The rabbit").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, expected.as_bytes());
}

#[test]
fn logits_are_those_of_corenet() {
    let arrays = npz(&golden("tiny/logits.npz"));
    let ids = arrays["seq0.input_ids"].ids();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ids.json");
    std::fs::write(&file, serde_json::to_string(&ids).unwrap()).unwrap();
    let list = serde_json::to_string(&ids).unwrap();
    let model = golden("tiny/hf");
    for arguments in [["--ids", list.as_str()], ["--ids-file", path(&file)]] {
        let text = output(&[&["logits", path(&model), "--exact"], &arguments[..]].concat());
        let result: Value = serde_json::from_str(&text).unwrap();
        let rows: Vec<Vec<f32>> = serde_json::from_value(result["logits"].clone()).unwrap();
        assert_eq!(result["shape"], serde_json::json!([ids.len(), rows[0].len()]));
        assert!(max_difference(&rows.concat(), &arrays["seq0.logits"].f32()) <= 5e-5);
    }
}

#[test]
fn plan_agrees_with_corenet() {
    let expected = json(&golden("configs.json"));
    let small = output(&["plan", "--layers", "4", "--dim", "256", "--vocab-size", "1000"]);
    insta::assert_snapshot!(small);
    let plan: Value = serde_json::from_str(&output(&["plan", "openelm-270m", "--json"])).unwrap();
    let configs = expected["configs"].as_array().unwrap();
    let parameters = plan["parameters"].as_u64().unwrap();
    assert!(configs.iter().any(|config| config.to_string().contains(&parameters.to_string())), "{parameters}");

    // A model that is there already.
    let llama: Value = serde_json::from_str(&output(&["plan", path(&golden("rivals/llama3")), "--json"])).unwrap();
    assert_eq!([&llama["model_dim"], &llama["vocab_size"]], [32, 384]);

    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("plan.svg");
    output(&["plan", "openelm-1.1b", "--svg", path(&picture)]);
    assert!(std::fs::read_to_string(picture).unwrap().contains("uniform, equal total"));
}

#[test]
fn a_benchmark_gives_rates_limits_and_shares() {
    let small = ["bench", "--prompts", "8", "--tokens", "4", "--fill", "16", "--rounds", "1", "--threads", "2"];
    let report: Value = serde_json::from_str(&output(&[&small[..], &["--json"]].concat())).unwrap();
    let positive = |value: &Value| assert!(value.as_f64().is_some_and(|x| x > 0.0), "{report}");
    let limits = &report["limits"][0];
    assert_eq!((&limits["threads"], limits["int8_instructions"].is_string()), (&2.into(), true));
    for key in ["bytes_per_second", "f32_operations_per_second", "int8_operations_per_second"] {
        positive(&limits[key]);
    }
    let run = &report["runs"][0];
    assert_eq!((&run["weights"], &run["threads"]), (&"f16".into(), &2.into()));
    for key in ["weight_bytes", "parameters", "load_seconds"] {
        positive(&run[key]);
    }
    if cfg!(target_os = "linux") {
        positive(&run["private_memory_bytes"]);
    }
    let steps = run["measurements"].as_array().unwrap();
    let expected = [("prefill", 8, 0), ("decode", 4, 0), ("decode", 4, 16)];
    assert_eq!(steps.len(), expected.len());
    for (step, (phase, tokens, cached)) in steps.iter().zip(expected) {
        assert_eq!(step["phase"], phase);
        assert_eq!((&step["tokens"], &step["cached"]), (&tokens.into(), &cached.into()));
        for key in ["tokens_per_second", "limit_tokens_per_second", "share"] {
            positive(&step[key]);
        }
        assert!(["memory", "f32", "int8"].contains(&step["bound"].as_str().unwrap()));
        assert_eq!(step["first_token_seconds"].is_null(), phase == "decode");
        assert!(step["ratio"].is_null());
    }
}

#[cfg(unix)]
#[test]
fn a_benchmark_takes_turns_with_a_peer() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let (peer, asked) = (folder.path().join("llama-bench"), folder.path().join("asked"));
    let batched = folder.path().join("llama-batched-bench");
    for (program, printed) in [(&peer, r#"[{"avg_ts": 50.0}]"#), (&batched, r#"{"pl": 3, "speed_tg": 75.0}"#)] {
        let script = format!("#!/bin/sh\ntest -f \"$2\" && echo \"$@\" >> {}\necho '{printed}'\n", path(&asked));
        std::fs::write(program, script).unwrap();
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let small =
        ["bench", "builtin", "--quant", "q8_0", "--prompts", "8", "--tokens", "2", "--fill", "9", "--rounds", "2"];
    let table = output(&[&small[..], &["--sequences", "3", "--threads", "1", "--vs", path(&peer)]].concat());
    for part in [
        "prefill 8",
        "decode 2 behind 0",
        "decode 2 behind 9",
        "decode 2 of 3 sequences",
        "50.0",
        "75.0",
        "q8_0",
        "GB/s",
        "limit:",
    ] {
        assert!(table.contains(part), "{part:?} is not in: {table}");
    }
    let asked = std::fs::read_to_string(asked).unwrap();
    let tests: Vec<&str> = asked.lines().filter_map(|line| line.split_once(" -t 1 ")).map(|(_, test)| test).collect();
    let expected = ["-p 8 -n 0", "-p 0 -n 2", "-p 0 -n 2 -d 9"].map(|test| format!("{test} -r 1 -o json"));
    let [prefill, decode, behind] = expected.each_ref().map(String::as_str);
    let together = "-npl 3 -ntg 2 -npp 16 -c 54 --output-format jsonl";
    assert_eq!(tests, [prefill, prefill, decode, decode, behind, behind, together, together]);
}

#[test]
fn what_memory_cannot_hold_is_refused_with_numbers() {
    let tokens = ["--context", "9000000000000", "--max-tokens", "8000000000000"];
    let parts = ["of cache for 8000000000", "GiB are available", "--ignore-memory"];
    refused(&[&["generate", "x"], &tokens[..]].concat(), &parts);
    refused(
        &["bench", "--config", "openelm-3b", "--quant", "q4_0", "--fill", "4000000000"],
        &["GiB of weights", "for 4000000064 tokens", "GiB are available", "--ignore-memory"],
    );
}

#[test]
fn a_tokenizer_is_learnt_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus.txt");
    let lines = (0..500).map(|i| {
        let (who, what) =
            (["hare", "tortoise", "old bear"][i % 3], ["slept", "walked slowly on", "laughed"][i % 7 % 3]);
        format!("The {i}th {who} came over the green hill at midday, and there it {what}.\n")
    });
    std::fs::write(&corpus, lines.collect::<String>()).unwrap();
    let model = folder.path().join("small.model");
    output(&["tokenizer", "train", path(&corpus), "--vocab-size", "300", "--output", path(&model)]);
    let ids = output(&["tokenizer", "encode", path(&model), "The hare slept over the hill — 7 times."]);
    assert_eq!(output(&["tokenizer", "decode", path(&model), ids.trim()]), "The hare slept over the hill — 7 times.\n");
    refused(&["tokenizer", "decode", path(&model), "9999"], &["9999", "300 pieces"]);

    // Where it is to go is looked at before the work, and what is there stays.
    let learnt = std::fs::read(&model).unwrap();
    let again = |output: &Path, parts: &[&str]| {
        let nowhere = ["tokenizer", "train", "nowhere.txt", "--output", path(output)];
        refused(&nowhere, parts);
    };
    again(&model, &["small.model is there already", "--force"]);
    again(folder.path(), &["is a folder"]);
    again(&folder.path().join("no/small.model"), &["no does not exist"]);
    assert_eq!(std::fs::read(&model).unwrap(), learnt);
    output(&["tokenizer", "train", path(&corpus), "--vocab-size", "310", "--force", "--output", path(&model)]);
    assert_ne!(std::fs::read(&model).unwrap(), learnt);
    let (empty, other) = (folder.path().join("empty.txt"), folder.path().join("other.model"));
    std::fs::write(&empty, "\n\n").unwrap();
    refused(
        &["tokenizer", "train", path(&empty), "--output", path(&other)],
        &["empty.txt: these files hold no document"],
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn prompts_and_options_out_of_range() {
    let long = "word ".repeat(2000);
    refused(&["generate", &long], &["tokens", "--context"]);
    refused(&["generate", "x", "--model", "nowhere"], &["nowhere"]);
    refused(&["generate", "--file", "nowhere.txt"], &["nowhere.txt"]);
    refused(&["generate", "x", "--temperature=-1"], &["temperature is -1"]);
    refused(&["generate", "x", "--top-p", "0"], &["top-p is 0"]);
    refused(&["logits", "builtin", "--ids", "1,99999"], &["99999", "out of range"]);
    refused(&["logits", "builtin", "--ids", "1,x"], &["\"x\" is not a token id"]);
    refused(&["logits", "builtin", "--ids", ""], &["no ids"]);
    refused(&["plan", "--head-dim", "7"], &["head_dim is 7"]);
    refused(&["plan", "openelm-9b"], &["openelm-9b"]);
    refused(&["plan", "--svg", "nowhere/plan.svg"], &["nowhere/plan.svg: the folder nowhere does not exist"]);
    refused(&["bench", "--config", "openelm-9b"], &["openelm-9b"]);
    refused(&["bench", "nowhere"], &["nowhere"]);
    refused(&["bench", "--vs", "nowhere/llama-bench"], &["nowhere/llama-bench"]);
}

#[test]
fn corpora_that_are_not_what_they_seem() {
    let folder = tempfile::tempdir().unwrap();
    let train = |name: &str, content: &[u8], parts: &[&str]| {
        let corpus = folder.path().join(name);
        std::fs::write(&corpus, content).unwrap();
        let model = folder.path().join("never.model");
        refused(&["tokenizer", "train", path(&corpus), "--output", path(&model)], &[&[name], parts].concat());
        assert!(!model.exists());
    };
    train("a.jsonl", b"{\"text\": \"well\"}\n{\"tekst\": \"ill\"}\n", &["line 2", "text"]);
    train("b.jsonl", b"{\"text\": \"well\"}\nnot json\n", &["line 2"]);
    train("c.txt", b"good\n\xff\xfe broken\n", &["line 2", "UTF-8"]);
    train("d.parquet", b"not at all", &[]);
    train("e.jsonl.zst", b"{\"text\": \"not compressed\"}\n", &[]);
    train("f.jsonl.gz", b"{\"text\": \"not compressed\"}\n", &[]);
    train("g.xyz", b"what", &["format"]);
}

#[test]
fn recipes_that_cannot_be_followed() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    std::fs::write(&recipe, "output = \"x\"\ncolour = \"blue\"\n").unwrap();
    let Output { status, stderr, .. } = openelm(&["pretrain", path(&recipe)]).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(message.contains("recipe.toml") && message.contains("unknown field `colour`"), "{message}");
    refused(&["pretrain", "nowhere.toml"], &["nowhere.toml"]);
}

#[test]
fn the_memory_of_a_training_run_is_planned_item_by_item() {
    let folder = tempfile::tempdir().unwrap();
    let recipe = folder.path().join("recipe.toml");
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/storyteller.toml")).unwrap();
    std::fs::write(&recipe, text).unwrap();
    let tokenizer = format!("tokenizer.path={}", golden("tokenizer_small/tokenizer.model").display());
    let plan = ["plan", "--train", path(&recipe), "--set", &tokenizer];
    let table = output(&plan);
    for item in ["weights", "gradients", "moments", "activations of layer 8", "chunk of logits", "snapshot", "total: "]
    {
        assert!(table.contains(item), "{table}");
    }
    let json: Value = serde_json::from_str(&output(&[&plan[..], &["--json"]].concat())).unwrap();
    let items = json["bytes"].as_object().unwrap().values().map(|bytes| bytes.as_u64().unwrap());
    assert_eq!(json["total_bytes"], items.sum::<u64>());
    let missing = folder.path().join("no.toml");
    refused(&["plan", "--train", path(&missing)], &["no.toml"]);
}

#[test]
fn logs_of_runs_are_put_beside_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller/log.jsonl");
    // Two lines as CoreNet prints them.
    let apple = folder.path().join("training_logs.txt");
    let line = |step: u64, loss: f64| {
        format!(
            "2024-01-05 10:11:12 - LOGS    - Epoch:   0 [{step:8}/  350000], loss: {loss}, LR: [0.001], Avg. batch\n"
        )
    };
    std::fs::write(&apple, [line(500, 7.25), line(1000, 6.5)].concat()).unwrap();
    let picture = folder.path().join("runs.svg");
    let arguments = ["train-log", "compare", ours, path(&apple), "--corenet-tokens-per-step", "4096"];
    let table = output(&[&arguments[..], &["--svg", path(&picture)]].concat());
    assert!(table.contains("training_logs.txt") && table.contains("at 4,096,000 tokens"), "{table}");
    assert!(std::fs::read_to_string(picture).unwrap().contains("learning rate"));
    let json: Value = serde_json::from_str(&output(&[&arguments[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["runs"][1]["updates"], 1000);
    // Two points are not smoothed.
    assert_eq!(json["runs"][1]["training"]["last"], 6.5);
    assert!(json["runs"][0]["validation"]["validation"]["at_common_tokens"].as_f64().unwrap() > 1.0);
    assert!(output(&["train-log", "show", ours]).contains("storyteller"));
    refused(&["train-log", "show", path(folder.path())], &["log.jsonl"]);
    refused(&["train-log", "show", path(&golden("README.md"))], &["no update in it", "training_logs.txt"]);
}

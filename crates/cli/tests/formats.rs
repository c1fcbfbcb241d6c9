//! Converting, comparing and inspecting, as a user does it.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use openelm_testing::{golden, max_difference, npz};
use serde_json::{Value, json};
use support::{output, path, refused};

fn parsed(arguments: &[&str]) -> Value {
    serde_json::from_str(&output(&[arguments, &["--json"]].concat())).unwrap()
}

/// The built-in model in other formats: names, options, and how most of its numbers are then stored.
const TARGETS: [(&str, &[&str], &str); 6] = [
    ("hf", &["--to", "hf", "--dtype", "f32"], "float32"),
    ("corenet", &["--to", "corenet"], "float16"),
    ("mlx", &["--to", "mlx", "--bits", "8", "--group-size", "32"], "8 bits in groups of 32 (float16)"),
    ("f16.gguf", &["--to", "gguf"], "float16"),
    ("q8_0.gguf", &["--to", "gguf", "--quant", "q8_0"], "Q8_0"),
    ("q4_k.gguf", &["--to", "gguf", "--quant", "q4_k"], "Q5_0"),
];

fn convert(folder: &Path, name: &str, options: &[&str]) -> (PathBuf, Value) {
    let written = folder.join(name);
    let report = parsed(&[&["convert", "builtin", path(&written)], options].concat());
    (written, report)
}

#[test]
fn a_model_goes_into_every_format_and_every_command_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = output(&["generate", "Once upon a time", "-n", "12", "--greedy"]);
    for (name, options, encoding) in TARGETS {
        let (written, report) = convert(folder.path(), name, options);
        let written = path(&written);
        assert!(report["after"]["encodings"].as_str().unwrap().starts_with(encoding), "{report}");
        let comparison = &report["comparison"];
        let exact = encoding.starts_with("float");
        if exact {
            assert_eq!(comparison["max_difference"], 0.0, "{name}: {report}");
            assert_eq!(comparison["top1_agreement"], 1.0, "{name}");
        } else {
            assert!(comparison["mean_kl"].as_f64().unwrap() > 0.0, "{name}: {report}");
            assert!(report["after"]["bytes"].as_u64() < report["before"]["bytes"].as_u64(), "{report}");
        }
        assert!(comparison["mean_kl"].as_f64().unwrap() < 0.05, "{name}: {report}");

        // The tokenizer came along: text goes in and comes out.
        let generated = output(&["generate", "Once upon a time", "-n", "12", "--greedy", "--model", written]);
        if exact {
            assert_eq!(generated, text, "{name}");
        }
        let compared = parsed(&["compare", "builtin", written]);
        assert_eq!(compared, *comparison, "{name}");
        let inspected = parsed(&["inspect", written]);
        assert_eq!(inspected["warnings"], json!([]), "{name}");
        assert_eq!(inspected["tokenizer"]["pieces"], 4096, "{name}");
        let logits: Value = serde_json::from_str(&output(&["logits", written, "--exact", "--text", "The"])).unwrap();
        assert_eq!(logits["shape"][1], 4096, "{name}");
    }
    assert!(output(&["tokenizer", "encode", path(&folder.path().join("f16.gguf")), "The hare"]).starts_with('['));
}

#[test]
fn logits_of_every_format_are_those_of_the_peers() {
    for (model, arrays, key, tolerance) in [
        ("tiny/corenet", "tiny/logits.npz", "seq0.logits", 5e-5),
        ("mlx/q4_g64_float16", "mlx/q4_g64_float16/logits.npz", "logits_dequantised_f32", 1e-3),
        ("mlx/corenet_open_elm/float32", "mlx/corenet_open_elm/float32/logits.npz", "logits", 2e-4),
        ("gguf/b-Q4_K_M.gguf", "gguf/b-Q4_K_M.logits.npz", "logits_dequantised_f32", 2e-4),
    ] {
        let arrays = npz(&golden(arrays));
        let ids = arrays.get("input_ids").or(arrays.get("seq0.input_ids")).unwrap().ids();
        let ids = serde_json::to_string(&ids).unwrap();
        let text = output(&["logits", path(&golden(model)), "--exact", "--ids", &ids]);
        let result: Value = serde_json::from_str(&text).unwrap();
        let rows: Vec<Vec<f32>> = serde_json::from_value(result["logits"].clone()).unwrap();
        assert!(max_difference(&rows.concat(), &arrays[key].f32()) <= tolerance, "{model}");
    }
}

#[test]
fn exact_generation_is_that_of_the_model_widened_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let widened = folder.path().join("widened.gguf");
    let quantised = golden("gguf/b-Q4_K_M.gguf");
    output(&["convert", path(&quantised), path(&widened), "--to", "gguf", "--dtype", "f32"]);
    let generated = |model: &Path, options: &[&str]| {
        let text = output(&[&["generate", "The", "--model", path(model), "--json", "-n", "100"], options].concat());
        serde_json::from_str::<Value>(&text).unwrap()["ids"].clone()
    };
    let expected = generated(&widened, &[]);
    assert_eq!(generated(&quantised, &["--exact"]), expected);
    // Sampled from flat distributions: activations of 8 bits change a token sooner or later.
    assert_ne!(generated(&quantised, &[]), expected);
}

#[test]
fn reports_are_for_people_too() {
    let folder = tempfile::tempdir().unwrap();
    let written = folder.path().join("small.gguf");
    let report =
        output(&["convert", "builtin", path(&written), "--to", "gguf", "--quant", "q4_0", "--text", "The hare ran."]);
    for part in
        ["before", "Hugging Face: float16", "GGUF: Q4_0", "% of what it was", "mean KL divergence", "perplexity"]
    {
        assert!(report.contains(part), "{part:?} is not in:\n{report}");
    }
    let report = output(&["inspect", path(&written)]);
    for part in ["GGUF", "9 layers, width 192", "4096 pieces", "to run: weights, and", "sha256"] {
        assert!(report.contains(part), "{part:?} is not in:\n{report}");
    }
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "The hare ran.").unwrap();
    let from_file = output(&["compare", "builtin", path(&written), "--text-file", path(&text)]);
    assert_eq!(from_file, output(&["compare", "builtin", path(&written), "--text", "The hare ran."]));
    assert!(from_file.contains("same most probable"), "{from_file}");
}

#[test]
fn inspection_says_what_is_there_and_what_is_odd() {
    let file = golden("gguf/a-Q4_0.gguf");
    let found = parsed(&["inspect", path(&file)]);
    assert_eq!(found["format"], "GGUF");
    // By sha256sum.
    assert_eq!(found["files"][0]["sha256"], "241f364f6c2e419293d01710d7cb939da2c48f0d41e1cf078e38ee7b2c264f21");
    assert_eq!(found["files"][0]["bytes"], std::fs::metadata(&file).unwrap().len());
    assert_eq!(found["geometry"]["query_heads"], json!([2, 4, 4]));
    assert_eq!(found["encodings"][0]["encoding"], "Q8_0");
    // Keys and values: (1 + 2 + 2) heads of 32, twice, in f32, for 128 tokens.
    assert_eq!(found["cache_bytes"], 2 * 5 * 32 * 4 * 128);
    let warnings = |model: &str| parsed(&["inspect", path(&golden(model))])["warnings"].to_string();
    assert!(warnings("tiny/hf").contains("no tokenizer"));
    assert!(warnings("train/checkpoint_dir").contains("geometry is that of its shapes"));
    let tokenizer = golden("gguf/tokenizer.model");
    let padded = parsed(&["inspect", path(&golden("tiny/corenet")), "--tokenizer", path(&tokenizer)]);
    assert!(padded["warnings"].to_string().contains("128 rows of the vocabulary have no piece"), "{padded}");
}

#[test]
fn a_padded_vocabulary_is_cut_on_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let (source, written) = (golden("tiny/corenet"), folder.path().join("cut"));
    let report = parsed(&["convert", path(&source), path(&written), "--to", "hf", "--trim-vocab=500", "--no-compare"]);
    assert_eq!(report["comparison"], Value::Null);
    let inspected = parsed(&["inspect", path(&written)]);
    assert_eq!(inspected["geometry"]["vocab_size"], 500);
    let compared = parsed(&["compare", path(&source), path(&written), "--ids", "1,2,3,499"]);
    assert_eq!((&compared["max_difference"], &compared["vocabulary"]), (&json!(0.0), &json!(500)));
}

#[test]
fn conversions_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new");
    let target = path(&target);
    let (tiny, untied) = (golden("tiny/hf"), golden("tiny_variants/untied_noqknorm"));
    let tokenizer = golden("gguf/tokenizer.model");
    let cannot = |arguments: &[&str], parts: &[&str]| {
        refused(&[&["convert"], arguments].concat(), parts);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{arguments:?} left something behind");
    };
    cannot(&["nowhere", target, "--to", "hf"], &["nowhere"]);
    cannot(&["Cargo.toml", target, "--to", "hf"], &["Cargo.toml is no model"]);
    cannot(&["builtin", target, "--to", "hf", "--bits", "4"], &["--bits is for --to mlx"]);
    cannot(&["builtin", target, "--to", "mlx", "--quant", "q4_0"], &["--quant is for --to gguf"]);
    cannot(&["builtin", target, "--to", "mlx", "--bits", "7"], &["no 7 bits in groups of 64"]);
    let noglu = golden("tiny_variants/noglu_mqa");
    cannot(&[path(&noglu), target, "--to", "mlx", "--bits", "4"], &["no matrix", "whole groups of 64"]);
    cannot(&["builtin", target, "--to", "hf", "--trim-vocab=5000"], &["4096 rows", "5000"]);
    cannot(&[path(&tiny), target, "--to", "gguf"], &["tiny/hf has no tokenizer", "--tokenizer"]);
    let with = ["--tokenizer", path(&tokenizer)];
    cannot(&[&[path(&untied), target, "--to", "gguf"][..], &with].concat(), &["write hf, corenet or mlx instead"]);
    cannot(&["builtin", target, "--to", "hf", "--text-file", "nowhere.txt"], &["nowhere.txt"]);

    let taken = folder.path().join("taken");
    std::fs::write(&taken, "mine").unwrap();
    for to in ["hf", "corenet", "mlx", "gguf"] {
        refused(&["convert", "builtin", path(&taken), "--to", to], &["taken exists already"]);
    }
    assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
}

#[test]
fn a_value_beyond_half_precision_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("large");
    std::fs::create_dir(&source).unwrap();
    std::fs::copy(golden("tiny/hf/config.json"), source.join("config.json")).unwrap();
    let mut weights = std::fs::read(golden("tiny/hf/model.safetensors")).unwrap();
    // The last value of the file.
    let last = weights.len() - 4;
    weights[last..].copy_from_slice(&1e6f32.to_le_bytes());
    std::fs::write(source.join("model.safetensors"), weights).unwrap();
    for options in [&["--to", "hf", "--dtype", "f16"][..], &["--to", "mlx", "--dtype", "f16"]] {
        let target = folder.path().join("new");
        let arguments = [&["convert", path(&source), path(&target)], options].concat();
        refused(&arguments, &["does not fit float16: it holds 1000000", ".weight", "bfloat16"]);
        assert!(!target.exists());
    }
    let target = folder.path().join("new");
    output(&["convert", path(&source), path(&target), "--to", "hf", "--dtype", "bf16"]);
}

/// A limit on the size of files stands for a full disk: writing beyond it fails in the same way.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    for (to, blocks) in [("hf", 100), ("corenet", 5000), ("mlx", 1), ("gguf", 700)] {
        let folder = tempfile::tempdir().unwrap();
        let command = format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec {} convert builtin new --to {to}",
            env!("CARGO_BIN_EXE_openelm")
        );
        let mut shell = std::process::Command::new("sh");
        let result = shell.args(["-c", &command]).current_dir(folder.path()).output().unwrap();
        let message = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(1), "{message}");
        // Nothing else, such as a library's own complaint.
        assert!(message.starts_with("error: ") && message.contains("new"), "{to}: {message}");
        assert_eq!(message.lines().count(), 1, "{to}: {message}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{to}: {message}");
    }
}

#[test]
fn models_that_cannot_be_compared() {
    let (tiny, gguf) = (golden("tiny/hf"), golden("gguf/a-F32.gguf"));
    let (tiny, gguf) = (path(&tiny), path(&gguf));
    refused(&["compare", tiny, tiny], &["tiny/hf has no tokenizer", "--tokenizer"]);
    refused(&["compare", "builtin", gguf], &["take the text apart differently"]);
    refused(&["compare", "builtin", gguf, "--ids", "1,400"], &["400", "384 tokens in common"]);
    refused(&["compare", "builtin", "nowhere"], &["nowhere"]);
    refused(&["compare", tiny, tiny, "--ids", ""], &["nothing to compare on"]);
    refused(&["inspect", "nowhere"], &["nowhere"]);
    let same = parsed(&["compare", tiny, tiny, "--ids", "1,2,3"]);
    assert_eq!((&same["positions"], &same["mean_kl"]), (&json!(3), &json!(0.0)));
}

#[test]
fn adapters_run_and_those_of_other_models_are_refused() {
    let model = golden("tiny/hf");
    for case in ["lora/basic", "lora/with_embeddings", "dora/basic", "dora/qkv_only"] {
        let arrays = npz(&golden(&format!("{case}/logits.npz")));
        let ids: Vec<String> = arrays["input_ids"].ids().iter().map(u32::to_string).collect();
        let adapter = golden(case);
        let printed = output(&["logits", path(&model), "--ids", &ids.join(","), "--adapter", path(&adapter)]);
        let printed: Value = serde_json::from_str(&printed).unwrap();
        let rows = printed["logits"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        let found: Vec<f32> = rows.map(|x| x.as_f64().unwrap() as f32).collect();
        assert!(max_difference(&found, &arrays["logits"].f32()) < 5e-5, "{case}");
    }
    let adapter = golden("lora/basic");
    let refusals: [(&[&str], &[&str]); 3] = [
        (&["generate", "Once", "--adapter", path(&adapter)], &["lora/basic", "expected"]),
        (&["generate", "Once", "--adapter", "no/such/adapter"], &["no/such/adapter"]),
        (&["logits", "builtin", "--ids", "1", "--adapter", path(&model)], &["tiny"]),
    ];
    for (arguments, parts) in refusals {
        refused(arguments, parts);
    }
}

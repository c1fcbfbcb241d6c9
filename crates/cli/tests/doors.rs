//! Odd models and odd places, as a user meets them.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::Path;

use openelm_testing::golden;
use serde_json::Value;
use support::{openelm, output, path, refused};

/// The built-in model with `change` applied to its weights' bytes, in a folder.
fn damaged(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    output(&["convert", "builtin", path(folder), "--to", "hf", "--dtype", "f32", "--no-compare"]);
    let weights = folder.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    change(&mut bytes);
    fs::write(&weights, bytes).unwrap();
}

/// Puts NaN in the place of the last value of the file: one of the output projection, so that one logit of each position is NaN.
fn spoilt(bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&f32::NAN.to_le_bytes());
}

#[test]
fn what_is_no_number_is_said_and_never_passes_for_agreement() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("damaged");
    damaged(&folder, |bytes| spoilt(bytes));
    let model = path(&folder);
    for arguments in
        [&["compare", "builtin", model][..], &["compare", model, model], &["compare", model, "builtin", "--json"]]
    {
        refused(arguments, &[model, "token 1 of the text", "not finite", "NaN"]);
    }
    let refused_logits = openelm(&["logits", model, "--ids", "1,2"]).output().unwrap();
    assert_eq!((refused_logits.status.code(), refused_logits.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8(refused_logits.stderr).unwrap().contains("token 1 of the text: "));
    for options in [&["--greedy"][..], &["--json"], &["--temperature", "1"]] {
        let refused = openelm(&[&["generate", "Once", "--model", model], options].concat()).output().unwrap();
        let message = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{message}");
        assert!(message.contains("logits are not finite") && message.contains("NaN"), "{message}");
    }
    let inspected: Value = serde_json::from_str(&output(&["inspect", model, "--json"])).unwrap();
    let warning = inspected["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("tensor ") && warning.contains(" holds NaN (row 4095, column 191)"), "{inspected}");
    let tensor = warning.split(' ').nth(1).unwrap();
    // Floats are written as they are, with a word on it.
    let target = outer.path().join("written");
    let converted = openelm(&["convert", model, path(&target), "--to", "corenet", "--no-compare"]).output().unwrap();
    let message = String::from_utf8(converted.stderr).unwrap();
    assert!(
        converted.status.success() && message.contains(&format!("warning: tensor {tensor} holds NaN")),
        "{message}"
    );
    // With the comparison it is an error, but the model is there.
    let target = outer.path().join("compared");
    let converted = openelm(&["convert", model, path(&target), "--to", "hf"]).output().unwrap();
    let message = String::from_utf8(converted.stderr).unwrap();
    assert!(!converted.status.success() && message.contains("is written, but cannot be compared"), "{message}");
    assert!(target.exists());
}

#[test]
fn towards_0_temperature_and_penalty_are_greedy() {
    let generated = |options: &[&str]| {
        let text = output(&[&["generate", "Once upon a time", "-n", "20", "--json"], options].concat());
        serde_json::from_str::<Value>(&text).unwrap()["ids"].clone()
    };
    let greedy = generated(&["--greedy"]);
    for temperature in ["1e-10", "1e-38", "1e-44", "1e-46"] {
        assert_eq!(generated(&["--temperature", temperature]), greedy, "{temperature}");
    }
    // What was there is wanted again, but never the first piece of the vocabulary.
    let wanted = generated(&["--repetition-penalty", "1e-38"]);
    assert!(wanted.as_array().unwrap().iter().all(|id| id != 0), "{wanted}");
}

#[test]
fn two_files_of_one_folder_are_two_models() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("a");
    // Another value, but a number.
    damaged(&folder, |_| ());
    let other = folder.join("other.safetensors");
    let mut bytes = fs::read(folder.join("model.safetensors")).unwrap();
    let end = bytes.len() - 4;
    bytes[end..].copy_from_slice(&100f32.to_le_bytes());
    fs::write(&other, bytes).unwrap();
    let (first, second) = (folder.join("model.safetensors"), other);
    let differ = |a: &Path, b: &Path| {
        let text = output(&["compare", path(a), path(b), "--text", "The hare", "--json"]);
        serde_json::from_str::<Value>(&text).unwrap()["max_difference"].as_f64().unwrap() > 0.0
    };
    assert!(differ(&first, &second) && !differ(&second, &second) && !differ(&first, &folder));
}

#[cfg(unix)]
#[test]
fn paths_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join(std::ffi::OsStr::from_bytes(b"m\xff"));
    fs::create_dir(&folder).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(golden("tiny/hf").join(name), folder.join(name)).unwrap();
    }
    let inspected = openelm(&["inspect", "--json"]).arg(&folder).output().unwrap();
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert!(inspected["path"].as_str().unwrap().ends_with("m\u{fffd}"), "{inspected}");
    assert!(inspected["files"][0]["path"].as_str().unwrap().ends_with("m\u{fffd}/model.safetensors"), "{inspected}");
    let target = outer.path().join("target");
    let mut convert = openelm(&["convert", "--to", "hf", "--no-compare", "--json"]);
    let converted = convert.arg(&folder).arg(&target).output().unwrap();
    assert!(converted.status.success(), "{}", String::from_utf8_lossy(&converted.stderr));
}

#[test]
fn a_tokenizer_that_git_lfs_left_out_is_called_that() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("a");
    damaged(&folder, |_| ());
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 499723\n";
    fs::write(folder.join("tokenizer.model"), pointer).unwrap();
    let (model, file) = (path(&folder), folder.join("tokenizer.model"));
    let parts = [path(&file), "is a Git LFS pointer", "git lfs pull"];
    refused(&["generate", "Once", "--model", model], &parts);
    refused(&["tokenizer", "encode", model, "Once"], &parts);
    refused(&["tokenizer", "encode", path(&file), "Once"], &parts);
    refused(&["generate", "Once", "--tokenizer", path(&file)], &parts);
    assert!(output(&["inspect", model, "--json"]).contains("is a Git LFS pointer"));
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/storyteller.toml");
    let tokenizer = format!("tokenizer.path={:?}", path(&file));
    let output = format!("output={:?}", path(&outer.path().join("run")));
    refused(&["pretrain", recipe, "--set", &tokenizer, "--set", &output], &parts);
    refused(&["plan", "--train", recipe, "--set", &tokenizer], &parts);
}

#[test]
fn the_builtin_model_can_be_averaged() {
    let outer = tempfile::tempdir().unwrap();
    let (copy, mean) = (outer.path().join("copy"), outer.path().join("mean"));
    damaged(&copy, |_| ());
    output(&["average", "builtin", path(&copy), "--output", path(&mean)]);
    let compared: Value = serde_json::from_str(&output(&["compare", "builtin", path(&mean), "--json"])).unwrap();
    assert_eq!(compared["max_difference"], 0.0);
}

#[test]
fn completions_and_manual_pages_know_all_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = output(&["completions", shell]);
        for word in ["generate", "train-log", "repetition-penalty", "q4_0"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert!(output(&["man"]).starts_with(".ie") || output(&["man"]).contains(".TH openelm 1"));
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    output(&["man", "--output", path(&pages)]);
    for page in ["openelm.1", "openelm-generate.1", "openelm-tokenizer-train.1"] {
        assert!(pages.join(page).exists(), "{page}");
    }
    assert!(fs::read_to_string(pages.join("openelm-convert.1")).unwrap().contains("Examples"));
}

#[test]
fn the_version_lists_the_features() {
    let version = output(&["--version"]);
    assert!(version.starts_with("openelm ") && version.contains("\nfeatures: "), "{version}");
    assert_eq!(output(&["-V"]).lines().count(), 1);
}

#[cfg(not(feature = "mpi"))]
#[test]
fn one_of_many_processes_does_not_train_by_itself() {
    for variable in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        let run = openelm(&["pretrain", "recipe.toml"]).env(variable, "4").output().unwrap();
        let message = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(1));
        assert!(message.contains("one of 4 processes") && message.contains("--features mpi"), "{message}");
        let alone = openelm(&["pretrain", "recipe.toml"]).env(variable, "1").output().unwrap();
        assert!(String::from_utf8(alone.stderr).unwrap().contains("recipe.toml"));
    }
}

/// A limit of the address space stands for a machine without memory.
#[cfg(target_os = "linux")]
#[test]
fn a_benchmark_asks_for_memory_before_it_takes_it() {
    let temporary = tempfile::tempdir().unwrap();
    let bench = |kibibytes: u64| {
        let options = "bench --config openelm-270m --quant q8_0 --prompts 8 --tokens 2 --fill 4 --rounds 1 --threads 1";
        let command = format!("ulimit -v {kibibytes}; exec {} {options}", env!("CARGO_BIN_EXE_openelm"));
        let mut shell = std::process::Command::new("sh");
        let result = shell.args(["-c", &command]).env("TMPDIR", temporary.path()).output().unwrap();
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "something is left over");
        (result.status.code(), String::from_utf8(result.stderr).unwrap())
    };
    for kibibytes in [400_000, 700_000] {
        let (code, message) = bench(kibibytes);
        assert_eq!(code, Some(1), "{message}");
        assert!(message.contains("are available") && message.contains("--ignore-memory"), "{message}");
    }
}

#[cfg(unix)]
#[test]
fn a_benchmark_that_is_stopped_leaves_nothing_behind() {
    if openelm_testing::interrupts_are_ignored() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let mut bench = openelm(&["bench", "--config", "openelm-270m", "--quant", "f16", "--rounds", "1"]);
    let mut child = bench.env("TMPDIR", temporary.path()).stderr(std::process::Stdio::null()).spawn().unwrap();
    // In the middle of the model that it writes.
    while size(temporary.path()) < 20 << 20 {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "something is left over");
}

/// Bytes of all files below `folder`; what goes away meanwhile counts nothing.
#[cfg(unix)]
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(
            |entry| {
                if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().map_or(0, |data| data.len()) }
            },
        )
        .sum()
}

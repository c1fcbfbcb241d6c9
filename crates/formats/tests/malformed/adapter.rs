//! Adapters of PEFT and of CoreNet.

use std::collections::HashMap;
use std::fs;

use openelm_formats::adapter::{corenet, peft};
use openelm_model::{Adapter, AdapterModule, AdapterOptions, targets};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize};
use serde_json::{Value, json};

use super::pickle::{PickledTensor, checkpoint, dictionary};
use super::{MAX_BYTES, assert_refused, measured, micro, some};

/// A sound adapter: DoRA of rank 2 on all linear modules.
fn sound() -> Adapter {
    let modules = targets(&micro()).into_iter().filter(|target| !target.embedding).map(|target| {
        let (a, b) = (some(&[2, target.inputs]), some(&[target.outputs, 2]));
        (target.name, AdapterModule { alpha: 4.0, a, b, magnitude: Some(some(&[target.outputs])) })
    });
    Adapter::new(&micro(), AdapterOptions::default(), modules.collect()).unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    peft::write(folder.path(), &sound()).unwrap();
    folder
}

fn refuses_config(what: &str, config: &[u8], parts: &[&str]) {
    let folder = folder();
    fs::write(folder.path().join("adapter_config.json"), config).unwrap();
    assert_refused(what, parts, || peft::read(folder.path(), &micro()));
}

fn refuses_change(what: &str, change: impl FnOnce(&mut Value), parts: &[&str]) {
    let folder = folder();
    let path = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
    assert_refused(what, parts, || peft::read(folder.path(), &micro()));
}

const A: &str = "base_model.model.transformer.layers.0.attn.qkv_proj.lora_A.weight";
const M: &str = "base_model.model.transformer.layers.0.attn.qkv_proj.lora_magnitude_vector";

/// Rewrites the weights after a change to the list of them.
fn refuses_weights(
    what: &str,
    change: impl FnOnce(&mut HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>),
    parts: &[&str],
) {
    let folder = folder();
    let path = folder.path().join("adapter_model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let entry = |view: &TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    let mut tensors = file.iter().map(|(name, view)| (name.to_owned(), entry(&view))).collect();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
    fs::write(&path, serialize(views, None).unwrap()).unwrap();
    assert_refused(what, &[&["adapter_model.safetensors"], parts].concat(), || peft::read(folder.path(), &micro()));
}

#[test]
fn files_that_are_missing_empty_or_cut_off() {
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        let folder = folder();
        let path = folder.path().join(file);
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, 7, 8, whole.len() / 2, whole.len() - 3] {
            fs::write(&path, &whole[..length]).unwrap();
            assert_refused("cut off", &[file], || peft::read(folder.path(), &micro()));
        }
        fs::remove_file(&path).unwrap();
        assert_refused("missing", &[file], || peft::read(folder.path(), &micro()));
    }
}

#[test]
fn configurations_of_no_adapter() {
    let name = "adapter_config.json";
    for (what, config, part) in [
        ("another JSON", "[]".to_owned(), ""),
        ("nothing", "{}".to_owned(), "peft_type"),
        ("nested deeply", format!("{{\"x\":{}", "[".repeat(100_000)), "recursion"),
        (
            "one key twice",
            r#"{"peft_type": "LORA", "r": 2, "r": 3, "lora_alpha": 4}"#.to_owned(),
            "duplicate field `r`",
        ),
    ] {
        refuses_config(what, config.as_bytes(), &[name, part]);
    }
    refuses_config("not UTF-8", b"{\"peft_type\": \"\xff\"}", &[name]);
    let set = |key: &'static str, value: Value| move |config: &mut Value| config[key] = value;
    for (what, key, value, part) in [
        ("another method", "peft_type", json!("IA3"), "IA3"),
        ("no rank", "r", json!(0), "at least 1"),
        ("a rank below zero", "r", json!(-2), "-2"),
        ("a rank that is a text", "r", json!("2"), "\"2\""),
        ("no alpha", "lora_alpha", Value::Null, "null"),
        ("a dropout of everything", "lora_dropout", json!(1), "dropout is 1"),
        ("a dropout below zero", "lora_dropout", json!(-0.5), "dropout is -0.5"),
        ("biases", "bias", json!("all"), "bias is \"all\""),
        ("a bias of its own", "lora_bias", json!(true), "lora_bias is true"),
        ("whole modules", "modules_to_save", json!(["norm"]), "modules_to_save"),
        ("layers that are repeated", "layer_replication", json!([[0, 1], [0, 1]]), "layer_replication"),
        ("a tied embedding", "ensure_weight_tying", json!(true), "ensure_weight_tying"),
        ("a changed base model", "init_lora_weights", json!("pissa_niter_16"), "pissa_niter_16"),
        ("a target that the model has not", "target_modules", json!(["qkv_proj", "q_proj"]), "\"q_proj\""),
        ("targets that are numbers", "target_modules", json!([1]), ""),
        ("a pattern that is none", "target_modules", json!("(qkv"), "target_modules"),
        ("a pattern without measure", "target_modules", json!("(a{1000}){1000}"), "target_modules"),
        ("a rank that is none", "rank_pattern", json!({ "qkv_proj": -1 }), "rank_pattern"),
        ("a pattern of nothing", "alpha_pattern", json!({ "(?=x)": 1 }), "alpha_pattern"),
    ] {
        refuses_change(what, set(key, value), &[name, part]);
    }
    // Of these the weights are of another opinion.
    let weights = "adapter_model.safetensors";
    refuses_change("another rank", set("r", json!(3)), &[weights, "expected [3, 8], found [2, 8]"]);
    let vast = u64::MAX / 8;
    refuses_change("a rank without measure", set("r", json!(vast)), &[weights, &format!("expected [{vast}, 8]")]);
    refuses_change(
        "a rank of one module",
        set("rank_pattern", json!({ "proj_1": 5 })),
        &[weights, "proj_1", "expected [5"],
    );
    refuses_change("no DoRA", set("use_dora", json!(false)), &[weights, "lora_magnitude_vector", "DoRA"]);
    refuses_change("fewer targets", set("target_modules", json!(["qkv_proj"])), &[weights, "does not adapt"]);
    refuses_change("fewer targets", set("target_modules", json!(".*qkv_proj")), &[weights, "does not adapt"]);
}

#[test]
fn weights_of_no_adapter() {
    let zeros = |shape: &[usize]| (Dtype::F32, shape.to_vec(), vec![0; 4 * shape.iter().product::<usize>()]);
    refuses_weights("no tensors", |tensors| tensors.clear(), &["no adapter"]);
    refuses_weights("no A", |tensors| drop(tensors.remove(A)), &[A, "missing; expected [2, 8]"]);
    refuses_weights("no magnitude", |tensors| drop(tensors.remove(M)), &[M, "missing; expected [24]"]);
    refuses_weights("another shape", |tensors| drop(tensors.insert(A.into(), zeros(&[8, 2]))), &[A, "found [8, 2]"]);
    refuses_weights("a vector", |tensors| drop(tensors.insert(A.into(), zeros(&[16]))), &[A, "found [16]"]);
    let integers = (Dtype::I64, vec![2, 8], vec![0; 128]);
    refuses_weights("integers", |tensors| drop(tensors.insert(A.into(), integers)), &[A, "dtype"]);
    for stray in [
        "base_model.model.transformer.layers.1.attn.qkv_proj.lora_A.weight",
        "base_model.model.transformer.token_embeddings.lora_A.weight",
        "base_model.model.transformer.layers.0.attn.qkv_proj.lora_embedding_A",
        "base_model.model.transformer.layers.0.attn.qkv_proj.lora_B.bias",
        "x",
    ] {
        refuses_weights(stray, |tensors| drop(tensors.insert(stray.into(), zeros(&[2, 8]))), &[stray, "no module"]);
    }
}

#[test]
fn keys_that_are_not_known_are_passed_over_and_named() {
    let folder = folder();
    let path = folder.path().join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["use_something_new"] = json!(true);
    config["something_off"] = json!(false);
    fs::write(path, config.to_string()).unwrap();
    let adapter = measured("keys not known", MAX_BYTES, || peft::read(folder.path(), &micro())).unwrap();
    assert_eq!(adapter.notes.len(), 1);
    assert!(adapter.notes[0].contains("use_something_new"), "{:?}", adapter.notes);
}

fn refuses_yaml(what: &str, yaml: &str, parts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    corenet::write(folder.path(), &sound()).unwrap();
    fs::write(folder.path().join("adapter.yaml"), yaml).unwrap();
    assert_refused(what, &[&["adapter."], parts].concat(), || corenet::read(folder.path(), &micro()));
}

#[test]
fn yaml_of_no_adapter() {
    let entry = |regex: &str, module_type: &str, change: (&str, &str)| {
        let params = "adapter_name: lora, r: 2, lora_alpha: 4, lora_dropout: 0.0, init_lora_weights: true, \
                      use_rslora: false, use_dora: true";
        let params = params.replace(change.0, change.1);
        format!("{{regex: '{regex}', module_type: {module_type}, params: {{{params}}}}}")
    };
    let yaml = |entries: &[String]| format!("model: {{lora: {{use_lora: true, config: [{}]}}}}", entries.join(", "));
    let all = |change| yaml(&[entry(".*proj.*", "linear", change)]);
    let same = ("r: 2", "r: 2");
    refuses_yaml("no entries", &yaml(&[]), &["adapter.yaml", "empty"]);
    refuses_yaml("a rank that is a text", &all(("r: 2", "r: two")), &["adapter.yaml"]);
    refuses_yaml("no rank", &all(("r: 2", "r: 0")), &["adapter.yaml", "no rank"]);
    refuses_yaml("an alpha that is no number", &all(("lora_alpha: 4", "lora_alpha: .nan")), &["adapter."]);
    refuses_yaml("another rank", &all(("r: 2", "r: 3")), &["adapter.pt", "expected [3, 8], found [2, 8]"]);
    refuses_yaml("no DoRA", &all(("use_dora: true", "use_dora: false")), &["adapter.pt", "DoRA"]);
    refuses_yaml("another name", &all((": lora", ": other")), &["adapter.pt", "lora_A.lora", "no module"]);
    refuses_yaml("a kind not known", &yaml(&[entry(".*", "conv", same)]), &["adapter.yaml", "\"conv\""]);
    refuses_yaml(
        "the embedding as linear",
        &yaml(&[entry(".*", "linear", same)]),
        &["adapter.yaml", "token_embeddings"],
    );
    refuses_yaml(
        "a pattern that is none",
        &yaml(&[entry("(", "linear", same)]),
        &["adapter.yaml", "regular expression"],
    );
    let overlapping = yaml(&[entry(".*proj.*", "linear", same), entry(".*qkv.*", "linear", same)]);
    refuses_yaml("two entries for one module", &overlapping, &["adapter.yaml", "qkv_proj"]);
    let fewer = yaml(&[entry(".*qkv.*", "linear", same)]);
    refuses_yaml("fewer modules", &fewer, &["adapter.pt", "does not adapt"]);
    let uneven = yaml(&[entry(".*qkv.*", "linear", same), entry(".*out.*", "linear", ("0.0", "0.5"))]);
    refuses_yaml("two dropouts", &uneven, &["adapter.yaml", "lora_dropout"]);
    refuses_yaml("cut off", &all(same)[..60], &["adapter.yaml"]);
}

#[test]
fn state_dicts_of_no_adapter() {
    let read = |name: &str, tensor: PickledTensor, parts: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("adapter.pt");
        checkpoint(&file, &dictionary(&[(name.to_owned(), tensor.pickled())]));
        assert_refused(name, &[&["adapter.pt"], parts].concat(), || corenet::read(&file, &micro()));
    };
    const NAME: &str = "layers.0.attn.qkv_proj.lora_A.lora.weight";
    read("norm.weight", PickledTensor::of(&[8]), &["no adapter"]);
    read(NAME, PickledTensor::of(&[8]), &["alpha"]);
    // Ten gigabytes, by strides of 0; of the rank that is known without a configuration.
    let vast = PickledTensor { shape: vec![32, 80_000_000], strides: vec![0, 0], ..PickledTensor::of(&[8]) };
    read(NAME, vast, &[NAME, "expected [32, 8], found [32, 80000000]"]);
}

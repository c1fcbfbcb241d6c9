//! Adapters as PEFT 0.21.2 and CoreNet wrote them (`tests/golden/{lora,dora}`; exact).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use openelm_formats::adapter::{corenet, peft};
use openelm_formats::huggingface;
use openelm_model::{Adapter, AdapterModule, AdapterOptions, DType, Encoding, ModelConfig, Tensor, targets};
use openelm_testing::{golden, json, shared};
use serde_json::{Value, json};

const CASES: [&str; 5] = ["lora/basic", "lora/rslora", "lora/with_embeddings", "dora/basic", "dora/qkv_only"];

fn tiny() -> ModelConfig {
    huggingface::read(&golden("tiny/hf")).unwrap().config
}

fn from_peft(case: &str) -> Adapter {
    peft::read(&golden(case), &tiny()).unwrap()
}

/// A file of CoreNet's beside a YAML with the configuration that made it.
fn from_corenet(file: &Path, layout: &Path) -> Adapter {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(file, folder.path().join("adapter.pt")).unwrap();
    let lora = json!({ "model": { "lora": { "use_lora": true, "config": json(layout)["corenet_lora_config"] } } });
    // JSON is YAML.
    fs::write(folder.path().join("recipe.yaml"), lora.to_string()).unwrap();
    corenet::read(folder.path(), &tiny()).unwrap()
}

fn assert_same_tensor(name: &str, a: &Tensor, b: &Tensor) {
    assert_eq!((a.shape(), a.encoding()), (b.shape(), b.encoding()), "{name}");
    assert!(a.bytes() == b.bytes(), "{name} has other values");
}

fn assert_same_module(name: &str, a: &AdapterModule, b: &AdapterModule) {
    assert_eq!((a.alpha, a.rank()), (b.alpha, b.rank()), "{name}");
    assert_same_tensor(name, &a.a, &b.a);
    assert_same_tensor(name, &a.b, &b.b);
    assert_eq!(a.magnitude.is_some(), b.magnitude.is_some(), "{name}");
    if let (Some(a), Some(b)) = (&a.magnitude, &b.magnitude) {
        assert_same_tensor(name, a, b);
    }
}

fn assert_same(a: &Adapter, b: &Adapter) {
    let names = |adapter: &Adapter| adapter.modules().map(|(target, _)| target.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(a), names(b));
    assert_eq!((a.options.rs_lora, a.options.dropout), (b.options.rs_lora, b.options.dropout));
    for ((target, a), (_, b)) in a.modules().zip(b.modules()) {
        assert_same_module(&target.name, a, b);
    }
}

#[test]
fn adapters_of_peft_are_read() {
    for case in CASES {
        let adapter = from_peft(case);
        let config = json(&golden(case).join("adapter_config.json"));
        assert_eq!(adapter.options.rs_lora, config["use_rslora"] == true);
        assert_eq!(adapter.options.base_model.as_deref(), Some("tiny/hf"));
        assert!(adapter.notes.is_empty(), "{:?}", adapter.notes);
        let kinds: Vec<&str> =
            config["target_modules"].as_array().unwrap().iter().map(|k| k.as_str().unwrap()).collect();
        let of_kind = |name: &str| kinds.iter().any(|kind| name.ends_with(kind));
        for target in targets(&tiny()) {
            assert_eq!(adapter.module(&target.name).is_some(), of_kind(&target.name), "{case}: {}", target.name);
        }
        for (target, module) in adapter.modules() {
            assert_eq!((module.rank(), module.alpha), (4, 8.0));
            assert_eq!(module.magnitude.is_some(), config["use_dora"] == true);
            assert_eq!((module.a.shape(), module.b.shape()), (&[4, target.inputs][..], &[target.outputs, 4][..]));
        }
    }
}

#[test]
fn what_is_written_is_to_the_byte_what_peft_writes() {
    for case in CASES {
        let folder = tempfile::tempdir().unwrap();
        peft::write(folder.path(), &from_peft(case)).unwrap();
        for file in ["adapter_model.safetensors", "adapter_config.json"] {
            let read = |folder: &Path| fs::read(folder.join(file)).unwrap();
            // PEFT's JSON has no line break at its end.
            assert!(read(folder.path()).trim_ascii_end() == read(&golden(case)), "{case}: {file} differs");
        }
        assert!(peft::write(folder.path(), &from_peft(case)).unwrap_err().to_string().contains("exists already"));
    }
}

#[test]
fn adapters_of_corenet_are_those_of_peft() {
    for case in ["lora/basic", "dora/basic"] {
        let folder = golden(case).join("corenet");
        let adapter = from_corenet(&folder.join("adapter_only_keys.pt"), &folder.join("layout.json"));
        assert_same(&adapter, &from_peft(case));
    }
}

#[test]
fn an_adapter_in_a_checkpoint_with_the_whole_model_is_found() {
    let Some(file) = shared("golden/lora/with_embeddings/corenet/checkpoint.pt") else { return };
    let adapter = from_corenet(&file, &golden("lora/with_embeddings/corenet/layout.json"));
    assert_same(&adapter, &from_peft("lora/with_embeddings"));
}

#[test]
fn corenet_adapts_more_than_peft_where_its_configuration_does() {
    let Some(folder) = shared("golden/dora/qkv_only/corenet") else { return };
    let adapter = from_corenet(&folder.join("adapter_only_keys.pt"), &folder.join("layout.json"));
    let only_qkv = from_peft("dora/qkv_only");
    assert_eq!(adapter.modules().count(), 16);
    for (target, module) in adapter.modules() {
        match only_qkv.module(&target.name) {
            Some(expected) => assert_same_module(&target.name, module, expected),
            None => assert!(module.b.to_f32().iter().all(|&x| x == 0.0), "{} is at work", target.name),
        }
    }
}

#[test]
fn round_trips_from_peft_to_corenet_are_exact() {
    for case in CASES {
        let (corenet_folder, peft_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut adapter = from_peft(case);
        corenet::write(corenet_folder.path(), &adapter).unwrap();
        assert!(corenet::write(corenet_folder.path(), &adapter).unwrap_err().to_string().contains("exists already"));
        let through = corenet::read(corenet_folder.path(), &tiny()).unwrap();
        assert!(through.notes.is_empty(), "{:?}", through.notes);
        assert_same(&through, &adapter);
        peft::write(peft_folder.path(), &through).unwrap();
        let read = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
        assert!(read(peft_folder.path()) == read(&golden(case)), "{case} differs");
        // CoreNet does not say what the base model is called.
        adapter.options.base_model = None;
        let config = |folder: &Path| json(&folder.join("adapter_config.json"));
        let mut expected = config(&golden(case));
        expected["base_model_name_or_path"] = Value::Null;
        assert_eq!(config(peft_folder.path()), expected, "{case}");
    }
}

#[test]
fn the_yaml_written_has_the_settings_of_corenets_own() {
    for case in ["lora/basic", "lora/with_embeddings", "dora/basic"] {
        let folder = tempfile::tempdir().unwrap();
        corenet::write(folder.path(), &from_peft(case)).unwrap();
        let yaml: Value =
            serde_saphyr::from_str(&fs::read_to_string(folder.path().join("adapter.yaml")).unwrap()).unwrap();
        let entries = |config: &Value| {
            let entries = config.as_array().unwrap().iter();
            entries.map(|entry| (entry["module_type"].to_string(), entry["params"].clone())).collect::<Vec<_>>()
        };
        let (mut found, mut expected) = (
            entries(&yaml["model"]["lora"]["config"]),
            entries(&json(&golden(case).join("corenet/layout.json"))["corenet_lora_config"]),
        );
        // Where CoreNet has an entry for each kind, here is one for all of the same settings.
        found.dedup();
        expected.dedup();
        assert_eq!(found, expected, "{case}");
    }
}

/// An adapter whose modules differ in rank, alpha and dtype.
fn uneven(model: &ModelConfig) -> Adapter {
    let tensor = |shape: [usize; 2], dtype: DType, seed: usize| {
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|i| ((i + seed) % 61) as f32 / 32.0 - 1.0).collect();
        let bytes: Vec<u8> = match dtype {
            DType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::F16 => values.iter().flat_map(|&x| half::f16::from_f32(x).to_le_bytes()).collect(),
            DType::BF16 => values.iter().flat_map(|&x| half::bf16::from_f32(x).to_le_bytes()).collect(),
        };
        Tensor::new(dtype, shape.to_vec(), bytes.into()).unwrap()
    };
    let mut modules = BTreeMap::new();
    for (i, target) in targets(model).into_iter().enumerate() {
        let (rank, alpha) = match target.name.as_str() {
            name if name.ends_with("out_proj") => continue,
            name if name.ends_with("proj_1") => (8, 16.0),
            "layers.1.attn.qkv_proj" => (2, 0.5),
            "layers.0.ffn.proj_2" => continue,
            _ => (3, 6.0),
        };
        let dtype = [DType::F32, DType::F16, DType::BF16][i % 3];
        let (a, b) = (tensor([rank, target.inputs], dtype, i), tensor([target.outputs, rank], DType::F32, i + 1));
        modules.insert(target.name, AdapterModule { alpha, a, b, magnitude: None });
    }
    let options = AdapterOptions { dropout: 0.05, rs_lora: true, base_model: None };
    Adapter::new(model, options, modules).unwrap()
}

#[test]
fn ranks_and_alphas_of_single_modules_survive() {
    for model in [tiny(), huggingface::read(&golden("tiny_variants/untied_noqknorm")).unwrap().config] {
        let adapter = uneven(&model);
        let (corenet_folder, peft_folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        corenet::write(corenet_folder.path(), &adapter).unwrap();
        assert_same(&corenet::read(corenet_folder.path(), &model).unwrap(), &adapter);
        peft::write(peft_folder.path(), &adapter).unwrap();
        assert_same(&peft::read(peft_folder.path(), &model).unwrap(), &adapter);
        let config = json(&peft_folder.path().join("adapter_config.json"));
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(3), &json!(6)));
        assert_eq!(config["rank_pattern"], json!({ "transformer.layers.1.attn.qkv_proj": 2, "proj_1": 8 }));
        assert_eq!(config["alpha_pattern"], json!({ "transformer.layers.1.attn.qkv_proj": 0.5, "proj_1": 16 }));
    }
}

#[test]
fn the_vocabulary_is_cut_along_the_columns_of_the_embeddings_a() {
    let mut adapter = from_peft("lora/with_embeddings");
    let whole = adapter.module("token_embeddings").unwrap().clone();
    adapter.trim_vocabulary(500).unwrap();
    let trimmed = adapter.module("token_embeddings").unwrap();
    let columns = |tensor: &Tensor| tensor.shape()[1];
    assert_eq!(trimmed.a.shape(), [4, 500]);
    let (before, after) = (whole.a.to_f32(), trimmed.a.to_f32());
    for (row, kept) in before.chunks(columns(&whole.a)).zip(after.chunks(500)) {
        assert_eq!(&row[..500], kept);
    }
    assert_same_tensor("B", &trimmed.b, &whole.b);
    assert!(adapter.trim_vocabulary(501).unwrap_err().to_string().contains("cannot be cut to 501"));
    assert!(adapter.trim_vocabulary(0).is_err());
    // What is left fits the model with the smaller vocabulary.
    let folder = tempfile::tempdir().unwrap();
    peft::write(folder.path(), &adapter).unwrap();
    peft::read(folder.path(), &ModelConfig { vocab_size: 500, ..tiny() }).unwrap();
}

#[test]
fn peft_cannot_have_dora_beside_lora_on_the_embedding_but_corenet_can() {
    let (dora, embedding) = (from_peft("dora/basic"), from_peft("lora/with_embeddings"));
    let mut modules: BTreeMap<String, AdapterModule> =
        dora.modules().map(|(target, module)| (target.name.clone(), module.clone())).collect();
    modules.insert("token_embeddings".to_owned(), embedding.module("token_embeddings").unwrap().clone());
    let adapter = Adapter::new(&tiny(), dora.options.clone(), modules).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let refused = peft::write(folder.path(), &adapter).unwrap_err().to_string();
    assert!(refused.contains("token_embeddings"), "{refused}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
    corenet::write(folder.path(), &adapter).unwrap();
    assert_same(&corenet::read(folder.path(), &tiny()).unwrap(), &adapter);
}

#[test]
fn without_a_yaml_only_what_corenet_released_is_understood() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openelm_lora.pt");
    fs::copy(golden("lora/basic/corenet/adapter_only_keys.pt"), &file).unwrap();
    let refused = corenet::read(&file, &tiny()).unwrap_err().to_string();
    assert!(refused.contains("openelm_lora.pt") && refused.contains("alpha"), "{refused}");

    let model = tiny();
    let module = |rank: usize, inputs: usize, outputs: usize| AdapterModule {
        alpha: 32.0,
        a: Tensor::from_f32(vec![rank, inputs], vec![0.5; rank * inputs]).unwrap(),
        b: Tensor::from_f32(vec![outputs, rank], vec![0.25; rank * outputs]).unwrap(),
        magnitude: None,
    };
    let modules = targets(&model).into_iter().map(|t| (t.name, module(32, t.inputs, t.outputs))).collect();
    let released = Adapter::new(&model, AdapterOptions { dropout: 0.1, ..AdapterOptions::default() }, modules).unwrap();
    let folder = tempfile::tempdir().unwrap();
    corenet::write(folder.path(), &released).unwrap();
    fs::remove_file(folder.path().join("adapter.yaml")).unwrap();
    let read = corenet::read(folder.path(), &model).unwrap();
    assert_same(&read, &released);
    assert!(read.notes[0].contains("alpha 32"), "{:?}", read.notes);
}

#[test]
fn adapters_that_fit_no_module_cannot_be_made() {
    let (model, adapter) = (tiny(), from_peft("dora/basic"));
    let refused = |name: &str, change: &dyn Fn(&mut AdapterModule)| {
        let mut module = adapter.module("layers.0.attn.qkv_proj").unwrap().clone();
        change(&mut module);
        let modules = BTreeMap::from([(name.to_owned(), module)]);
        Adapter::new(&model, AdapterOptions::default(), modules).unwrap_err().to_string()
    };
    const NAME: &str = "layers.0.attn.qkv_proj";
    assert!(refused("layers.0.attn.q_norm", &|_| ()).contains("layers.0.attn.q_norm"));
    assert!(refused("layers.9.attn.qkv_proj", &|_| ()).contains("layers.9"));
    assert!(refused(NAME, &|module| module.alpha = f64::NAN).contains("alpha is NaN"));
    let swapped = refused(NAME, &|module| std::mem::swap(&mut module.a, &mut module.b));
    assert!(swapped.contains(NAME) && swapped.contains("expected"), "{swapped}");
    assert!(refused(NAME, &|module| module.magnitude = Some(module.a.clone())).contains("lora_magnitude_vector"));
    assert!(Adapter::new(&model, AdapterOptions::default(), BTreeMap::new()).is_err());
    let options = AdapterOptions { dropout: 1.0, ..AdapterOptions::default() };
    let modules = BTreeMap::from([(NAME.to_owned(), adapter.module(NAME).unwrap().clone())]);
    assert!(Adapter::new(&model, options, modules).unwrap_err().to_string().contains("dropout"));
    assert_eq!(adapter.module(NAME).unwrap().a.encoding(), Encoding::Float(DType::F32));
}

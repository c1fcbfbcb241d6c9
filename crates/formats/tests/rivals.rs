//! Agreement of the neighbouring families with transformers 5: logits of small random models (`tests/golden/rivals`; 5e-5
//! absolute), as they are stored and through every format.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::ops::ControlFlow;
use std::path::Path;

use openelm_formats::gguf::Quantisation;
use openelm_formats::huggingface::{self, WriteOptions};
use openelm_formats::{StoredModel, Target, convert, open};
use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::{AffineFormat, BlockFormat};
use openelm_model::{
    DType, Engine, Family, Geometry, Model, ModelConfig, Multipliers, RopeScaling, Session, Tensor, TensorSpec, sites,
};
use openelm_testing::{golden, max_difference, npz};
use safetensors::SafeTensors;
use serde_json::json;

const TOLERANCE: f32 = 5e-5;
const NAMES: [&str; 6] = ["llama", "llama3", "llama_linear", "qwen2", "olmo", "olmo2"];

fn stored(name: &str) -> StoredModel {
    open(&golden("rivals").join(name)).unwrap()
}

/// The distance of the logits of `model` from those of the golden model `name`, taken in `chunk` tokens at a time.
fn distance(name: &str, model: &Model, chunk: usize) -> f32 {
    let golden = npz(&golden("rivals").join(name).join("logits.npz"));
    let (ids, time) = (golden["input_ids"].ids(), golden["input_ids"].shape[1]);
    let mut found = Vec::new();
    for ids in ids.chunks(time) {
        let mut session = Session::new(Engine::new(model.clone(), Threads::new(2)), time);
        for ids in ids.chunks(chunk) {
            session.append_all(ids, |logits| found.extend_from_slice(logits)).unwrap();
        }
    }
    max_difference(&found, &golden["logits"].f32())
}

#[test]
fn logits_are_those_of_transformers() {
    for name in NAMES {
        let model = stored(name).into_model().unwrap();
        for chunk in [1, 5, 1000] {
            let difference = distance(name, &model, chunk);
            println!("{name} in chunks of {chunk}: {difference:e}");
            assert!(difference <= TOLERANCE, "{name} in chunks of {chunk}: {difference:e}");
        }
        assert!(distance(name, &model.widened(), 1000) <= TOLERANCE, "{name}, widened");
        assert_eq!(model.weight_bytes(), 2 * model.config().parameters() + vector_bytes(&model), "{name}");
    }
}

/// Bytes of vectors beyond the two of an element, as they are widened.
fn vector_bytes(model: &Model) -> usize {
    let specs = openelm_model::tensor_specs(model.config());
    2 * specs.iter().filter(|spec| spec.shape.len() == 1).map(|spec| spec.len()).sum::<usize>()
}

/// The golden model `name` with another `config.json`.
fn with_config(name: &str, config: &str, folder: &Path) {
    let source = golden("rivals").join(name);
    std::fs::write(folder.join("config.json"), config).unwrap();
    std::fs::copy(source.join("model.safetensors"), folder.join("model.safetensors")).unwrap();
}

#[test]
fn configurations_of_transformers_4_and_5_say_the_same() {
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let old = std::fs::read_to_string(golden("rivals").join(name).join("config_v4.json")).unwrap();
        assert!(old.contains("rope_theta") && !old.contains("rope_parameters"));
        with_config(name, &old, folder.path());
        assert_eq!(open(folder.path()).unwrap().config, stored(name).config, "{name}");
    }
    assert_eq!(stored("olmo2").config.family, Family::Olmo2);
    let llama3 = RopeScaling::Llama3 { factor: 8.0, low_turns: 1.0, high_turns: 4.0, original_length: 32 };
    assert_eq!(stored("llama3").config.rope_scaling, llama3);
}

#[test]
fn files_of_llama_cpp_hold_the_same_model() {
    for name in NAMES {
        let (folder, file) = (stored(name), open(&golden("rivals").join(name).join("model.gguf")).unwrap());
        assert_same_arithmetic(&file.config, &folder.config, name);
        assert_same_values(&file, &folder, name);
        let difference = distance(name, &file.into_model().unwrap(), 7);
        assert!(difference <= TOLERANCE, "{name}: {difference:e}");
    }
}

/// Fails unless two geometries compute the same; how their files described it may differ.
fn assert_same_arithmetic(found: &ModelConfig, expected: &ModelConfig, what: &str) {
    let bare = |config: &ModelConfig| {
        let mut config = config.clone();
        (config.qkv_multipliers, config.ffn_divisor, config.rope_max_length) = (Multipliers::Uniform(1.0), 1, 0);
        config.layers.iter_mut().for_each(|layer| layer.ffn_multiplier = 1.0);
        config
    };
    assert_eq!(bare(found), bare(expected), "{what}");
}

fn assert_same_values(found: &StoredModel, expected: &StoredModel, what: &str) {
    for spec in expected.specs() {
        let values = |model: &StoredModel| model.tensor(&spec.name).unwrap().to_f32();
        assert_eq!(values(found), values(expected), "{what}: {}", spec.name);
    }
}

/// The golden model `name` with the tokenizer that it was given.
fn with_tokenizer(name: &str) -> StoredModel {
    let tokenizer = open(&golden("rivals").join(name).join("model.gguf")).unwrap().tokenizer;
    assert!(tokenizer.is_some(), "{name}");
    let mut model = stored(name);
    model.tokenizer = tokenizer;
    model
}

fn written(model: &StoredModel, output: &Path, target: Target) -> StoredModel {
    convert(model, output, target, &Threads::new(2), &|_| ControlFlow::Continue(())).unwrap();
    open(output).unwrap()
}

#[test]
fn conversions_between_floats_change_no_value() {
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let path = |end: &str| folder.path().join(end);
        let mut model = with_tokenizer(name);
        let mut step = 0;
        let parameters = model.config.parameters();
        for target in [
            Target::HuggingFace(DType::F32),
            Target::Gguf(Quantisation::Float(DType::F32)),
            Target::Mlx(DType::BF16, None),
            Target::Gguf(Quantisation::Float(DType::BF16)),
            Target::HuggingFace(DType::BF16),
        ] {
            step += 1;
            let output = path(&format!("{step}{}", if matches!(target, Target::Gguf(_)) { ".gguf" } else { "" }));
            let told = Cell::new(0);
            let count = |elements: usize| {
                told.set(told.get() + elements);
                ControlFlow::Continue(())
            };
            convert(&model, &output, target, &Threads::new(2), &count).unwrap();
            assert_eq!(told.get(), parameters, "{name} to {target:?}: progress");
            model = open(&output).unwrap();
            assert_same_arithmetic(&model.config, &stored(name).config, name);
            assert_same_values(&model, &stored(name), name);
        }
        let difference = distance(name, &model.into_model().unwrap(), 1000);
        assert!(difference <= TOLERANCE, "{name}: {difference:e}");
    }
}

#[test]
fn quantised_parts_are_joined_and_cut_without_a_change() {
    let affine = AffineFormat::new(4, 32).unwrap();
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        for (number, target) in [
            Target::Gguf(Quantisation::Blocks(BlockFormat::Q4_1)),
            Target::Gguf(Quantisation::Blocks(BlockFormat::Q8_0)),
            // Scales in f32: MLX rounds what it widens to the type of the scales, which products in integers do not.
            Target::Mlx(DType::F32, Some(affine)),
        ]
        .into_iter()
        .enumerate()
        {
            let path = |copy: usize| {
                let end = if matches!(target, Target::Gguf(_)) { ".gguf" } else { "" };
                folder.path().join(format!("{number}-{copy}{end}"))
            };
            let first = written(&with_tokenizer(name), &path(1), target);
            let second = written(&first, &path(2), target);
            for spec in first.specs() {
                let [a, b] = [&first, &second].map(|model| model.tensor(&spec.name).unwrap());
                assert_eq!(a.encoding(), b.encoding(), "{name}: {}", spec.name);
                assert_eq!(a.bytes(), b.bytes(), "{name}: {}", spec.name);
                assert_eq!(a.scales_and_biases(), b.scales_and_biases(), "{name}: {}", spec.name);
            }
            // Packed they are the same numbers.
            let packed = first.into_packed_model(&Threads::new(2)).unwrap();
            let wide = second.into_model().unwrap().widened();
            for site in sites(packed.config()) {
                let [a, b] = [&packed, &wide].map(|model| model.matrix(site).to_f32());
                assert_eq!(a, b, "{name} as {target:?}: {site:?}");
            }
            let (chunked, whole) = (distance(name, &packed, 3), distance(name, &packed, 1000));
            assert_eq!(chunked, whole, "{name} as {target:?}");
        }
    }
}

#[test]
fn parts_of_different_encodings_run_as_they_are() {
    // Rows of 256, so that there are K-quants: values get 6 bits in some layers where queries and keys get 4.
    let geometry = Geometry {
        layers: 3,
        dim: 256,
        head_dim: 32,
        gqa_groups: 2,
        ffn_multipliers: Multipliers::Uniform(2.0),
        qkv_multipliers: Multipliers::Uniform(1.0),
        qk_norm: false,
        family: Family::Llama,
        norm_eps: Some(1e-5),
        ..Geometry::default()
    };
    let config = geometry.build(384).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tensor = |spec: &TensorSpec| {
        let values = (0..spec.len()).map(|i| ((i * 7919 + spec.name.len()) as f32).sin() * 0.1).collect();
        Ok(Tensor::from_f32(spec.shape.clone(), values)?)
    };
    let options = WriteOptions { dtype: DType::F32, shard_bytes: 100_000 };
    huggingface::write(folder.path(), &config, None, &tensor, options, &Threads::new(2)).unwrap();
    let mut model = open(folder.path()).unwrap();
    assert!(model.files.len() > 3);
    model.tokenizer = with_tokenizer("llama").tokenizer;
    let file = folder.path().join("a.gguf");
    let mixed = written(&model, &file, Target::Gguf(Quantisation::Blocks(BlockFormat::Q4_K)));
    let encodings: Vec<String> = mixed.encodings().iter().map(|(encoding, ..)| encoding.to_string()).collect();
    assert_eq!(encodings.len(), 3, "{encodings:?}");
    let ids: Vec<u32> = (0..40).map(|i| i * 37 % 384).collect();
    let logits = |model: Model, chunk: usize| {
        let mut session = Session::new(Engine::new(model, Threads::new(2)), ids.len());
        let mut all = Vec::new();
        for ids in ids.chunks(chunk) {
            session.append_all(ids, |logits| all.extend_from_slice(logits)).unwrap();
        }
        all
    };
    let size = mixed.size();
    let exact = logits(open(&file).unwrap().into_model().unwrap(), 1000);
    let wide = logits(open(&file).unwrap().into_model().unwrap().widened(), 1000);
    // Widened and as they lie, matrices give the same bits.
    assert_eq!(exact, wide);
    let packed = mixed.into_packed_model(&Threads::new(2)).unwrap();
    assert!(packed.weight_bytes() < size + size / 4, "{} for {size}", packed.weight_bytes());
    let at_once = logits(packed.clone(), 1000);
    assert_eq!(at_once, logits(packed, 1));
    assert!(max_difference(&at_once, &exact) < 0.2);
}

#[test]
fn corenet_has_no_other_family() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let refused = convert(&stored("llama"), &output, Target::CoreNet(DType::F32), &Threads::single(), &|_| {
        ControlFlow::Continue(())
    });
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("Llama") && !output.exists(), "{refused}");
}

#[test]
fn what_is_not_known_of_a_configuration_is_refused_by_its_key() {
    let refused = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let folder = tempfile::tempdir().unwrap();
        let mut config: serde_json::Value =
            serde_json::from_slice(&std::fs::read(golden("rivals").join(name).join("config.json")).unwrap()).unwrap();
        change(&mut config);
        with_config(name, &config.to_string(), folder.path());
        let e = open(folder.path()).unwrap_err().to_string();
        assert!(e.contains("config.json"), "{e}");
        e
    };
    let set =
        |key: &'static str, value: serde_json::Value| move |config: &mut serde_json::Value| config[key] = value.clone();
    for (name, key, value, parts) in [
        ("olmo", "clip_qkv", json!(8.0), &["clip_qkv is 8.0", "OLMo"][..]),
        ("llama", "attention_bias", json!(true), &["attention_bias is true"]),
        ("llama", "mlp_bias", json!(true), &["mlp_bias"]),
        ("llama", "logit_scale", json!(2.0), &["logit_scale is 2.0"]),
        ("qwen2", "use_sliding_window", json!(true), &["use_sliding_window"]),
        ("qwen2", "layer_types", json!(["full_attention", "sliding_attention"]), &["layer_types", "sliding_attention"]),
        ("llama", "hidden_act", json!("gelu"), &["hidden_act is \"gelu\"", "silu"]),
        ("llama", "rms_norm_eps", json!(null), &["rms_norm_eps is missing"]),
        ("llama", "rms_norm_eps", json!(-1.0), &["norms", "positive"]),
        ("llama", "num_key_value_heads", json!(3), &["query heads"]),
        ("olmo", "hidden_size", json!(33), &["hidden_size is 33"]),
        ("llama", "head_dim", json!(7), &["head_dim is 7"]),
        ("llama", "num_hidden_layers", json!(1u64 << 40), &["num_hidden_layers"]),
        ("llama", "model_type", json!("gpt_neox"), &["gpt_neox", "olmo2"]),
        ("llama", "partial_rotary_factor", json!(0.5), &["partial_rotary_factor is 0.5"]),
        (
            "llama",
            "rope_parameters",
            json!({ "rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4 }),
            &["yarn", "linear"],
        ),
        ("llama", "rope_parameters", json!({ "rope_type": "linear", "rope_theta": 1e4 }), &["factor is missing"]),
        ("llama", "rope_parameters", json!({ "rope_type": "linear", "factor": 0.0 }), &["factor", "positive"]),
        ("llama", "rope_parameters", json!({ "rope_type": "default", "attention_factor": 2.0 }), &["attention_factor"]),
        ("llama", "rope_parameters", json!([1]), &["must be an object"]),
        ("llama3", "vocab_size", json!("384"), &["vocab_size is \"384\""]),
    ] {
        let e = refused(name, &set(key, value));
        assert!(parts.iter().all(|part| e.contains(part)), "{e}");
    }
    // The keys of one family with the name of another.
    let other = |name: &str, family: &'static str| refused_tensor(name, family);
    for (name, family, part) in [
        ("qwen2", "llama", "k_proj.bias"),
        ("olmo2", "llama", "layernorm"),
        ("llama", "qwen2", "q_proj.bias"),
        ("llama", "olmo2", "q_norm"),
    ] {
        let e = other(name, family);
        assert!(e.contains(part), "{name} as {family}: {e}");
    }
    // What is switched off, and what says nothing of the arithmetic, may be there.
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(golden("rivals/llama/config.json")).unwrap();
    let text = text.replacen(
        '{',
        "{\"rope_interleaved\": false, \"is_llama_config\": true, \"transformers.js_config\": {\"a\": 1}, \"x\": null,",
        1,
    );
    with_config("llama", &text, folder.path());
    assert_eq!(open(folder.path()).unwrap().config, stored("llama").config);
}

#[test]
fn a_network_that_all_layers_share_may_be_stored_once() {
    // As MobiLlama's: the golden model with the first layer's network in every layer, and the same without the others.
    let bytes = std::fs::read(golden("rivals/llama/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let network = |name: &str| name.contains(".mlp.");
    let shared = |name: &str| file.tensor(&name.replace("layers.1.mlp", "layers.0.mlp")).unwrap();
    let tensors: Vec<_> = file.names().into_iter().map(|name| (name.to_owned(), shared(name))).collect();
    assert_eq!(tensors.iter().filter(|(name, _)| network(name)).count(), 6);
    let once = tensors.iter().filter(|(name, _)| !name.contains("layers.1.mlp")).cloned();
    let opened = [once.collect(), tensors.clone()].map(|tensors: Vec<_>| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(golden("rivals/llama/config.json"), folder.path().join("config.json")).unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        open(folder.path()).unwrap()
    });
    assert_same_values(&opened[0], &opened[1], "shared");
    let [once, twice] = opened.map(|model| distance("llama", &model.into_model().unwrap(), 1000));
    assert_eq!(once, twice);
    assert!(once > 1e-2, "another model than the golden one: {once:e}");
}

/// What is said of the golden model `name` whose configuration names another family.
fn refused_tensor(name: &str, family: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(golden("rivals").join(name).join("config.json")).unwrap();
    with_config(
        name,
        &text.replace(&format!("\"model_type\": \"{name}\""), &format!("\"model_type\": \"{family}\"")),
        folder.path(),
    );
    open(folder.path()).unwrap_err().to_string()
}

#[test]
fn a_file_with_the_name_of_another_architecture_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.gguf");
    for (name, other, part) in [
        ("qwen2", "llama", ".bias"),
        ("llama", "qwen2", "attn_q.bias"),
        ("olmo2", "llama", "attn_norm"),
        ("llama", "olmo2", "post_attention_norm"),
    ] {
        let mut bytes = std::fs::read(golden("rivals").join(name).join("model.gguf")).unwrap();
        let places: Vec<usize> =
            bytes.windows(5).enumerate().filter(|(_, w)| *w == name.as_bytes()).map(|(i, _)| i).collect();
        places.into_iter().for_each(|at| bytes[at..at + 5].copy_from_slice(other.as_bytes()));
        std::fs::write(&file, &bytes).unwrap();
        let e = open(&file).unwrap_err().to_string();
        assert!(e.contains(part), "{name} as {other}: {e}");
    }
}

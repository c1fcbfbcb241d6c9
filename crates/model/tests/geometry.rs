//! Layer-wise scaling agrees with CoreNet on every configuration of `tests/golden/configs.json`.

#![allow(clippy::unwrap_used)]

use openelm_model::{Activation, Geometry, ModelConfig, Multipliers, make_divisible};
use openelm_testing::{golden, json};
use serde_json::Value;

fn size(value: &Value) -> usize {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a size")) as usize
}

fn multipliers(value: &Value) -> Multipliers {
    serde_json::from_value(value.clone()).unwrap()
}

/// CoreNet's arguments, with its defaults for what is not given.
fn geometry(input: &Value) -> Geometry {
    let mut geometry = Geometry {
        layers: size(&input["num_transformer_layers"]),
        dim: size(&input["model_dim"]),
        head_dim: size(&input["head_dim"]),
        gqa_groups: 1,
        ffn_multipliers: Multipliers::Uniform(4.0),
        qkv_multipliers: Multipliers::Uniform(1.0),
        qk_norm: false,
        tied_embeddings: false,
        ..Geometry::default()
    };
    for (key, value) in input.as_object().unwrap() {
        match key.as_str() {
            "num_gqa_groups" => geometry.gqa_groups = size(value),
            "ffn_multipliers" => geometry.ffn_multipliers = multipliers(value),
            "qkv_multipliers" => geometry.qkv_multipliers = multipliers(value),
            "ffn_dim_divisor" => geometry.ffn_divisor = size(value),
            "ffn_with_glu" => geometry.ffn_glu = value.as_bool().unwrap(),
            "activation_fn_name" if value == "gelu" => geometry.activation = Activation::Gelu,
            "activation_fn_name" => geometry.activation = Activation::Swish,
            "normalize_qk_projections" => geometry.qk_norm = value.as_bool().unwrap(),
            "share_input_output_layers" => geometry.tied_embeddings = value.as_bool().unwrap(),
            "max_context_length" => geometry.context_length = size(value),
            "num_transformer_layers" | "model_dim" | "head_dim" | "vocab_size" | "rope_max_length" => (),
            "rope_freq_constant" => geometry.rope_theta = value.as_f64().unwrap(),
            other => panic!("unknown argument {other}"),
        }
    }
    geometry
}

#[test]
fn every_configuration_of_corenet_comes_out_alike() {
    let golden = json(&golden("configs.json"));
    for case in golden["configs"].as_array().unwrap() {
        let name = &case["name"];
        let config = geometry(&case["input"]).build(size(&case["vocab_size"])).unwrap();
        let layers = case["layers"].as_array().unwrap();
        assert_eq!(config.layers.len(), layers.len(), "{name}");
        for (i, (layer, expected)) in config.layers.iter().zip(layers).enumerate() {
            assert_eq!(layer.query_heads, size(&expected["num_query_heads"]), "{name}, layer {i}");
            assert_eq!(layer.kv_heads, size(&expected["num_kv_heads"]), "{name}, layer {i}");
            assert_eq!(layer.ffn_multiplier, expected["ffn_multiplier"].as_f64().unwrap(), "{name}, layer {i}");
            assert_eq!(layer.ffn_dim, size(&expected["ffn_intermediate_dim"]), "{name}, layer {i}");
            assert_eq!(config.qkv_dim(layer), size(&expected["qkv_out_features"]), "{name}, layer {i}");
            assert_eq!(config.layer_parameters(i), size(&expected["params"]), "{name}, layer {i}");
        }
        assert_eq!(config.parameters(), size(&case["total_params"]), "{name}");
        let tables = config.embedding_parameters() * if config.tied_embeddings { 1 } else { 2 };
        assert_eq!(config.parameters() - tables, size(&case["non_embedding_params"]), "{name}");
    }
    for case in golden["linspace_round2"].as_array().unwrap() {
        let ends = Multipliers::List(vec![case["start"].as_f64().unwrap(), case["stop"].as_f64().unwrap()]);
        let found = ends.per_layer(size(&case["num"]), "ffn_multipliers").unwrap();
        assert_eq!(Value::from(found), case["rounded"]);
    }
    for case in golden["make_divisible"].as_array().unwrap() {
        let found = make_divisible(case[0].as_f64().unwrap(), size(&case[1]));
        assert_eq!(found, size(&case[2]), "make_divisible of {case}");
    }
}

#[test]
fn released_models_have_the_published_counts() {
    // Parameters and key/value elements per token of the released models (reference table of OpenELM's geometry).
    let expected = [
        ("openelm-270m", 271_527_168, 8_064),
        ("OpenELM-450M", 457_179_136, 11_648),
        ("OpenELM-1_1B", 1_079_891_456, 21_632),
        ("3B", 3_036_647_424, 41_984),
    ];
    for (name, parameters, kv_elements) in expected {
        let config = ModelConfig::by_name(name).unwrap();
        assert_eq!(config.parameters(), parameters, "{name}");
        assert_eq!(config.kv_elements_per_token(), kv_elements, "{name}");
    }
    assert!(ModelConfig::by_name("openelm-7b").unwrap_err().to_string().contains("openelm-270m"));
}

#[test]
fn sizes_that_make_no_model_are_refused_by_name() {
    let refused = |change: fn(&mut Geometry)| {
        let mut geometry = Geometry::default();
        change(&mut geometry);
        geometry.build(100).unwrap_err().to_string()
    };
    assert!(refused(|g| g.layers = 0).contains("layers is 0"));
    assert!(refused(|g| g.head_dim = 33).contains("head_dim is 33"));
    assert!(refused(|g| g.ffn_multipliers = Multipliers::List(vec![1.0; 3])).contains("3 entries"));
    assert!(refused(|g| g.qkv_multipliers = Multipliers::Uniform(f64::NAN)).contains("NaN"));
    assert!(refused(|g| g.dim = usize::MAX / 2).contains("more than"));
    assert!(refused(|g| g.rope_theta = -1.0).contains("rope_theta"));
    let mut config = ModelConfig::openelm_270m();
    config.layers[3].kv_heads = 5;
    assert!(config.validate().unwrap_err().to_string().contains("layer 3 has 12 query heads"));
}

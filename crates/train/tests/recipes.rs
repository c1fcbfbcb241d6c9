//! The recipes of OpenELM's pretraining hold the numbers of CoreNet's.

#![allow(clippy::unwrap_used)]

use openelm_testing::{golden, json};
use openelm_train::Recipe;

/// Name of the recipe and of the model, parameters with 32,000 pieces, highest learning rate, and rates at single updates as
/// CoreNet sets them.
type Run = (&'static str, &'static str, usize, f64, &'static [(u64, f64)]);

const RUNS: [Run; 4] = [
    (
        "270m",
        "OpenELM-270M",
        271_527_168,
        5.3e-3,
        &[(0, 1e-6), (1, 2.06e-6), (2500, 0.0026505), (5000, 0.0053), (177_500, 0.00291501), (350_000, 0.00053)],
    ),
    ("450m", "OpenELM-450M", 457_179_136, 3.9e-3, &[(0, 1e-6), (5000, 0.0039), (350_000, 0.00039)]),
    ("1.1b", "OpenELM-1_1B", 1_079_891_456, 2.4e-3, &[(2500, 0.0012005), (177_500, 0.00132)]),
    ("3b", "OpenELM-3B", 3_036_647_424, 1.2e-3, &[(0, 1e-6), (5000, 0.0012), (350_000, 0.00012)]),
];

#[test]
fn every_key_is_explained() {
    let page = std::fs::read_to_string(golden("../../docs/recipes.md")).unwrap();
    let text = "output = \"o\"\n[model]\n[tokenizer]\npath = \"t\"\n\
                [data]\nparity = \"corenet\"\nsources = [{ path = \"a\", weight = 1, format = \"text\", file_id_range = [0, 1] }]\n\
                [[validation]]\nsources = [{ path = \"b\" }]\n\
                [train]\nsequence_length = 8\nbatch_size = 1\nsteps = 1\nshares = 1\n\
                [schedule]\nmax_lr = 1\nmin_lr = 0\nwarmup_steps = 0\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, text).unwrap();
    let whole: toml::Table = Recipe::load(&path, &[]).unwrap().to_toml().parse().unwrap();
    fn check(value: &toml::Value, page: &str) {
        match value {
            toml::Value::Table(table) => table.iter().for_each(|(key, value)| {
                assert!(page.contains(&format!("`{key}`")) || page.contains(&format!("`[{key}]`")), "{key}");
                check(value, page);
            }),
            toml::Value::Array(list) => list.iter().for_each(|value| check(value, page)),
            _ => {}
        }
    }
    check(&toml::Value::Table(whole), &page);
}

#[test]
fn the_four_runs_are_those_of_corenet() {
    let geometries = json(&golden("configs.json"));
    for (name, model, parameters, max_lr, rates) in RUNS {
        let path = golden("../../recipes").join(format!("openelm-{name}.toml"));
        let recipe = Recipe::load(&path, &[]).unwrap();
        let config = recipe.model_config(32_000).unwrap();
        assert_eq!(config.parameters(), parameters, "{name}");
        let expected = geometries["configs"].as_array().unwrap().iter().find(|config| config["name"] == model).unwrap();
        for (i, (layer, expected)) in config.layers.iter().zip(expected["layers"].as_array().unwrap()).enumerate() {
            let found = [layer.query_heads, layer.kv_heads, layer.ffn_dim];
            let expected =
                ["num_query_heads", "num_kv_heads", "ffn_intermediate_dim"].map(|key| expected[key].as_u64());
            assert_eq!(found.map(|number| Some(number as u64)), expected, "{name}, layer {i}");
        }
        let train = &recipe.train;
        assert_eq!((train.sequence_length, train.steps), (2048, 350_000), "{name}");
        assert_eq!(train.sequence_length * train.batch_size * train.accumulation, 4_194_304, "{name}");
        assert_eq!((recipe.data.min_characters, recipe.data.min_tokens), (200, 256), "{name}");
        assert!(recipe.tokenizer.clean, "{name}");
        let schedule = recipe.schedule();
        assert_eq!((schedule.max_lr, schedule.warmup_steps), (max_lr, 5000), "{name}");
        for &(step, rate) in rates {
            assert_eq!(schedule.rounded(step), rate, "{name}, update {step}");
        }
        let optimizer = &recipe.optimizer;
        assert_eq!((optimizer.beta1, optimizer.beta2, optimizer.eps), (0.9, 0.95, 1e-8), "{name}");
        assert_eq!((optimizer.weight_decay, optimizer.clip, optimizer.z_loss), (0.1, 1.0, 1e-4), "{name}");
    }
}

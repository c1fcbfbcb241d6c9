//! Configurations: the first byte says whether the rest is a `config.json`, CoreNet's YAML or the geometry of a recipe.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use openelm_formats::{corenet, huggingface};
use openelm_fuzz::{micro, some_tensor};
use openelm_model::{Geometry, tensor_specs};

thread_local! {
    static FOLDER: tempfile::TempDir = {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let tensor = |spec: &openelm_model::TensorSpec| Ok(some_tensor(&spec.shape));
        let threads = openelm_model::kernels::Threads::single();
        corenet::write(folder.path(), &micro(), &tensor, openelm_model::DType::F32, &threads).expect("the folder is ours");
        std::fs::remove_file(folder.path().join("gpt_config.json")).expect("it was just written");
        folder
    };
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, data)) = data.split_first() else { return };
    let config = match mode {
        0 => huggingface::config_from_json(data, Path::new("config.json")).ok(),
        1 => FOLDER.with(|folder| {
            std::fs::write(folder.path().join("config.yaml"), data).expect("the folder is ours");
            corenet::read(folder.path()).ok().map(|model| model.config)
        }),
        _ => std::str::from_utf8(data).ok().and_then(|text| toml::from_str::<Geometry>(text).ok()?.build(32000).ok()),
    };
    // No more than this is worth listing, and no file of the fuzzer's could hold the weights.
    if let Some(config) = config.filter(|config| config.layers.len() < 1000) {
        config.parameters();
        tensor_specs(&config);
    }
});

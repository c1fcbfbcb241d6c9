//! Adapters of the smallest model: the first byte says whether the rest is a configuration of PEFT's or mlx-lm's, its weights, or
//! CoreNet's YAML, with the other file sound, or a GGUF file.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use openelm_formats::adapter::{corenet, mlx, peft};
use openelm_formats::gguf;
use openelm_fuzz::{micro, micro_adapter, owned};
use openelm_model::Adapter;

struct Files {
    /// Removes the files in the end.
    _folder: tempfile::TempDir,
    peft_config: Vec<u8>,
    peft_weights: Vec<u8>,
    mlx_config: Vec<u8>,
    mlx_weights: Vec<u8>,
    corenet: PathBuf,
}

thread_local! {
    static FILES: Files = {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let [peft_folder, mlx_folder, corenet_folder] = ["peft", "mlx", "corenet"].map(|name| folder.path().join(name));
        peft::write(&peft_folder, &micro_adapter(true)).expect("the folder is ours");
        mlx::write(&mlx_folder, &micro_adapter(true)).expect("the folder is ours");
        corenet::write(&corenet_folder, &micro_adapter(true)).expect("the folder is ours");
        let read = |folder: &Path, name: &str| fs::read(folder.join(name)).expect("it was just written");
        Files {
            peft_config: read(&peft_folder, "adapter_config.json"),
            peft_weights: read(&peft_folder, "adapter_model.safetensors"),
            mlx_config: read(&mlx_folder, "adapter_config.json"),
            mlx_weights: read(&mlx_folder, "adapters.safetensors"),
            corenet: corenet_folder,
            _folder: folder,
        }
    };
}

/// Uses an adapter that was read.
fn use_adapter(mut adapter: Adapter) {
    assert!(adapter.modules().count() > 0);
    adapter.trim_vocabulary(3).expect("the model has more rows");
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, data)) = data.split_first() else { return };
    let adapter = FILES.with(|files| match mode {
        0 => peft::from_bytes(data, owned(&files.peft_weights), "adapter", &micro()),
        1 => peft::from_bytes(&files.peft_config, owned(data), "adapter", &micro()),
        3 => mlx::from_bytes(data, owned(&files.mlx_weights), "adapter", &micro()),
        4 => mlx::from_bytes(&files.mlx_config, owned(data), "adapter", &micro()),
        5 => gguf::adapter::from_bytes(owned(data), Path::new("adapter"), &micro()),
        _ => {
            fs::write(files.corenet.join("adapter.yaml"), data).expect("the folder is ours");
            corenet::read(&files.corenet, &micro())
        }
    });
    if let Ok(adapter) = adapter {
        use_adapter(adapter);
    }
});

//! Adapters of the smallest model: the first byte says whether the rest is PEFT's configuration, its weights, or CoreNet's
//! YAML, with the other file sound.

#![no_main]

use std::fs;
use std::path::PathBuf;

use libfuzzer_sys::fuzz_target;
use openelm_formats::adapter::{corenet, peft};
use openelm_fuzz::{micro, micro_adapter, owned};
use openelm_model::Adapter;

struct Files {
    /// Removes the files in the end.
    _folder: tempfile::TempDir,
    peft_config: Vec<u8>,
    peft_weights: Vec<u8>,
    corenet: PathBuf,
}

thread_local! {
    static FILES: Files = {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let (peft_folder, corenet_folder) = (folder.path().join("peft"), folder.path().join("corenet"));
        peft::write(&peft_folder, &micro_adapter()).expect("the folder is ours");
        corenet::write(&corenet_folder, &micro_adapter()).expect("the folder is ours");
        let read = |name: &str| fs::read(peft_folder.join(name)).expect("it was just written");
        Files {
            peft_config: read("adapter_config.json"),
            peft_weights: read("adapter_model.safetensors"),
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
        _ => {
            fs::write(files.corenet.join("adapter.yaml"), data).expect("the folder is ours");
            corenet::read(&files.corenet, &micro())
        }
    });
    if let Ok(adapter) = adapter {
        use_adapter(adapter);
    }
});

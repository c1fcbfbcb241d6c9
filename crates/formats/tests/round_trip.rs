//! What is written is read back exactly, in one file or in shards, in every dtype.

#![allow(clippy::unwrap_used)]

use openelm_formats::FormatError;
use openelm_formats::huggingface::{self, WriteOptions};
use openelm_model::kernels::Threads;
use openelm_model::{DType, Encoding, Tensor, TensorSpec};
use openelm_testing::golden;

#[test]
fn every_dtype_in_one_file_and_in_shards() {
    for source in ["tiny/hf", "tiny/hf_bf16", "tiny_variants/untied_noqknorm"] {
        let original = huggingface::read(&golden(source)).unwrap();
        for (dtype, shard_bytes) in [(DType::F32, 0), (DType::F32, 40_000), (DType::F16, 0), (DType::BF16, 20_000)] {
            let folder = tempfile::tempdir().unwrap();
            let tensor = |spec: &TensorSpec| original.tensor(&spec.name);
            let options = WriteOptions { dtype, shard_bytes };
            let write =
                || huggingface::write(folder.path(), &original.config, None, &tensor, options, &Threads::new(2));
            write().unwrap();
            let files = std::fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(files > 2, shard_bytes > 0, "{files} files");
            let read = huggingface::read(folder.path()).unwrap();
            assert_eq!(read.config, original.config);
            for spec in original.specs() {
                let (before, after) = (original.tensor(&spec.name).unwrap(), read.tensor(&spec.name).unwrap());
                assert_eq!(after.encoding(), Encoding::Float(dtype));
                let rounded = |x: f32| match dtype {
                    DType::F32 => x,
                    DType::F16 => half::f16::from_f32(x).to_f32(),
                    DType::BF16 => half::bf16::from_f32(x).to_f32(),
                };
                let expected: Vec<f32> = before.to_f32().iter().map(|&x| rounded(x)).collect();
                assert_eq!(after.to_f32(), expected, "{} as {dtype}", spec.name);
            }
            assert!(matches!(write(), Err(FormatError::Exists { .. })));
        }
    }
}

#[test]
fn a_value_beyond_f16_is_refused_and_named() {
    let original = huggingface::read(&golden("tiny/hf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let tensor = |spec: &TensorSpec| {
        let mut values = original.tensor(&spec.name)?.to_f32();
        if spec.name == "layers.1.attn_norm.weight" {
            values[3] = 1e5;
        }
        Ok(Tensor::from_f32(spec.shape.clone(), values).unwrap())
    };
    let options = WriteOptions { dtype: DType::F16, shard_bytes: 0 };
    let written = huggingface::write(folder.path(), &original.config, None, &tensor, options, &Threads::single());
    let refused = written.unwrap_err().to_string();
    assert!(refused.contains("layers.1.attn_norm.weight") && refused.contains("100000"), "{refused}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
}

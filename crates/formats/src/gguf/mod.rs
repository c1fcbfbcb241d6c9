//! GGUF, the format of llama.cpp: one file with metadata, tokenizer and tensors, some of them quantised in blocks.
//!
//! ```text
//! "GGUF", version, number of tensors, number of keys
//! keys and values                (parse)        openelm.*, llama.* ... -> geometry (metadata), tokenizer.ggml.* -> tokenizer
//! names, shapes, types, offsets  (parse)        blk.N.* -> CoreNet's names (names), order of queries and keys (rotation)
//! tensors, each aligned
//! ```

pub mod adapter;
mod byte_level;
mod metadata;
mod names;
mod parse;
mod reader;
mod rotation;
mod tokenizer;
mod types;
mod writer;

pub(crate) use reader::check_whole;
pub use reader::{from_bytes, read};
pub(crate) use rotation::untangled;
pub use writer::{Quantisation, write};

/// The first bytes of every file.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// Tensors lie on multiples of this unless `general.alignment` says otherwise.
const ALIGNMENT: usize = 32;

#[cfg(test)]
mod tests {
    use openelm_model::DType;
    use openelm_model::kernels::Threads;
    use openelm_model::kernels::quant::BlockFormat;

    use super::*;

    #[test]
    fn metadata_and_tensor_list_are_those_of_llama_cpp() {
        let golden = |name: &str| openelm_testing::golden("gguf").join(name);
        let source = read(&golden("a-F32.gguf")).unwrap();
        let model = bytes::Bytes::from(std::fs::read(golden("tokenizer.model")).unwrap());
        let tokenizer = crate::EmbeddedTokenizer::from(model).into();
        let folder = tempfile::tempdir().unwrap();
        for (name, quantisation) in [
            ("a-F32.gguf", Quantisation::Float(DType::F32)),
            ("a-BF16.gguf", Quantisation::Float(DType::BF16)),
            ("a-Q8_0.gguf", Quantisation::Blocks(BlockFormat::Q8_0)),
            ("a-Q4_0.gguf", Quantisation::Blocks(BlockFormat::Q4_0)),
        ] {
            let target = folder.path().join(name);
            let tensor = |spec: &openelm_model::TensorSpec| source.tensor(&spec.name);
            write(&target, "Hf_A", &source.config, &tokenizer, &tensor, quantisation, &Threads::single()).unwrap();
            let [ours, theirs] =
                [target, golden(name)].map(|path| parse::parse(&std::fs::read(path).unwrap()).unwrap());
            assert_eq!(ours.values, theirs.values, "{name}");
            let sorted = |header: &parse::Header| {
                let tensors =
                    header.tensors.iter().map(|tensor| (tensor.name.clone(), tensor.kind, tensor.shape.clone()));
                let mut tensors: Vec<_> = tensors.collect();
                tensors.sort();
                tensors
            };
            assert_eq!(sorted(&ours), sorted(&theirs), "{name}");
        }
    }
}

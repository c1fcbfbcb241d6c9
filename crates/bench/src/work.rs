//! What a step has to do at least: bytes to read and operations to carry out.

use openelm_model::kernels::rounded::Products;
use openelm_model::{CacheType, Encoding, ModelConfig, Sequence, TensorSpec, tensor_specs};

/// The least that a step asks of the machine.
///
/// Counted are the products with the weight matrices, and the bytes of all weights and of the cached keys and values, each
/// read once. Attention itself and the small operations are not counted: at long prompts they are a good part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Bytes to read.
    pub bytes: u64,
    /// Multiplications and additions with weights that are floats.
    pub f32_operations: u64,
    /// Those of which both factors are `bf16`.
    pub bf16_operations: u64,
    /// Multiplications and additions with quantised weights.
    pub int8_operations: u64,
}

impl Work {
    /// One token of each of some sequences, which are decoded together behind `cached` others each.
    pub fn of_sequences(
        config: &ModelConfig,
        encoding: impl Fn(&TensorSpec) -> Option<Encoding>,
        sequences: usize,
        cached: usize,
        cache_type: CacheType,
    ) -> Self {
        let one = Self::of_tokens(config, encoding, 1, 0, cache_type);
        let times = sequences as u64;
        Self {
            bytes: one.bytes + times * cached_bytes(config, cache_type, cached),
            f32_operations: times * one.f32_operations,
            bf16_operations: times * one.bf16_operations,
            int8_operations: times * one.int8_operations,
        }
    }

    /// `tokens` tokens behind `cached` others, stored as `cache_type`, with the logits of the last one; `encoding` says how a
    /// tensor is stored.
    pub fn of_tokens(
        config: &ModelConfig,
        encoding: impl Fn(&TensorSpec) -> Option<Encoding>,
        tokens: usize,
        cached: usize,
        cache_type: CacheType,
    ) -> Self {
        let mut work = Self { bytes: cached_bytes(config, cache_type, cached), ..Self::default() };
        for spec in tensor_specs(config) {
            let products = match (&spec.name[..], config.tied_embeddings) {
                // The logits of one token.
                ("token_embeddings.weight", true) | ("classifier.weight", _) => 1,
                // Of a table that is no output projection only the rows of the tokens are read.
                ("token_embeddings.weight", false) => continue,
                _ if spec.shape.len() == 1 => 0,
                _ => tokens,
            };
            let Some(encoding) = encoding(&spec) else { continue };
            work.bytes += encoding.bytes_of(&spec.shape).unwrap_or(0) as u64;
            let operations = match encoding {
                Encoding::Float(_) => &mut work.f32_operations,
                _ => &mut work.int8_operations,
            };
            *operations += 2 * (products * spec.len()) as u64;
        }
        work
    }

    /// The same with adapters at work on `rows` rows, whose factors have `parameters` elements, in `f32`.
    #[must_use]
    pub fn with_adapter(self, parameters: usize, rows: usize) -> Self {
        let (parameters, rows) = (parameters as u64, rows as u64);
        Self {
            bytes: self.bytes + parameters * size_of::<f32>() as u64,
            f32_operations: self.f32_operations + 2 * rows * parameters,
            ..self
        }
    }

    /// The same where floats are multiplied in `products`.
    #[must_use]
    pub fn in_products(self, products: Products) -> Self {
        match products {
            Products::F32 => self,
            Products::BF16 => {
                Self { f32_operations: 0, bf16_operations: self.bf16_operations + self.f32_operations, ..self }
            }
        }
    }
}

/// Bytes of the keys and values of `tokens` tokens alone, without the rest of the last block that a cache keeps.
fn cached_bytes(config: &ModelConfig, cache_type: CacheType, tokens: usize) -> u64 {
    const MANY: usize = 1 << 10;
    (Sequence::bytes(config, cache_type, MANY) as u64 * tokens as u64).div_ceil(MANY as u64)
}

#[cfg(test)]
mod tests {
    use openelm_model::{Geometry, Precision};

    use super::*;
    use crate::WeightFormat;

    fn encoding(name: &str, layers: usize) -> impl Fn(&TensorSpec) -> Option<Encoding> {
        let format: WeightFormat = name.parse().unwrap();
        move |spec| Some(format.encoding_of(spec, layers))
    }

    #[test]
    fn sequences_share_the_reading_of_weights() {
        let config = ModelConfig::openelm_270m();
        let work = |sequences| Work::of_sequences(&config, encoding("q4_0", 16), sequences, 100, CacheType::F16);
        let (one, eight) = (work(1), work(8));
        assert_eq!(one, Work::of_tokens(&config, encoding("q4_0", 16), 1, 100, CacheType::F16));
        assert_eq!(eight.int8_operations, 8 * one.int8_operations);
        let cached = (100 * 2 * config.kv_elements_per_token()) as u64;
        assert_eq!(eight.bytes - one.bytes, 7 * cached);
    }

    #[test]
    fn a_token_reads_all_weights_once_and_what_is_cached() {
        let config = ModelConfig::openelm_270m();
        for (name, precision) in [("f32", Precision::F32), ("mlx8", Precision::Int8), ("mlx4", Precision::Int4)] {
            let empty = Work::of_tokens(&config, encoding(name, 16), 1, 0, CacheType::F32);
            assert_eq!(empty.bytes, config.weight_bytes(precision) as u64);
            for (cache_type, size) in [(CacheType::F32, 4), (CacheType::F16, 2)] {
                let filled = Work::of_tokens(&config, encoding(name, 16), 1, 1000, cache_type);
                assert_eq!(filled.bytes - empty.bytes, (1000 * size * config.kv_elements_per_token()) as u64);
            }
        }
    }

    #[test]
    fn operations_are_two_per_weight_and_token_and_logits_are_of_one_token() {
        let config = ModelConfig::openelm_270m();
        let vectors: usize = tensor_specs(&config).iter().filter(|s| s.shape.len() == 1).map(TensorSpec::len).sum();
        let blocks = (config.parameters() - config.embedding_parameters() - vectors) as u64;
        let head = config.embedding_parameters() as u64;
        let floats = Work::of_tokens(&config, encoding("f16", 16), 512, 0, CacheType::F32);
        assert_eq!((floats.f32_operations, floats.int8_operations), (2 * (512 * blocks + head), 0));
        let quantised = Work::of_tokens(&config, encoding("q4_k", 16), 512, 0, CacheType::F32);
        assert_eq!((quantised.f32_operations, quantised.int8_operations), (0, 2 * (512 * blocks + head)));
    }

    #[test]
    fn an_embedding_of_its_own_is_not_read_through() {
        let geometry = Geometry { layers: 2, dim: 256, tied_embeddings: false, ..Geometry::default() };
        let (untied, tied) =
            (geometry.build(1000).unwrap(), Geometry { tied_embeddings: true, ..geometry }.build(1000));
        let work = |config: &ModelConfig| Work::of_tokens(config, encoding("f32", 2), 7, 3, CacheType::Int8);
        assert_eq!(work(&untied), work(&tied.unwrap()));
    }
}

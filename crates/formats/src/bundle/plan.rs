//! What the weights of a bundle become, so that they fit.

use openelm_model::kernels::quant::BlockFormat;
use openelm_model::{ByteSize, CacheType, DType, Encoding, Footprint, ModelConfig, TensorSpec};

use super::manifest::bytes_of;
use crate::gguf::Quantisation;
use crate::stored::Source;
use crate::{FormatError, StoredModel};

/// What a bundle is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// iPhone and iPad.
    Ios,
    /// Phones and tablets with Android.
    Android,
    /// Browsers.
    Web,
}

impl Purpose {
    /// Its name in commands and manifests.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Ios => "ios",
            Purpose::Android => "android",
            Purpose::Web => "web",
        }
    }

    /// Bytes that a model may take where nothing else is said: on iOS what the smallest phone of 4 GB leaves an app (iPhone 12 mini,
    /// github.com/allenai/OLMoE.swift/pull/38), and on Android as much; half of what a browser can address at all.
    pub fn memory(self) -> u64 {
        match self {
            Purpose::Ios | Purpose::Android => 2_100_000_000,
            Purpose::Web => 2 << 30,
        }
    }
}

/// How a bundle is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleOptions {
    /// What for.
    pub purpose: Purpose,
    /// What matrices become.
    pub weights: BundleWeights,
}

/// What the matrices of a bundle become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleWeights {
    /// The blocks that they are in.
    Kept,
    /// Other ones.
    Quantised(Quantisation),
}

/// From the nearest to the original on.
const CANDIDATES: [BlockFormat; 4] = [BlockFormat::Q8_0, BlockFormat::Q6_K, BlockFormat::Q5_K, BlockFormat::Q4_K];
/// The tokens that have to fit beside the weights, where the model was trained for so many.
const TOKENS: usize = 2048;

impl BundleWeights {
    /// The most bits with which `model` and a session of 2048 tokens take no more than `memory` bytes; blocks that it is in already
    /// are kept if they fit, for more bits would not bring back what is lost.
    ///
    /// # Errors
    /// If it does not fit with the fewest.
    pub fn that_fit(model: &StoredModel, memory: u64) -> Result<Self, FormatError> {
        let config = &model.config;
        let stored = model.size() as u64;
        let is_quantised = model.main_encoding().dtype().is_none();
        let sized = |weights: Self| (weights, weights.bytes(model));
        let others = CANDIDATES.map(|format| sized(Self::Quantised(Quantisation::Blocks(format))));
        let kept = model.is_in_blocks().then(|| sized(Self::Kept));
        // From few bits more are not made, but for the little that blocks may take above what they were in.
        let most = if is_quantised { stored + stored / 8 } else { u64::MAX };
        let mut sensible: Vec<_> =
            kept.into_iter().chain(others.into_iter().filter(|(_, bytes)| *bytes <= most)).collect();
        if sensible.is_empty() {
            sensible.extend(others.last());
        }
        let needed = |bytes: u64| footprint(config, bytes).total();
        if let Some((weights, _)) = sensible.iter().find(|(_, bytes)| needed(*bytes) <= memory) {
            return Ok(*weights);
        }
        let least = sensible.iter().map(|(_, bytes)| footprint(config, *bytes)).min_by_key(Footprint::total);
        let (total, tokens) = least.map_or((stored, 0), |least| (least.total(), least.tokens));
        let reason = format!(
            "{} takes {} with {tokens} tokens even in the fewest bits, more than {}; give it more with --memory, or take a smaller model",
            model.path.display(),
            ByteSize(total),
            ByteSize(memory)
        );
        Err(FormatError::Inexpressible { reason })
    }

    /// Bytes of all tensors in a bundle.
    pub fn bytes(self, model: &StoredModel) -> u64 {
        let specs = model.specs();
        specs.iter().filter_map(|spec| bytes_of(self.encoding(model, spec), &spec.shape)).sum()
    }

    /// What `spec` becomes. Vectors are kept as they are used.
    pub(super) fn encoding(self, model: &StoredModel, spec: &TensorSpec) -> Encoding {
        if spec.shape.len() == 1 {
            return Encoding::Float(DType::F32);
        }
        match self {
            Self::Kept => model.kept_encoding(spec),
            Self::Quantised(quantisation) => quantisation.of(spec, model.config.layers.len()),
        }
    }
}

/// What a session of 2048 tokens, or of as many as the model was trained for, takes.
fn footprint(config: &ModelConfig, weights: u64) -> Footprint {
    let weights = usize::try_from(weights).unwrap_or(usize::MAX);
    Footprint::new(config, weights, TOKENS.min(config.context_length), CacheType::default())
}

impl StoredModel {
    /// Whether all matrices are in ggml's blocks, or in floats where most are.
    fn is_in_blocks(&self) -> bool {
        let known = |encoding: Encoding| matches!(encoding, Encoding::Blocks(_) | Encoding::Float(_));
        matches!(self.main_encoding(), Encoding::Blocks(_)) && self.encodings().into_iter().all(|(e, ..)| known(e))
    }

    /// The encoding of a matrix that stays as it is: of parts that differ, one that loses next to nothing.
    fn kept_encoding(&self, spec: &TensorSpec) -> Encoding {
        let parts = match self.sources.get(&spec.name) {
            Some(Source::Stacked(parts) | Source::Interleaved(parts, _)) => parts.parts(),
            _ => &[],
        };
        let first = self.encoding(&spec.name).unwrap_or(Encoding::Float(DType::F32));
        let alike = parts.iter().all(|part| part.encoding() == first);
        if alike { first } else { Quantisation::Blocks(BlockFormat::Q8_0).of(spec, self.config.layers.len()) }
    }
}

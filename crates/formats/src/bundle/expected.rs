//! What to expect of a bundle on a device.

use openelm_model::{CacheType, Footprint, ModelConfig, Sequence};
use serde_json::{Value, json};

use super::{DEVICES, Device, Known, Purpose};

/// Tokens in the session at which a rate is reckoned.
const RATE_TOKENS: usize = 512;

/// What a bundle takes, and how fast it can be.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// Bytes of the weights.
    pub weights: u64,
    /// Memory with some lengths of the session.
    pub memory: Vec<MemoryAt>,
    /// Rates on devices that it was made for.
    pub rates: Vec<RateOn>,
}

/// What a session of some length takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryAt {
    /// Tokens of the session.
    pub tokens: u64,
    /// Bytes that are the process's own: keys and values in f32, and buffers.
    pub own: u64,
    /// The same, and the weights, which are pages of a file that the system takes back when it needs them.
    pub total: u64,
}

/// How fast a device decodes at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateOn {
    /// The device.
    pub device: &'static Device,
    /// Tokens a second, 512 tokens into a text: its bandwidth over the bytes that a token needs.
    pub tokens_per_second: f64,
}

impl Expected {
    /// What weights of `weights` bytes of that geometry are to be expected to do.
    pub fn new(config: &ModelConfig, weights: u64, purpose: Purpose) -> Self {
        let bytes = usize::try_from(weights).unwrap_or(usize::MAX);
        let memory = |tokens| {
            let footprint = Footprint::new(config, bytes, tokens, CacheType::default());
            MemoryAt { tokens: footprint.tokens, own: footprint.cache + footprint.buffers, total: footprint.total() }
        };
        let mut lengths = [512, 2048].map(|tokens: usize| tokens.min(config.context_length)).to_vec();
        lengths.dedup();
        // Of a table of its own the embedding reads one row.
        let table = if config.tied_embeddings { 0.0 } else { weights as f64 * share_of_table(config) };
        let cache = Sequence::bytes(config, CacheType::default(), RATE_TOKENS.min(config.context_length));
        let per_token = weights as f64 - table + cache as f64;
        let devices = DEVICES.iter().filter(|device| device.purpose == purpose);
        let rate = |device: &'static Device| RateOn { device, tokens_per_second: device.bandwidth / per_token };
        Self { weights, memory: lengths.into_iter().map(memory).collect(), rates: devices.map(rate).collect() }
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        let memory = self.memory.iter().map(|at| json!({ "tokens": at.tokens, "own": at.own, "total": at.total }));
        let rates = self.rates.iter().map(|rate| {
            let Device { name, bandwidth, known, source, .. } = *rate.device;
            json!({
                "device": name,
                "tokens_per_second": rate.tokens_per_second.round(),
                "bytes_per_second": bandwidth,
                "known": if known == Known::Measured { "measured" } else { "limit" },
                "source": source,
            })
        });
        json!({
            "weights": self.weights,
            "memory": memory.collect::<Vec<_>>(),
            "rates": rates.collect::<Vec<_>>(),
        })
    }
}

/// The embedding table's share of all parameters.
fn share_of_table(config: &ModelConfig) -> f64 {
    (config.vocab_size * config.model_dim) as f64 / config.parameters() as f64
}

//! What a model needs in memory, reckoned before it is loaded, and what the machine has left.
//!
//! ```
//! use openelm_model::{CacheType, Footprint, ModelConfig, Precision};
//!
//! let config = ModelConfig::openelm_3b();
//! let footprint = Footprint::new(&config, config.weight_bytes(Precision::F32), 2048, CacheType::F32);
//! let refused = footprint.check(8 << 30).unwrap_err();
//! assert!(refused.to_string().contains("8.0 GiB are available"));
//! ```

use openelm_kernels::Threads;
use openelm_kernels::attention::CacheType;

use crate::config::{ModelConfig, NormPlacement};
use crate::engine::{LOGITS_ROWS, pass_rows};
use crate::family::Family;
use crate::sequence::Sequence;

/// What it takes to run one sequence, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// Tokens of the sequence.
    pub tokens: u64,
    /// The weights, once: pages of a mapped file count as they come into memory.
    pub weights: u64,
    /// Keys and values of all tokens.
    pub cache: u64,
    /// Activations of a chunk of the prompt, logits, rotations and what the products pack.
    pub buffers: u64,
}

/// A model and a context that the memory available does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} of weights, {} of cache for {} tokens and {} of buffers take {}, but only {} are available; \
     take fewer tokens or weights of fewer bits, or free some memory",
    ByteSize(.needed.weights), ByteSize(.needed.cache), .needed.tokens, ByteSize(.needed.buffers), ByteSize(.needed.total()),
    ByteSize(*.available)
)]
pub struct MemoryError {
    /// What is needed.
    pub needed: Footprint,
    /// Bytes available.
    pub available: u64,
}

impl Footprint {
    /// The footprint of a model whose weights take `weights` bytes, with a sequence of `tokens` tokens whose keys and values
    /// are stored as `cache_type`.
    pub fn new(config: &ModelConfig, weights: usize, tokens: usize, cache_type: CacheType) -> Self {
        let wide = |x: usize| x as u64;
        let size = |count: u64, bytes: usize| count.saturating_mul(wide(bytes));
        let activations = config.layers.iter().map(|layer| {
            let (query_dim, kv_dim) = (layer.query_heads * config.head_dim, layer.kv_heads * config.head_dim);
            config.qkv_dim(layer) + 2 * query_dim + kv_dim + config.ffn_hidden_dim(layer) + layer.ffn_dim
        });
        // Besides: the stream before and after a block and after attention, and its norm.
        let row = activations.max().unwrap_or(0) + 4 * config.model_dim + extras(config);
        let rows = tokens.min(pass_rows(config, weights));
        let floats = wide(rows * row + rows.min(LOGITS_ROWS) * config.vocab_size);
        let rotations = size(wide(tokens), config.head_dim);
        Self {
            tokens: wide(tokens),
            weights: wide(weights),
            cache: wide(Sequence::bytes(config, cache_type, tokens)),
            buffers: size(floats.saturating_add(rotations), size_of::<f32>()).saturating_add(workspace()),
        }
    }

    /// Bytes in all.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache).saturating_add(self.buffers)
    }

    /// Compares with the bytes that are available, for example [`available_memory`].
    ///
    /// # Errors
    /// If more is needed; the message has the numbers.
    pub fn check(&self, available: u64) -> Result<(), MemoryError> {
        if self.total() > available { Err(MemoryError { needed: *self, available }) } else { Ok(()) }
    }
}

/// Floats of a row beside those that OpenELM's layers need: what is normalised behind them, and what one part of a projection
/// gives where files store its parts apart.
fn extras(config: &ModelConfig) -> usize {
    let behind = match config.norms.placement {
        NormPlacement::Before => 0,
        NormPlacement::Behind => 2 * config.model_dim,
    };
    let parts = config.layers.iter().map(|layer| layer.ffn_dim.max(config.heads(layer).query_dim()));
    behind + if config.family == Family::OpenElm { 0 } else { parts.max().unwrap_or(0) }
}

/// Bytes that this process can still have: what the system can give without swapping, and no more than the control group it
/// runs in allows. `None` where the system does not say (a browser; iOS, where an app asks `os_proc_available_memory`).
pub fn available_memory() -> Option<u64> {
    system::available()
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "windows"))]
mod system {
    use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, System};

    pub(super) fn available() -> Option<u64> {
        let mut system = System::new().ok()?;
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let free = Some(system.available_memory()).filter(|&bytes| bytes > 0)?;
        Some(group_limit(&mut system).map_or(free, |limit| free.min(limit)))
    }

    /// What the control group of this process leaves. Pages of files count towards the group but are given back when they are
    /// needed, so only what cannot be given back is taken off.
    fn group_limit(system: &mut System) -> Option<u64> {
        let id = sysinfo::get_current_pid().ok()?;
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), true, ProcessRefreshKind::nothing());
        let limits = system.process(id)?.cgroup_limits().or_else(|| system.cgroup_limits())?;
        Some(limits.total_memory.saturating_sub(limits.rss))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "windows")))]
mod system {
    pub(super) fn available() -> Option<u64> {
        None
    }
}

/// Bytes that the operations keep, on as many threads as the machine runs.
fn workspace() -> u64 {
    Threads::workspace(std::thread::available_parallelism().map_or(1, usize::from)) as u64
}

/// Bytes as a person reads them: `1.5 GiB`.
pub struct ByteSize(pub u64);

impl std::fmt::Display for ByteSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mebibytes = self.0 as f64 / (1u64 << 20) as f64;
        if mebibytes >= 1024.0 { write!(f, "{:.1} GiB", mebibytes / 1024.0) } else { write!(f, "{mebibytes:.1} MiB") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Precision;

    #[test]
    fn weights_cache_and_buffers_are_counted() {
        let config = ModelConfig::openelm_270m();
        let weights = config.weight_bytes(Precision::Int4);
        let footprint = Footprint::new(&config, weights, 2048, CacheType::F32);
        assert_eq!(footprint.weights, weights as u64);
        let numbers = 2048 * config.kv_elements_per_token() as u64;
        let cache = |cache_type| Footprint::new(&config, weights, 2048, cache_type).cache;
        assert_eq!(cache(CacheType::F32), 4 * numbers);
        assert_eq!(cache(CacheType::F16), 2 * numbers);
        // A scale for the 64 numbers of each key and each value.
        assert_eq!(cache(CacheType::Int8), numbers + 4 * numbers / 64);
        // The last layer: 20 query and 5 key/value heads of 64, a network of 5120; 256 rows, 64 rows of logits.
        let row = 1920 + 2 * 1280 + 320 + 3 * 5120 + 4 * 1280;
        assert_eq!(footprint.buffers, 4 * (256 * row + 64 * 32_000 + 2048 * 64) + workspace());
        assert_eq!(footprint.total(), footprint.weights + footprint.cache + footprint.buffers);
    }

    #[test]
    fn too_little_memory_is_refused_with_numbers() {
        let config = ModelConfig::openelm_270m();
        let footprint = Footprint::new(&config, config.weight_bytes(Precision::F32), 512, CacheType::F32);
        assert_eq!(footprint.check(footprint.total()), Ok(()));
        let error = footprint.check(footprint.total() - 1).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("1.0 GiB of weights") && message.contains("for 512 tokens"), "{message}");
        assert!(footprint.check(0).unwrap_err().to_string().contains("only 0.0 MiB are available"));
        assert!(Footprint::new(&config, usize::MAX, usize::MAX, CacheType::Int8).check(u64::MAX - 1).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_machine_says_what_is_available() {
        let available = available_memory().unwrap();
        let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
        let total: u64 = total.unwrap().parse().unwrap();
        assert!(available > 0 && available <= 1024 * total, "{available} of {total} kB");
    }
}

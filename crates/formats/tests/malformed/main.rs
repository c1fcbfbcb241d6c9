//! Files that are broken in every way we could think of, and those that fuzzing found. Each is refused in one sentence that
//! names the file; none makes a reader panic, run code, or allocate more than a sound file of its size would.
//!
//! The files are made here from sound ones.

#![allow(clippy::unwrap_used)]

mod adapter;
mod gguf;
mod huggingface;
mod pickle;
mod pytorch;
mod safetensors;
mod yaml;

use openelm_formats::FormatError;
use openelm_model::{Geometry, ModelConfig, Multipliers, Tensor, TensorSpec};

/// Far more than any file here needs, far less than any length that one of them lies about.
const MAX_BYTES: u64 = 16 << 20;

/// Asserts that `read` refuses, in one line with all of `parts` (the file among them), and without a large allocation.
#[track_caller]
fn assert_refused<T>(what: &str, parts: &[&str], read: impl FnOnce() -> Result<T, FormatError>) {
    let message = match measured(what, MAX_BYTES, read) {
        Ok(_) => panic!("{what}: it was read"),
        Err(e) => e.to_string(),
    };
    println!("{what}: {message}");
    for part in parts {
        assert!(message.contains(part), "{what}: {part:?} is not in: {message}");
    }
    assert!(!message.contains('\n'), "{what}: more than one line: {message}");
}

/// What `read` gives, after asserting that it never had more than `limit` bytes at a time.
#[track_caller]
fn measured<T>(what: &str, limit: u64, read: impl FnOnce() -> T) -> T {
    let mut result = None;
    let used = allocation_counter::measure(|| result = Some(read()));
    assert!(used.bytes_max < limit, "{what}: {} bytes were allocated", used.bytes_max);
    result.unwrap()
}

/// The smallest model with all kinds of tensors.
fn micro() -> ModelConfig {
    let geometry = Geometry {
        layers: 1,
        dim: 8,
        head_dim: 4,
        gqa_groups: 1,
        ffn_multipliers: Multipliers::Uniform(1.0),
        qkv_multipliers: Multipliers::Uniform(1.0),
        ffn_divisor: 8,
        context_length: 16,
        ..Geometry::default()
    };
    geometry.build(16).unwrap()
}

/// Some tensor of this shape.
fn some(shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|i: usize| (i % 13) as f32 / 16.0 - 0.375);
    Tensor::from_f32(shape.to_vec(), values.collect()).unwrap()
}

fn some_of(spec: &TensorSpec) -> Result<Tensor, FormatError> {
    Ok(some(&spec.shape))
}

/// Where `part` begins in `bytes`.
fn find(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap_or_else(|| panic!("{part:?} is not there"))
}

/// Puts `new` in the place of as many bytes at `at`.
fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}

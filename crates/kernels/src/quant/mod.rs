//! Quantised weights: how blocks and groups are laid out, widening them, and making them.
//!
//! Two families. GGUF's *blocks* ([`BlockFormat`]) hold their scales beside the numbers; the formats are ggml's. MLX's
//! *affine groups* ([`Affine`]) keep numbers, scales and biases in three arrays.

mod affine;
mod block_format;
mod k_blocks;
mod small_blocks;

pub use affine::{Affine, AffineFormat, Scales, quantise_affine};
pub use block_format::{BlockFormat, Blocks};

use half::f16;

/// The half-precision number at `bytes[0..2]`, widened.
fn half_at(bytes: &[u8]) -> f32 {
    f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Writes `value`, rounded to half precision, to `bytes[0..2]`.
fn put_half(bytes: &mut [u8], value: f32) {
    bytes[..2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

//! Arithmetic of OpenELM on slices of `f32`.
//!
//! One file per operation, its `forward` beside its `backward`. The functions know nothing of models: they take slices,
//! infer the number of rows from their lengths, and split the work over [`Threads`]. Shapes are written `[rows, columns]`,
//! row-major, the last index contiguous.
//!
//! ```text
//! embedding -> rms_norm -> linear -> qk_norm_rope -> attention -> linear -> rms_norm -> linear -> swiglu -> linear
//!                                                                                    ... -> cross_entropy -> adamw
//! ```
//!
//! Loops are written over fixed groups of lanes and compiled once per instruction set (see `simd`); the sum of a row is
//! always taken in the same order, so results do not depend on the number of threads.
//!
//! # Panics
//! Lengths that do not fit together are errors of the calling code and panic. Data from outside is checked before it
//! comes here.

pub mod adamw;
pub mod attention;
pub mod bias;
mod cache_line;
#[cfg(test)]
mod check;
pub mod cross_entropy;
pub mod dropout;
pub mod embedding;
pub mod fused;
pub mod gains;
mod gemm;
pub mod gradient_norm;
mod heads;
mod inner;
mod input;
mod integer;
mod lanes;
pub mod layer_norm;
/// Measuring takes a clock, which WebAssembly has none of.
#[cfg(not(target_family = "wasm"))]
pub mod limits;
pub mod linear;
mod mapped;
mod matrix;
mod norm;
pub mod precision;
pub mod qk_norm_rope;
pub mod quant;
pub mod residual;
pub mod rms_norm;
pub mod rope;
pub mod rounded;
pub mod row_norms;
pub(crate) mod simd;
pub mod swiglu;
mod threads;
mod zeroed;

pub use heads::Heads;
pub use input::Input;
pub use integer::Packed;
pub use mapped::MappedFile;
pub use matrix::{Matrix, RowParts};
pub use norm::Norm;
pub use threads::{Threads, Worker};
pub use zeroed::OutOfMemory;

//! The weight formats by the names that users give them.

use std::fmt;
use std::str::FromStr;

use openelm_formats::gguf::Quantisation;
use openelm_model::kernels::quant::{AffineFormat, BlockFormat};
use openelm_model::{DType, Encoding, TensorSpec};

/// The values of a group where the name does not say it.
const GROUP: usize = 64;

/// How a model's matrices are stored: `f32`, `f16`, `bf16`, ggml's blocks as `q4_0` or `q4_k`, MLX's affine groups as `mlx4`
/// (64 values each) or `mlx4/32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// As GGUF has it.
    Gguf(Quantisation),
    /// As MLX has it, the embedding table too, with scales and biases in half precision.
    Mlx(AffineFormat),
}

const FLOATS: [(&str, DType); 3] = [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16)];

impl WeightFormat {
    /// The format of a matrix that is stored in `encoding`.
    pub fn of(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Float(dtype) => WeightFormat::Gguf(Quantisation::Float(dtype)),
            Encoding::Blocks(format) => WeightFormat::Gguf(Quantisation::Blocks(format)),
            Encoding::Affine(format, _) => WeightFormat::Mlx(format),
        }
    }

    /// How one tensor of a model with `layers` layers is stored.
    pub fn encoding_of(self, spec: &TensorSpec, layers: usize) -> Encoding {
        match self {
            WeightFormat::Gguf(quantisation) => quantisation.of(spec, layers),
            WeightFormat::Mlx(_) if spec.shape.len() == 1 => Encoding::Float(DType::F16),
            WeightFormat::Mlx(format) => Encoding::Affine(format, DType::F16),
        }
    }

    /// The format of GGUF that is next of kin: itself, or blocks of as many bits. `None` where ggml has none.
    pub fn in_gguf(self) -> Option<Quantisation> {
        match self {
            WeightFormat::Gguf(quantisation) => Some(quantisation),
            WeightFormat::Mlx(format) => Some(Quantisation::Blocks(match format.bits {
                4 => BlockFormat::Q4_0,
                5 => BlockFormat::Q5_0,
                6 => BlockFormat::Q6_K,
                8 => BlockFormat::Q8_0,
                _ => return None,
            })),
        }
    }
}

impl FromStr for WeightFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let plain = name.to_lowercase();
        if let Some((_, dtype)) = FLOATS.iter().find(|(known, _)| *known == plain) {
            return Ok(WeightFormat::Gguf(Quantisation::Float(*dtype)));
        }
        if let Some(format) = BlockFormat::ALL.into_iter().find(|format| format.to_string().to_lowercase() == plain) {
            return Ok(WeightFormat::Gguf(Quantisation::Blocks(format)));
        }
        let affine = plain.strip_prefix("mlx").and_then(|rest| {
            let (bits, group) = rest.split_once('/').map_or((rest, Ok(GROUP)), |(bits, group)| (bits, group.parse()));
            AffineFormat::new(bits.parse().ok()?, group.ok()?)
        });
        affine.map(WeightFormat::Mlx).ok_or_else(|| {
            format!(
                "no weight format is called {name}; known are f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, \
                 q6_k and mlx2 to mlx8"
            )
        })
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WeightFormat::Gguf(Quantisation::Float(dtype)) => {
                let name = FLOATS.iter().find(|(_, known)| known == dtype).map_or("", |(name, _)| name);
                f.write_str(name)
            }
            WeightFormat::Gguf(Quantisation::Blocks(format)) => f.write_str(&format.to_string().to_lowercase()),
            WeightFormat::Mlx(AffineFormat { bits, group: GROUP }) => write!(f, "mlx{bits}"),
            WeightFormat::Mlx(AffineFormat { bits, group }) => write!(f, "mlx{bits}/{group}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let names =
            "f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q4_k q5_k q6_k mlx2 mlx3 mlx4 mlx5 mlx6 mlx8 mlx4/32 mlx8/128";
        for name in names.split_whitespace() {
            assert_eq!(name.parse::<WeightFormat>().unwrap().to_string(), name);
        }
        assert_eq!("Q4_K".parse(), "q4_k".parse::<WeightFormat>());
        for name in ["", "q4", "mlx", "mlx7", "mlx4/48", "mlx4/", "float32"] {
            assert!(name.parse::<WeightFormat>().unwrap_err().contains("known are"), "{name}");
        }
    }

    #[test]
    fn the_peer_gets_blocks_of_as_many_bits() {
        let in_gguf = |name: &str| name.parse::<WeightFormat>().unwrap().in_gguf();
        assert_eq!(in_gguf("mlx4"), Some(Quantisation::Blocks(BlockFormat::Q4_0)));
        assert_eq!(in_gguf("mlx8/32"), Some(Quantisation::Blocks(BlockFormat::Q8_0)));
        assert_eq!(in_gguf("bf16"), Some(Quantisation::Float(DType::BF16)));
        assert_eq!(in_gguf("mlx3"), None);
    }
}

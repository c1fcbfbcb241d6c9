//! Random weights of any size in any format, made about as fast as memory takes them.

use std::collections::HashMap;

use openelm_formats::{FormatError, encode};
use openelm_model::kernels::Threads;
use openelm_model::{Encoding, ModelConfig, Tensor, TensorSpec, initial_deviation, initial_value, tensor_specs};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::WeightFormat;

/// Values that are drawn and quantised; larger matrices repeat them.
const POOL: usize = 1 << 18;
/// Rows in a task.
const TASK_ROWS: usize = 64;

/// A model of random weights, whose tensors are made when they are asked for; always the same ones.
///
/// Weights are drawn as CoreNet draws them before training, so that activations stay in range. Quantising is slow, so only a
/// pool of blocks is quantised for each encoding and deviation; a row of a matrix is a stretch of the pool, somewhere in it.
pub struct RandomModel {
    config: ModelConfig,
    format: WeightFormat,
    pools: HashMap<(Encoding, u32), Tensor>,
    threads: Threads,
}

impl RandomModel {
    /// Prepares weights of `config` in `format`.
    ///
    /// # Errors
    /// If the format cannot hold the rows of a matrix.
    pub fn new(config: &ModelConfig, format: WeightFormat, threads: &Threads) -> Result<Self, FormatError> {
        let mut pools = HashMap::new();
        for spec in tensor_specs(config) {
            let encoding = format.encoding_of(&spec, config.layers.len());
            check(encoding, &spec)?;
            if let Some(deviation) = initial_deviation(config, &spec)
                && !pools.contains_key(&(encoding, deviation.to_bits()))
            {
                let pool = pool(encoding, deviation, &spec, threads)?;
                pools.insert((encoding, deviation.to_bits()), pool);
            }
        }
        Ok(Self { config: config.clone(), format, pools, threads: threads.clone() })
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Makes a tensor of the model: norms are 1, biases 0.
    ///
    /// # Errors
    /// If it is none of the model's.
    pub fn tensor(&self, spec: &TensorSpec) -> Result<Tensor, FormatError> {
        let encoding = self.format.encoding_of(spec, self.config.layers.len());
        let pool = initial_deviation(&self.config, spec).map(|deviation| (encoding, deviation.to_bits()));
        let Some(key) = pool else {
            let vector = Tensor::from_f32(spec.shape.clone(), vec![initial_value(spec); spec.len()])?;
            return encode(&vector, encoding, &spec.name, &self.threads);
        };
        let unknown = || FormatError::Inexpressible { reason: format!("the model has no tensor {}", spec.name) };
        let pool = self.pools.get(&key).ok_or_else(unknown)?;
        let (rows, columns) = (spec.shape[0], spec.shape[1]);
        let salt = spec.name.bytes().fold(0, |salt, byte| mix(salt ^ u64::from(byte)));
        let stretch = Stretch { units: pool.shape()[0], of_row: columns / pool.shape()[1], salt };
        let copy = |part: &[u8]| stretch.copy(part, rows, &self.threads).into();
        let shape = spec.shape.clone();
        let bytes = copy(pool.bytes());
        Ok(match (encoding, pool.scales_and_biases()) {
            (Encoding::Float(dtype), _) => Tensor::new(dtype, shape, bytes)?,
            (Encoding::Blocks(format), _) => Tensor::blocks(format, shape, bytes)?,
            (Encoding::Affine(format, dtype), Some((scales, biases))) => {
                Tensor::affine(format, dtype, shape, bytes, copy(scales), copy(biases))?
            }
            (Encoding::Affine(..), None) => return Err(unknown()),
        })
    }
}

fn check(encoding: Encoding, spec: &TensorSpec) -> Result<(), FormatError> {
    match encoding.bytes_of(&spec.shape) {
        Some(_) => Ok(()),
        None => {
            let columns = spec.shape.last().copied().unwrap_or(0);
            let reason = format!("tensor {} has {columns} columns, which {encoding} cannot divide evenly", spec.name);
            Err(FormatError::Inexpressible { reason })
        }
    }
}

/// Values of the smallest stretch that stands alone: a block or a group.
fn unit(encoding: Encoding) -> usize {
    match encoding {
        Encoding::Float(_) => 1,
        Encoding::Blocks(format) => format.block_len(),
        Encoding::Affine(format, _) => format.group,
    }
}

/// Random values in `encoding`, `[units, values of a unit]`, enough for a row of `spec` and for many others.
fn pool(encoding: Encoding, deviation: f32, spec: &TensorSpec, threads: &Threads) -> Result<Tensor, FormatError> {
    let unit = unit(encoding);
    let length = POOL.max(2 * spec.shape.last().copied().unwrap_or(0)).next_multiple_of(unit);
    let mut random = ChaCha8Rng::seed_from_u64(u64::from(deviation.to_bits()));
    let values = (0..length).map(|_| deviation * Distribution::<f32>::sample(&StandardNormal, &mut random)).collect();
    encode(&Tensor::from_f32(vec![length / unit, unit], values)?, encoding, &spec.name, threads)
}

/// Which units of a pool make up the rows of a matrix.
struct Stretch {
    /// Units of the pool.
    units: usize,
    /// Units of a row.
    of_row: usize,
    /// Makes tensors differ.
    salt: u64,
}

impl Stretch {
    /// The first unit of a row.
    fn start(&self, row: usize) -> usize {
        (mix(self.salt ^ row as u64) % (self.units - self.of_row + 1) as u64) as usize
    }

    /// The bytes of `rows` rows, from a pool's bytes.
    fn copy(&self, pool: &[u8], rows: usize, threads: &Threads) -> Vec<u8> {
        let unit = pool.len() / self.units;
        let row_bytes = self.of_row * unit;
        let mut bytes = vec![0; rows * row_bytes];
        threads.for_each_chunk(&mut bytes, TASK_ROWS * row_bytes, |task, rows| {
            for (row, target) in rows.chunks_exact_mut(row_bytes).enumerate() {
                target.copy_from_slice(&pool[self.start(task * TASK_ROWS + row) * unit..][..row_bytes]);
            }
        });
        bytes
    }
}

/// Spreads the bits of a number (Steele et al., "Fast splittable pseudorandom number generators", 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use openelm_model::{Engine, Geometry, Model, Session};

    use super::*;

    fn small() -> ModelConfig {
        Geometry { layers: 4, dim: 256, head_dim: 32, ..Geometry::default() }.build(300).unwrap()
    }

    fn tensors(format: &str, threads: usize) -> Vec<(TensorSpec, Tensor)> {
        let random = RandomModel::new(&small(), format.parse().unwrap(), &Threads::new(threads)).unwrap();
        tensor_specs(&small()).into_iter().map(|spec| (spec.clone(), random.tensor(&spec).unwrap())).collect()
    }

    #[test]
    fn weights_are_spread_as_corenet_spreads_them_in_every_format() {
        for format in ["f32", "bf16", "q4_0", "q5_1", "q8_0", "q4_k", "q6_k", "mlx4", "mlx8/32"] {
            for (spec, tensor) in tensors(format, 2) {
                let values = tensor.to_f32();
                let square = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / values.len() as f64;
                let expected = initial_deviation(&small(), &spec).map_or(1.0, f64::from);
                assert!((square.sqrt() / expected - 1.0).abs() < 0.05, "{format}: {}", spec.name);
            }
        }
    }

    #[test]
    fn logits_are_of_the_size_of_the_activations() {
        // Normalised activations and rows of norm about 1 give logits of about 1.
        let tensors = tensors("q4_k", 2).into_iter().map(|(spec, tensor)| (spec.name, tensor));
        let model = Model::new(small(), tensors.collect()).unwrap();
        let mut session = Session::new(Engine::new(model.clone(), Threads::new(2)), 16);
        let logits = session.append(&[1, 2, 3, 4, 5]).unwrap();
        let square = logits.iter().map(|x| x * x).sum::<f32>() / logits.len() as f32;
        assert!((0.3..3.0).contains(&square), "{square}");
    }

    #[test]
    fn rows_vary_and_are_the_same_every_time() {
        let (mut rows, mut expected) = (HashSet::new(), 0);
        for ((spec, a), (_, b)) in tensors("bf16", 1).into_iter().zip(tensors("bf16", 3)) {
            assert_eq!(a.bytes(), b.bytes(), "{}", spec.name);
            if let &[count, _] = a.shape() {
                rows.extend(a.bytes().chunks(a.bytes().len() / count).take(64).map(<[u8]>::to_vec));
                expected += count.min(64);
            }
        }
        assert!(rows.len() > expected * 9 / 10, "{} of {expected} rows differ", rows.len());
    }

    #[test]
    fn rows_that_do_not_fill_groups_are_refused() {
        let config = Geometry { layers: 1, dim: 96, head_dim: 32, ..Geometry::default() }.build(300).unwrap();
        let refused = RandomModel::new(&config, "mlx4".parse().unwrap(), &Threads::single()).err().unwrap();
        assert!(refused.to_string().contains("96 columns"), "{refused}");
    }
}

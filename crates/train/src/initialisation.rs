//! The weights that training starts from.

use openelm_model::{ModelConfig, initial_deviation, initial_value};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::parameters::Parameters;

/// CoreNet's initialisation: matrices are drawn from a normal distribution with [`initial_deviation`]; norms are 1, biases 0.
///
/// Every tensor has a random stream of its own, so that one does not depend on the sizes of the others.
pub fn initialise(config: &ModelConfig, seed: u64) -> Parameters {
    let mut parameters = Parameters::zeros(config);
    for (index, (spec, values)) in parameters.tensors_mut().enumerate() {
        let Some(deviation) = initial_deviation(config, spec) else {
            values.fill(initial_value(spec));
            continue;
        };
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(index as u64);
        // A deviation of a positive number of inputs is finite.
        let Ok(normal) = Normal::new(0.0, deviation) else { continue };
        values.iter_mut().for_each(|value| *value = normal.sample(&mut random));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use openelm_model::Geometry;

    use super::*;

    fn deviation(values: &[f32]) -> f64 {
        (values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    }

    #[test]
    fn deviations_are_those_of_corenet() {
        // `D^-1/2 (2L)^-1/2` of the 270M model is 0.0049411.
        let mut config = ModelConfig::openelm_270m();
        assert!(((1280.0f64 * 32.0).sqrt().recip() - 0.0049411).abs() < 1e-7);
        config.vocab_size = 100;
        let parameters = initialise(&config, 1);
        for (spec, values) in parameters.tensors() {
            let expected = match &spec.shape[..] {
                [_] => 1.0,
                _ if spec.name.ends_with("out_proj.weight") || spec.name.ends_with("proj_2.weight") => 0.0049411,
                [_, inputs] => (*inputs as f64).sqrt().recip(),
                _ => panic!("unexpected shape of {}", spec.name),
            };
            let found = deviation(values);
            assert!((found / expected - 1.0).abs() < 0.02, "{}: {found} instead of {expected}", spec.name);
        }
    }

    #[test]
    fn the_seed_decides_every_weight() {
        let config = Geometry { layers: 1, dim: 64, head_dim: 16, ..Geometry::default() }.build(50).unwrap();
        let draw = |seed| initialise(&config, seed).values()[..50].to_vec();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}

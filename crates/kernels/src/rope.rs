//! Rotary position embedding (Su et al. 2021): the angles. Halves are rotated against each other (the layout of GPT-NeoX,
//! MLX's `traditional=False`): element `j` pairs with `j + head_dim / 2`.

/// How the frequencies of a model that was trained on short texts are changed for longer ones.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum RopeScaling {
    /// They are not.
    #[default]
    None,
    /// All are divided by a factor: positions are squeezed (Chen et al. 2023).
    Linear {
        /// What frequencies are divided by.
        factor: f64,
    },
    /// Those that turn seldom within the original context are divided by the factor, those that turn often stay, and between the
    /// two the divisor changes gradually (Grattafiori et al., "The Llama 3 herd of models", 2024; transformers' `llama3`).
    Llama3 {
        /// What low frequencies are divided by.
        factor: f64,
        /// Turns within the original context below which a frequency is low.
        low_turns: f64,
        /// Turns above which it is high.
        high_turns: f64,
        /// The context before it was made longer, in tokens.
        original_length: usize,
    },
}

impl RopeScaling {
    /// What the frequency of `frequency` radians per token is divided by.
    pub fn divisor(self, frequency: f64) -> f64 {
        match self {
            RopeScaling::None => 1.0,
            RopeScaling::Linear { factor } => factor,
            RopeScaling::Llama3 { factor, low_turns, high_turns, original_length } => {
                let turns = original_length as f64 * frequency / std::f64::consts::TAU;
                let share_kept = ((turns - low_turns) / (high_turns - low_turns)).clamp(0.0, 1.0);
                1.0 / ((1.0 - share_kept) / factor + share_kept)
            }
        }
    }
}

/// The frequency of each pair of a head, in radians per token, `[head_dim / 2]`, before any scaling; `f32` as PyTorch's are.
pub fn frequencies(head_dim: usize, theta: f64) -> Vec<f32> {
    let exponent = |j| f64::from((2 * j) as f32 / head_dim as f32);
    (0..head_dim / 2).map(|j| 1.0 / f64::from(theta as f32).powf(exponent(j)) as f32).collect()
}

/// Cosines and sines of `position * theta^(-2j / head_dim)` for `j < head_dim / 2`; the frequencies and angles are `f32` as
/// PyTorch's are.
///
/// The functions are taken in `f64` and rounded: mathematical libraries differ in the last bit of their results for `f32`, and
/// what they differ by in `f64` is lost here, so that a model gives the same bits everywhere.
#[derive(Debug, Clone)]
pub struct RopeTable {
    frequencies: Vec<f32>,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl RopeTable {
    /// An empty table for heads of `head_dim` elements.
    pub fn new(head_dim: usize, theta: f64) -> Self {
        Self { frequencies: frequencies(head_dim, theta), cosines: Vec::new(), sines: Vec::new() }
    }

    /// The same with scaled frequencies; what is in the table already is not kept.
    #[must_use]
    pub fn scaled(self, scaling: RopeScaling) -> Self {
        let scaled = |&f: &f32| (f64::from(f) / scaling.divisor(f64::from(f))) as f32;
        Self { frequencies: self.frequencies.iter().map(scaled).collect(), cosines: Vec::new(), sines: Vec::new() }
    }

    /// Makes the table serve positions below `positions`.
    pub fn grow_to(&mut self, positions: usize) {
        let width = self.frequencies.len();
        for position in self.cosines.len() / width.max(1)..positions {
            let angles = self.frequencies.iter().map(|f| f64::from(position as f32 * f));
            self.cosines.extend(angles.clone().map(|angle| angle.cos() as f32));
            self.sines.extend(angles.map(|angle| angle.sin() as f32));
        }
    }

    /// Cosines and sines at `position`, `[head_dim / 2]` each.
    #[inline(always)]
    pub(crate) fn at(&self, position: usize) -> (&[f32], &[f32]) {
        let width = self.frequencies.len();
        (&self.cosines[position * width..][..width], &self.sines[position * width..][..width])
    }
}

/// Rotates one head: `x' = x cos + (-x2, x1) sin`.
#[inline(always)]
pub(crate) fn rotate(x: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (first, second) = x.split_at_mut(cosines.len());
    for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// Rotates back, which is also the derivative of [`rotate`].
#[inline(always)]
pub(crate) fn rotate_back(x: &mut [f32], cosines: &[f32], sines: &[f32]) {
    let (first, second) = x.split_at_mut(cosines.len());
    for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cos + *b * sin, *b * cos - *a * sin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_those_of_openelm() {
        let check = |head_dim, expected: [f32; 3], last: f32| {
            let frequencies = RopeTable::new(head_dim, 10_000.0).frequencies;
            for (found, expected) in frequencies.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-7, "{found} instead of {expected}");
            }
            assert!((frequencies[head_dim / 2 - 1] - last).abs() < 1e-8);
        };
        check(64, [1.0, 0.749_894_2, 0.562_341_3], 0.000_133_352);
        check(128, [1.0, 0.865_964_3, 0.749_894_2], 0.000_115_478);
    }

    #[test]
    fn low_frequencies_are_scaled_and_high_ones_are_not() {
        // Llama 3.1 8B: transformers 5's `ROPE_INIT_FUNCTIONS["llama3"]`.
        let (factor, low_turns, high_turns) = (8.0, 1.0, 4.0);
        let scaling = RopeScaling::Llama3 { factor, low_turns, high_turns, original_length: 8192 };
        let table = RopeTable::new(128, 500_000.0).scaled(scaling);
        let expected = [(0, 1.0), (1, 8.146_172e-1), (30, 1.371_893_7e-3), (35, 9.556_212e-5), (63, 3.068_926e-7)];
        for (j, expected) in expected {
            let found = table.frequencies[j];
            assert!((found / expected - 1.0).abs() < 1e-5, "{j}: {found:e} instead of {expected:e}");
        }
        let halved = RopeTable::new(8, 10_000.0).scaled(RopeScaling::Linear { factor: 2.0 });
        assert_eq!(halved.frequencies[0], 0.5);
        assert_eq!(RopeScaling::None.divisor(0.3), 1.0);
    }

    #[test]
    fn rotating_back_undoes_the_rotation() {
        let mut table = RopeTable::new(6, 10_000.0);
        table.grow_to(3);
        table.grow_to(30);
        let (cosines, sines) = table.at(29);
        assert_eq!((cosines[0], sines[0]), (29f64.cos() as f32, 29f64.sin() as f32));
        let x = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
        let mut y = x;
        rotate(&mut y, cosines, sines);
        assert!((y[0] - (0.1 * cosines[0] - 0.4 * sines[0])).abs() < 1e-7);
        rotate_back(&mut y, cosines, sines);
        assert!(x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-6));
    }
}

//! Losses of pairs of answers, of which one is better.
//!
//! With `c` and `r` the log-probabilities of the better and the worse answer, `c_ref` and `r_ref` those of the reference, and
//! `|c|` and `|r|` the numbers of their tokens:
//!
//! ```text
//! h = (c - c_ref) - (r - r_ref)
//! sigmoid      -ln sigma(beta h)                                              DPO, Rafailov et al. 2023
//! hinge        max(0, 1 - beta h)                                             SLiC, Zhao et al. 2023; Liu et al. 2024
//! ipo          (h' - 1 / (2 beta))^2, h' of means per token                   Azar et al. 2024, as TRL has it
//! ipo-sum      (h - 1 / (2 beta))^2                                           the same, as the paper has it (equation 17)
//! orpo         -c / |c| - beta ln sigma(odds(c / |c|) - odds(r / |r|))        Hong et al. 2024; odds(x) = x - ln(1 - e^x)
//! simpo        -ln sigma(beta (c / |c| - r / |r|) - gamma)                    Meng et al. 2024
//! ```

use serde::{Deserialize, Serialize};

/// Which loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PreferenceLoss {
    /// DPO.
    Sigmoid,
    /// A hinge; `Apple's` instruct models of three sizes were made with it.
    Hinge,
    /// IPO over means per token.
    Ipo,
    /// IPO over sums.
    IpoSum,
    /// ORPO, which needs no reference.
    Orpo,
    /// SimPO, which needs no reference.
    #[serde(rename = "simpo")]
    SimPo,
}

impl PreferenceLoss {
    /// Whether it looks at a reference.
    pub(super) fn has_reference(self) -> bool {
        !matches!(self, Self::Orpo | Self::SimPo)
    }
}

/// Two answers, the better one first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    /// Log-probabilities, in nats.
    pub policy: [f64; 2],
    /// Those of the reference; 0 where there is none.
    pub reference: [f64; 2],
    /// Tokens.
    pub lengths: [f64; 2],
}

/// What a pair gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PairLoss {
    pub loss: f64,
    /// The derivatives by [`Pair::policy`].
    pub derivatives: [f64; 2],
    /// What the policy gains over the reference, times beta; of losses without one, what they compare, times beta.
    pub rewards: [f64; 2],
}

/// A loss with its numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Preference {
    pub loss: PreferenceLoss,
    pub beta: f64,
    /// SimPO's.
    pub gamma: f64,
}

impl Preference {
    pub fn of(self, pair: &Pair) -> PairLoss {
        let Self { loss, beta, gamma } = self;
        let Pair { policy, reference, lengths } = *pair;
        let gains = [0, 1].map(|i| policy[i] - reference[i]);
        let means = [0, 1].map(|i| policy[i] / lengths[i]);
        let h = gains[0] - gains[1];
        let per_token = [1.0 / lengths[0], -1.0 / lengths[1]];
        match loss {
            PreferenceLoss::Sigmoid => {
                let (loss, slope) = log_sigmoid(beta * h);
                PairLoss { loss, derivatives: [beta * slope, -beta * slope], rewards: gains.map(|gain| beta * gain) }
            }
            PreferenceLoss::Hinge => {
                let slope = if beta * h < 1.0 { -beta } else { 0.0 };
                let loss = (1.0 - beta * h).max(0.0);
                PairLoss { loss, derivatives: [slope, -slope], rewards: gains.map(|gain| beta * gain) }
            }
            PreferenceLoss::Ipo => {
                let h = gains[0] / lengths[0] - gains[1] / lengths[1];
                let distance = h - 1.0 / (2.0 * beta);
                let derivatives = per_token.map(|share| 2.0 * distance * share);
                PairLoss { loss: distance * distance, derivatives, rewards: gains.map(|gain| beta * gain) }
            }
            PreferenceLoss::IpoSum => {
                let distance = h - 1.0 / (2.0 * beta);
                let derivatives = [2.0 * distance, -2.0 * distance];
                PairLoss { loss: distance * distance, derivatives, rewards: gains.map(|gain| beta * gain) }
            }
            PreferenceLoss::Orpo => {
                // The derivative of the logarithm of the odds by that of the probability is 1 / (1 - p).
                let odds = means.map(|mean| mean - (-mean.exp_m1()).ln());
                let slopes = means.map(|mean| -1.0 / mean.exp_m1());
                let (loss, slope) = log_sigmoid(odds[0] - odds[1]);
                let derivatives =
                    [(beta * slope * slopes[0] - 1.0) * per_token[0], beta * slope * slopes[1] * per_token[1]];
                PairLoss { loss: beta * loss - means[0], derivatives, rewards: means.map(|mean| beta * mean) }
            }
            PreferenceLoss::SimPo => {
                let (loss, slope) = log_sigmoid(beta * (means[0] - means[1]) - gamma);
                let derivatives = per_token.map(|share| beta * slope * share);
                PairLoss { loss, derivatives, rewards: means.map(|mean| beta * mean) }
            }
        }
    }
}

/// `-ln sigma(x)` and its derivative.
fn log_sigmoid(x: f64) -> (f64, f64) {
    let loss = if x > 0.0 { (-x).exp().ln_1p() } else { x.exp().ln_1p() - x };
    (loss, -1.0 / (1.0 + x.exp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSSES: [PreferenceLoss; 6] = [
        PreferenceLoss::Sigmoid,
        PreferenceLoss::Hinge,
        PreferenceLoss::Ipo,
        PreferenceLoss::IpoSum,
        PreferenceLoss::Orpo,
        PreferenceLoss::SimPo,
    ];

    #[test]
    fn derivatives_are_those_of_finite_differences() {
        for loss in LOSSES {
            let preference = Preference { loss, beta: 0.3, gamma: 0.5 };
            for policy in [[-20.0, -30.0], [-30.0, -20.0], [-0.5, -3.0], [-12.25, -11.0]] {
                let pair = Pair { policy, reference: [-21.0, -28.0], lengths: [7.0, 9.0] };
                let found = preference.of(&pair);
                for side in 0..2 {
                    let at = |distance: f64| {
                        let mut moved = pair;
                        moved.policy[side] += distance;
                        preference.of(&moved).loss
                    };
                    let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let difference = (found.derivatives[side] - expected).abs();
                    assert!(difference < 1e-6 * expected.abs().max(1.0), "{loss:?} {policy:?} {side}: {difference}");
                }
            }
        }
    }

    #[test]
    fn numbers_beyond_the_exponential_stay_finite() {
        for loss in LOSSES {
            let preference = Preference { loss, beta: 2.0, gamma: 0.5 };
            for policy in [[-1e5, -1.0], [-1.0, -1e5], [-1e5, -1e5]] {
                let pair = Pair { policy, reference: [-10.0, -10.0], lengths: [2.0, 2.0] };
                let PairLoss { loss: value, derivatives, .. } = preference.of(&pair);
                assert!(
                    value.is_finite() && derivatives.iter().all(|d| d.is_finite()),
                    "{loss:?} {policy:?}: {value} {derivatives:?}"
                );
            }
        }
    }

    #[test]
    fn the_better_answer_gains_whatever_the_loss() {
        for loss in LOSSES {
            let pair = Pair { policy: [-10.0, -9.0], reference: [-9.5, -9.5], lengths: [5.0, 6.0] };
            let found = Preference { loss, beta: 0.1, gamma: 0.5 }.of(&pair);
            assert!(found.derivatives[0] < 0.0 && found.derivatives[1] > 0.0, "{loss:?}: {found:?}");
        }
    }
}

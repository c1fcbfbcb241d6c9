//! What a run was like, as curves.

use std::collections::BTreeMap;

/// A number at a moment of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Updates made.
    pub step: u64,
    /// Tokens learnt from.
    pub tokens: f64,
    /// The number.
    pub value: f64,
}

/// What a run was like.
#[derive(Debug, Clone, PartialEq)]
pub struct Curves {
    /// What the run is called: its folder or file.
    pub name: String,
    /// Training loss in nats per token.
    pub training: Vec<Point>,
    /// Learning rate.
    pub rate: Vec<Point>,
    /// Loss of each validation corpus in nats per token.
    pub validation: BTreeMap<String, Vec<Point>>,
}

impl Curves {
    /// Tokens of the whole run.
    pub fn tokens(&self) -> f64 {
        self.training.last().map_or(0.0, |point| point.tokens)
    }

    /// The training loss, smoothed over about so many `tokens`: over equally many, two runs lag behind equally far.
    pub fn smoothed(&self, tokens: f64) -> Vec<Point> {
        let mut last: Option<Point> = None;
        let smooth = |point: &Point| {
            let value = last.map_or(point.value, |last| {
                let weight = ((point.tokens - last.tokens) / tokens).clamp(0.0, 1.0);
                last.value + weight * (point.value - last.value)
            });
            *last.insert(Point { value, ..*point })
        };
        self.training.iter().map(smooth).collect()
    }

    /// The largest number of tokens that all of `runs` have reached.
    pub fn common_tokens(runs: &[Self]) -> f64 {
        runs.iter().map(Self::tokens).fold(f64::INFINITY, f64::min)
    }
}

/// Tokens over which training losses of `runs` are smoothed: a fiftieth of what all of them have reached.
pub fn smoothing(runs: &[Curves]) -> f64 {
    Curves::common_tokens(runs) / 50.0
}

/// The last of `points` at no more than `tokens`.
pub fn at_tokens(points: &[Point], tokens: f64) -> Option<f64> {
    points.iter().rev().find(|point| point.tokens <= tokens).map(|point| point.value)
}

/// The smallest of `points`.
pub fn lowest(points: &[Point]) -> Option<f64> {
    points.iter().map(|point| point.value).min_by(f64::total_cmp)
}

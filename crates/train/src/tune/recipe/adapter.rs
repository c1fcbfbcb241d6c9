//! What a recipe says of the adapter that is trained.

use std::path::PathBuf;

use openelm_model::{ModelConfig, Target, targets};
use serde::{Deserialize, Serialize};

use crate::recipe::RecipeError;
use crate::recipe::checks::{at_least_one, positive, require};

/// The adapter that is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdapterRecipe {
    /// LoRA or DoRA.
    pub kind: AdapterKind,
    /// Rows of A and columns of B.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Whether a change is scaled by `alpha / sqrt(rank)` instead of `alpha / rank`.
    pub rs_lora: bool,
    /// Share of the inputs of A that are dropped.
    pub dropout: f64,
    /// The modules that are adapted.
    pub targets: Vec<TargetRecipe>,
    /// An adapter to begin with; its kind, ranks, alphas and modules then hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
}

impl Default for AdapterRecipe {
    fn default() -> Self {
        let linear = ["qkv_proj", "out_proj", "proj_1", "proj_2"];
        Self {
            kind: AdapterKind::Lora,
            rank: 16,
            alpha: 32.0,
            rs_lora: false,
            dropout: 0.05,
            targets: linear.map(|name| TargetRecipe::Name(name.to_owned())).to_vec(),
            start: None,
        }
    }
}

impl AdapterRecipe {
    /// Rank and alpha of the module `name`, if it is adapted: those of the last target that means it.
    pub(crate) fn numbers_of(&self, name: &str) -> Option<(usize, f64)> {
        let parts = self.targets.iter().rev().map(TargetRecipe::parts);
        let (_, rank, alpha) = parts.into_iter().find(|(target, ..)| means(target, name))?;
        Some((rank.unwrap_or(self.rank), alpha.unwrap_or(self.alpha)))
    }

    /// Parameters that it has on a model of the geometry `config`, if it begins anew.
    pub(crate) fn parameters(&self, config: &ModelConfig) -> usize {
        let numbers = |target: Target| {
            let rank = self.numbers_of(&target.name).map_or(0, |(rank, _)| rank);
            let has_magnitude = rank > 0 && self.kind == AdapterKind::Dora && !target.embedding;
            rank * (target.inputs + target.outputs) + if has_magnitude { target.outputs } else { 0 }
        };
        targets(config).into_iter().map(numbers).sum()
    }

    pub(super) fn check(&self) -> Result<(), RecipeError> {
        at_least_one("adapter.rank", self.rank as u64)?;
        positive("adapter.alpha", self.alpha)?;
        let dropout = self.dropout;
        require((0.0..1.0).contains(&dropout), "adapter.dropout", dropout, "it must be at least 0 and below 1")?;
        require(!self.targets.is_empty(), "adapter.targets", "empty", "name the modules to adapt: \"qkv_proj\"")?;
        self.targets.iter().try_for_each(|target| {
            let (_, rank, alpha) = target.parts();
            at_least_one("adapter.targets.rank", rank.unwrap_or(1) as u64)?;
            positive("adapter.targets.alpha", alpha.unwrap_or(1.0))
        })
    }

    /// The largest rank.
    pub(crate) fn largest_rank(&self) -> usize {
        self.targets.iter().map(|target| target.parts().1.unwrap_or(self.rank)).max().unwrap_or(self.rank)
    }
}

/// Whether `target` is `name`, or what it ends with behind a dot.
pub(crate) fn means(target: &str, name: &str) -> bool {
    name.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// What an adapter does to a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// Adds a product of two small matrices (Hu et al. 2021).
    Lora,
    /// The same, with the lengths of rows in training by themselves (Liu et al. 2024). The embedding, which has none, gets LoRA.
    Dora,
}

/// Modules by a whole name, such as `layers.0.attn.qkv_proj`, or its last parts, such as `qkv_proj`; perhaps with numbers of their
/// own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TargetRecipe {
    /// The name alone.
    Name(String),
    /// With numbers.
    Numbers(TargetNumbers),
}

/// Modules with a rank and an alpha of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetNumbers {
    /// The name.
    pub name: String,
    /// Rank, if it is not that of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
    /// Alpha, if it is not that of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
}

impl TargetRecipe {
    /// Name, rank and alpha.
    pub(crate) fn parts(&self) -> (&str, Option<usize>, Option<f64>) {
        match self {
            Self::Name(name) => (name, None, None),
            Self::Numbers(TargetNumbers { name, rank, alpha }) => (name, *rank, *alpha),
        }
    }
}

//! An adapter as the forward pass runs with it.

use std::collections::BTreeMap;

use openelm_kernels::Threads;
use openelm_kernels::row_norms::{self, LowRank};

use super::{Adapter, AdapterModule, Target};
use crate::config::ModelConfig;
use crate::layout::Site;
use crate::linear::{Delta, Deltas};
use crate::model::Model;

/// The factors of an adapter in `f32`, made for one model: DoRA's factors depend on the matrices that are adapted.
#[derive(Debug)]
pub struct AdapterWeights {
    config: ModelConfig,
    modules: Vec<Module>,
}

#[derive(Debug)]
struct Module {
    site: Site,
    rank: usize,
    scale: f32,
    a: Vec<f32>,
    b: Vec<f32>,
    gains: Option<Vec<f32>>,
}

impl AdapterWeights {
    /// Makes `adapter`, which fits `model`, ready to run. The matrices of the model are read once where there are magnitudes.
    pub fn new(adapter: &Adapter, model: &Model, threads: &Threads) -> Self {
        let module = |(target, module)| Module::of(adapter, target, module, model, threads);
        Self { config: model.config().clone(), modules: adapter.modules().map(module).collect() }
    }

    /// Makes the sum of several adapters, which all fit `model`, ready to run; what each changes is multiplied by its weight. The
    /// rows of their factors stand below each other.
    ///
    /// ```text
    /// y = W x + sum of weight (gain - 1) W x + weight gain scale B A x        gain = 1 where there is no magnitude
    /// ```
    pub fn combined(adapters: &[(&Adapter, f32)], model: &Model, threads: &Threads) -> Self {
        if let [(adapter, 1.0)] = adapters {
            return Self::new(adapter, model, threads);
        }
        let all = adapters.iter().flat_map(|(adapter, weight)| {
            adapter.modules().map(|(target, module)| (*weight, Module::of(adapter, target, module, model, threads)))
        });
        let mut by_site: BTreeMap<Site, Vec<(f32, Module)>> = BTreeMap::new();
        all.for_each(|(weight, module)| by_site.entry(module.site).or_default().push((weight, module)));
        let modules = by_site.into_values().map(|parts| Module::sum(&parts)).collect();
        Self { config: model.config().clone(), modules }
    }

    /// Whether it was made for a model of this geometry.
    pub(crate) fn fits(&self, config: &ModelConfig) -> bool {
        self.config == *config
    }

    /// Bytes in memory.
    pub fn size(&self) -> usize {
        let length = |module: &Module| module.a.len() + module.b.len() + module.gains.as_ref().map_or(0, Vec::len);
        self.modules.iter().map(length).sum::<usize>() * size_of::<f32>()
    }

    /// What it changes.
    pub fn deltas(&self) -> Deltas<'_> {
        self.modules
            .iter()
            .map(|Module { site, rank, scale, a, b, gains }| {
                (*site, Delta { rank: *rank, scale: *scale, a, b, gains: gains.as_deref(), dropout: None })
            })
            .collect()
    }
}

impl Module {
    fn of(adapter: &Adapter, target: &Target, module: &AdapterModule, model: &Model, threads: &Threads) -> Self {
        let (rank, scale) = (module.rank(), adapter.options.scale(module));
        let (a, b) = (module.a.to_f32(), module.b.to_f32());
        let gains = module.magnitude.as_ref().map(|magnitude| {
            let mut gains = vec![0.0; target.outputs];
            row_norms::forward(threads, &mut gains, model.matrix(target.site), LowRank { a: &a, b: &b, scale });
            gains.iter_mut().zip(magnitude.to_f32()).for_each(|(norm, magnitude)| *norm = magnitude / *norm);
            gains
        });
        Self { site: target.site, rank, scale, a, b, gains }
    }

    /// The weighted sum of `parts`, which are of one site; there is at least one.
    fn sum(parts: &[(f32, Module)]) -> Self {
        let (site, outputs) = (parts[0].1.site, parts[0].1.b.len() / parts[0].1.rank);
        let gain = |module: &Module, row: usize| module.gains.as_ref().map_or(1.0, |gains| gains[row]);
        let total =
            |row: usize| 1.0 + parts.iter().map(|(weight, module)| weight * (gain(module, row) - 1.0)).sum::<f32>();
        let has_gains = parts.iter().any(|(_, module)| module.gains.is_some());
        let mut b = Vec::new();
        for row in 0..outputs {
            for (weight, module) in parts {
                let factor = weight * module.scale * gain(module, row) / total(row);
                b.extend(module.b[row * module.rank..][..module.rank].iter().map(|b| factor * b));
            }
        }
        Self {
            site,
            rank: parts.iter().map(|(_, module)| module.rank).sum(),
            scale: 1.0,
            a: parts.iter().flat_map(|(_, module)| &module.a).copied().collect(),
            b,
            gains: has_gains.then(|| (0..outputs).map(total).collect()),
        }
    }
}

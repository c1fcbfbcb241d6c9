//! An adapter as the forward pass runs with it.

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
        let module = |(target, module): (&Target, &AdapterModule)| {
            let (rank, scale) = (module.rank(), adapter.options.scale(module));
            let (a, b) = (module.a.to_f32(), module.b.to_f32());
            let gains = module.magnitude.as_ref().map(|magnitude| {
                let mut gains = vec![0.0; target.outputs];
                row_norms::forward(threads, &mut gains, model.matrix(target.site), LowRank { a: &a, b: &b, scale });
                gains.iter_mut().zip(magnitude.to_f32()).for_each(|(norm, magnitude)| *norm = magnitude / *norm);
                gains
            });
            Module { site: target.site, rank, scale, a, b, gains }
        };
        Self { config: model.config().clone(), modules: adapter.modules().map(module).collect() }
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
                (*site, Delta { rank: *rank, scale: *scale, a, b, gains: gains.as_deref() })
            })
            .collect()
    }
}

//! How a command runs a model.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use openelm_formats::StoredModel;
use openelm_model::{Adapter, AdapterWeights, CacheType, Engine, Session};

use super::{AdapterOptions, ArithmeticOptions, CacheOption, MemoryOptions, ThreadOptions};

/// How a command runs a model.
#[derive(Args)]
pub struct RunningOptions {
    /// How keys and values are stored: f32 is exact, f16 takes half and int8 a quarter of its memory
    #[arg(long, value_enum, default_value_t = CacheOption::F32)]
    pub cache: CacheOption,
    #[command(flatten)]
    pub adapter: AdapterOptions,
    #[command(flatten)]
    pub arithmetic: ArithmeticOptions,
    #[command(flatten)]
    pub threads: ThreadOptions,
    #[command(flatten)]
    memory: MemoryOptions,
}

impl RunningOptions {
    /// Refuses `stored` and `tokens` tokens that the machine cannot hold.
    pub fn check_memory(&self, stored: &StoredModel, tokens: usize) -> Result<()> {
        self.memory.check(&stored.config, self.arithmetic.weight_bytes(stored), tokens, self.cache.into())
    }

    /// `stored`, ready to run.
    pub fn engine(&self, stored: StoredModel) -> Result<Engine> {
        let threads = self.threads.threads();
        let model = self.arithmetic.load(stored, &threads)?;
        Ok(Engine::new(model, threads).with_cache(CacheType::from(self.cache)))
    }

    /// An empty session of `stored` for up to `limit` tokens, with the adapters at work.
    pub fn session(&self, stored: StoredModel, limit: usize) -> Result<Session> {
        let adapters = self.adapter.open(&stored.config)?;
        let engine = self.engine(stored)?;
        Ok(match combined(&adapters, &engine) {
            Some(weights) => Session::adapted(engine, limit, weights)?,
            None => Session::new(engine, limit),
        })
    }
}

/// All `adapters`, ready to run in `engine`, if there are any.
fn combined(adapters: &[(Adapter, f32)], engine: &Engine) -> Option<Arc<AdapterWeights>> {
    let adapters: Vec<(&Adapter, f32)> = adapters.iter().map(|(adapter, weight)| (adapter, *weight)).collect();
    (!adapters.is_empty()).then(|| Arc::new(AdapterWeights::combined(&adapters, engine.model(), engine.threads())))
}

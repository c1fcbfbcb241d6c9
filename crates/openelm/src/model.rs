//! Opening a model.

use std::path::Path;
use std::sync::Arc;

use openelm_formats::{FormatError, adapter};
use openelm_model::kernels::Threads;
use openelm_model::{AdapterWeights, CacheType, Engine, Footprint, ModelConfig, Tokenizer, available_memory};

use crate::{Error, Session};

/// How a model is opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Threads that compute, the caller's included; 0 means one per physical core.
    pub threads: usize,
    /// How keys and values are stored.
    pub cache: CacheType,
    /// Most tokens of a session; `None` is what the model was trained for.
    pub context: Option<usize>,
    /// Bytes that the model and one session may take; `None` asks the system, where it says.
    pub memory: Option<u64>,
}

/// A model that is ready to run, with its tokenizer. Clones share it.
#[derive(Clone)]
pub struct Model {
    engine: Arc<Engine>,
    tokenizer: Arc<Tokenizer>,
    context: usize,
}

impl Model {
    /// Opens the model at `path`: a folder of Hugging Face, MLX or CoreNet, or a `.gguf`, `.pt` or `.safetensors` file.
    /// Quantised weights are packed for the integer kernels; files are mapped, not read.
    ///
    /// # Errors
    /// See [`Error`]; the message names the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_with(path, &LoadOptions::default())
    }

    /// The same with other options than the default ones.
    ///
    /// # Errors
    /// See [`Error`]; the message names the file.
    pub fn open_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, Error> {
        let stored = openelm_formats::open(path.as_ref())?;
        let missing = || FormatError::NoTokenizer { path: stored.path.clone(), what: "" };
        let tokenizer = stored.tokenizer.as_ref().ok_or_else(missing)?.open()?;
        let (pieces, rows) = (tokenizer.vocab_size(), stored.config.vocab_size);
        if pieces > rows {
            return Err(Error::Vocabulary { path: stored.path, pieces, rows });
        }
        let context = options.context.unwrap_or(stored.config.context_length);
        if let Some(available) = options.memory.or_else(available_memory) {
            Footprint::new(&stored.config, stored.size(), context, options.cache).check(available)?;
        }
        let threads = Threads::new(options.threads);
        let model = stored.into_packed_model(&threads)?;
        let engine = Engine::new(model, threads).with_cache(options.cache);
        Ok(Self { engine: Arc::new(engine), tokenizer: Arc::new(tokenizer), context })
    }

    /// An empty session.
    pub fn session(&self) -> Session {
        Session::new(openelm_model::Session::new(self.engine.clone(), self.context), self.tokenizer.clone())
    }

    /// An empty session of the model as the adapter at `path` changes it: a folder of PEFT's, or a file of CoreNet's.
    ///
    /// # Errors
    /// If the adapter cannot be read or is none of this model; the message names the file.
    pub fn session_with(&self, path: impl AsRef<Path>) -> Result<Session, Error> {
        let adapter = adapter::open(path.as_ref(), self.config())?;
        let weights = AdapterWeights::new(&adapter, self.engine.model(), self.engine.threads());
        let session = openelm_model::Session::adapted(self.engine.clone(), self.context, Arc::new(weights))?;
        Ok(Session::new(session, self.tokenizer.clone()))
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        self.engine.model().config()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }
}

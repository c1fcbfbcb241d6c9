//! Opening a model.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openelm_formats::{Format, FormatError, StoredModel, StoredTokenizer, adapter, gguf};
use openelm_model::kernels::Threads;
use openelm_model::{AdapterWeights, CacheType, Engine, Footprint, ModelConfig, Tokenizer, available_memory};

use crate::{Conversations, Error, Session};

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
    /// The tokenizer's file, if it is not beside the model or in it.
    pub tokenizer: Option<PathBuf>,
    /// A template in Jinja by which conversations are written; `None` is the model's own, and OpenELM-Instruct's for an OpenELM
    /// without one.
    pub chat_template: Option<String>,
}

impl LoadOptions {
    fn context(&self, stored: &StoredModel) -> usize {
        self.context.unwrap_or(stored.config.context_length)
    }

    fn footprint(&self, stored: &StoredModel) -> Footprint {
        Footprint::new(&stored.config, stored.size(), self.context(stored), self.cache)
    }
}

/// The model at `path`, of any format, found and checked but not loaded; with another tokenizer than its own if a file of one is
/// given. Where a model was compiled in, its name stands for it.
///
/// # Errors
/// If there is no model, or a damaged one; the message names the file.
pub fn stored(path: &Path, tokenizer: Option<&Path>) -> Result<StoredModel, FormatError> {
    let mut stored = compiled_in(path).unwrap_or_else(|| openelm_formats::open(path))?;
    if let Some(file) = tokenizer {
        stored.tokenizer = Some(StoredTokenizer::File(file.to_owned()));
    }
    Ok(stored)
}

#[cfg(feature = "builtin")]
fn compiled_in(path: &Path) -> Option<Result<StoredModel, FormatError>> {
    (path == Path::new(crate::BUILTIN)).then(crate::builtin)
}

#[cfg(not(feature = "builtin"))]
fn compiled_in(_: &Path) -> Option<Result<StoredModel, FormatError>> {
    None
}

/// A model that is ready to run, with its tokenizer. Clones share it.
#[derive(Clone)]
pub struct Model {
    engine: Arc<Engine>,
    tokenizer: Arc<Tokenizer>,
    conversations: Arc<Conversations>,
    context: usize,
    format: Format,
    name: Option<&'static str>,
}

impl Model {
    /// Opens the model at `path`: a folder of Hugging Face, MLX or CoreNet, a bundle, or a `.gguf`, `.pt` or `.safetensors` file.
    /// Quantised weights are packed for the integer kernels, those of a bundle are so already; files are mapped, not read.
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
        Self::load(stored(path.as_ref(), options.tokenizer.as_deref())?, options, Threads::new(options.threads))
    }

    /// The model in the bytes of a `.gguf` file, for apps without files; `name` stands for the path in messages. It runs on
    /// `threads`.
    ///
    /// # Errors
    /// See [`Error`]; the message has the name.
    pub fn from_gguf(bytes: Bytes, name: &str, options: &LoadOptions, threads: Threads) -> Result<Self, Error> {
        Self::load(gguf::from_bytes(bytes, Path::new(name))?, options, threads)
    }

    fn load(stored: StoredModel, options: &LoadOptions, threads: Threads) -> Result<Self, Error> {
        let tokenizer = Arc::new(stored.open_tokenizer()?);
        let conversations = Conversations::new(&stored, options.chat_template.as_deref(), tokenizer.clone())?;
        if let Some(available) = options.memory.or_else(available_memory) {
            options.footprint(&stored).check(available)?;
        }
        let (context, format, name) = (options.context(&stored), stored.format, stored.released_name());
        let model = stored.into_packed_model(&threads)?;
        let engine = Engine::new(model, threads).with_cache(options.cache);
        Ok(Self { engine: Arc::new(engine), tokenizer, conversations: Arc::new(conversations), context, format, name })
    }

    /// What the model at `path` and one session of it would take in memory. Nothing is loaded.
    ///
    /// # Errors
    /// If there is no model, or a damaged one.
    pub fn footprint(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Footprint, Error> {
        Ok(options.footprint(&stored(path.as_ref(), options.tokenizer.as_deref())?))
    }

    /// Reads all of the bundle at `path` and compares it with its hashes, as an app does once behind a download; opening looks at
    /// everything but the hash of the weights.
    ///
    /// # Errors
    /// If a file is not what the manifest says, or it is no bundle; the message names the file.
    pub fn verify_bundle(path: impl AsRef<Path>) -> Result<(), Error> {
        Ok(openelm_formats::bundle::verify(path.as_ref())?)
    }

    /// An empty session.
    pub fn session(&self) -> Session {
        self.owned(openelm_model::Session::new(self.engine.clone(), self.context))
    }

    fn owned(&self, session: openelm_model::Session) -> Session {
        Session::new(session, self.tokenizer.clone(), self.conversations.clone())
    }

    /// An empty session of the model as the adapter at `path` changes it: a folder of PEFT's, or a file of CoreNet's.
    ///
    /// # Errors
    /// If the adapter cannot be read or is none of this model; the message names the file.
    pub fn session_with(&self, path: impl AsRef<Path>) -> Result<Session, Error> {
        let adapter = adapter::open(path.as_ref(), self.config())?;
        let weights = AdapterWeights::new(&adapter, self.engine.model(), self.engine.threads());
        let session = openelm_model::Session::adapted(self.engine.clone(), self.context, Arc::new(weights))?;
        Ok(self.owned(session))
    }

    /// The model's geometry.
    pub fn config(&self) -> &ModelConfig {
        self.engine.model().config()
    }

    /// The format it was found in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The name of the released model that has this geometry.
    pub fn name(&self) -> Option<&'static str> {
        self.name
    }

    /// The engine: for logits and hidden states.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Most tokens of a session.
    pub fn context(&self) -> usize {
        self.context
    }

    /// How it reads conversations.
    pub fn conversations(&self) -> &Arc<Conversations> {
        &self.conversations
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }
}

//! A model as other languages hold it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use openelm::{Conversations, Tokenizer};

use crate::session::Session;
use crate::slot::Slot;
use crate::{LoadOptions, OpenElmError, guard};

/// What a model is, in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Description {
    /// The name of the released model that has this geometry.
    pub name: Option<String>,
    /// The format it was found in.
    pub format: String,
    /// Parameters; a tied output projection counts once.
    pub parameters: u64,
    /// Bytes of the weights as they run.
    pub weight_bytes: u64,
    /// Number of layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub width: u32,
    /// Entries of the vocabulary.
    pub vocabulary: u32,
    /// Most tokens of a session.
    pub context: u32,
    /// The token that begins a text.
    pub begin: Option<u32>,
    /// The tokens that end one.
    pub ends: Vec<u32>,
}

/// Memory that a model and one session take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Footprint {
    /// The weights; pages of a mapped file count as they come into memory.
    pub weights: u64,
    /// Keys and values of a full context.
    pub cache: u64,
    /// Everything else.
    pub buffers: u64,
    /// All of it.
    pub total: u64,
}

/// What the model at `path` and one session of it would take; nothing is loaded.
///
/// # Errors
/// If there is no model, or a damaged one.
#[cfg_attr(feature = "uniffi", uniffi::export)]
pub fn footprint(path: String, options: LoadOptions) -> Result<Footprint, OpenElmError> {
    guard(|| {
        let found = openelm::Model::footprint(path, &(&options).into())?;
        let openelm::Footprint { weights, cache, buffers, .. } = found;
        Ok(Footprint { weights, cache, buffers, total: found.total() })
    })
}

/// Reads all of the bundle at `path` and compares it with its hashes, as an app does once behind a download; opening looks at
/// everything but the hash of the weights.
///
/// # Errors
/// If a file is not what the manifest says, or it is no bundle.
#[cfg_attr(feature = "uniffi", uniffi::export)]
pub fn verify_bundle(path: String) -> Result<(), OpenElmError> {
    guard(|| Ok(openelm::Model::verify_bundle(path)?))
}

/// Bytes that this process can still have; nothing where the system does not say (iOS: `os_proc_available_memory`).
#[cfg_attr(feature = "uniffi", uniffi::export)]
pub fn free_memory() -> Option<u64> {
    guard(|| Ok(openelm::available_memory())).unwrap_or_default()
}

/// The version of this library.
#[cfg_attr(feature = "uniffi", uniffi::export)]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// A model with its tokenizer, ready to run.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Model {
    loader: Arc<Loader>,
    description: Description,
}

/// What opens a model, and opens it again when its memory was given back.
pub(crate) struct Loader {
    path: String,
    options: openelm::LoadOptions,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) conversations: Arc<Conversations>,
    loaded: Mutex<Option<openelm::Model>>,
    sessions: Mutex<Vec<Weak<Slot>>>,
}

impl Loader {
    fn model(&self) -> Result<openelm::Model, OpenElmError> {
        let mut loaded = lock(&self.loaded);
        if let Some(model) = &*loaded {
            return Ok(model.clone());
        }
        let model = openelm::Model::open_with(Path::new(&self.path), &self.options)?;
        Ok(loaded.insert(model).clone())
    }

    pub(crate) fn session(&self, adapter: Option<&String>) -> Result<openelm::Session, OpenElmError> {
        let model = self.model()?;
        Ok(match adapter {
            Some(path) => model.session_with(path)?,
            None => model.session(),
        })
    }

    /// A place for `session` that [`Model::release_memory`] knows of.
    pub(crate) fn slot(&self, session: openelm::Session, adapter: Option<String>) -> Arc<Slot> {
        let slot = Slot::new(session, adapter);
        let mut sessions = lock(&self.sessions);
        sessions.retain(|slot| slot.strong_count() > 0);
        sessions.push(Arc::downgrade(&slot));
        slot
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Model {
    /// Opens the model at `path`: a folder of Hugging Face, MLX or CoreNet, a bundle, or a `.gguf`, `.pt` or `.safetensors` file; or
    /// `builtin`, where a model was compiled in. Memory is asked for before anything is loaded.
    ///
    /// # Errors
    /// If there is no model, a damaged one, or too little memory; the message names the file.
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn open(path: String, options: LoadOptions) -> Result<Arc<Self>, OpenElmError> {
        guard(|| {
            let load = openelm::LoadOptions::from(&options);
            let model = openelm::Model::open_with(Path::new(&path), &load)?;
            let (tokenizer, conversations) = (model.tokenizer().clone(), model.conversations().clone());
            let description = describe(&model);
            let (loaded, sessions) = (Mutex::new(Some(model)), Mutex::new(Vec::new()));
            let loader = Loader { path, options: load, tokenizer, conversations, loaded, sessions };
            Ok(Arc::new(Self { loader: Arc::new(loader), description }))
        })
    }

    /// What the model is.
    pub fn describe(&self) -> Description {
        self.description.clone()
    }

    /// The ids of `text`; as those of a prompt, behind the token that begins a text if the model wants one.
    ///
    /// # Errors
    /// Only a defect.
    pub fn tokenize(&self, text: String, is_prompt: bool) -> Result<Vec<u32>, OpenElmError> {
        let tokenizer = self.tokenizer();
        guard(|| Ok(if is_prompt { tokenizer.encode_prompt(&text) } else { tokenizer.encode(&text) }))
    }

    /// The text of `ids`; those beyond the vocabulary are passed over.
    ///
    /// # Errors
    /// Only a defect.
    pub fn detokenize(&self, ids: Vec<u32>) -> Result<String, OpenElmError> {
        guard(|| Ok(self.tokenizer().decode(&ids)))
    }

    /// An empty session.
    ///
    /// # Errors
    /// If the model had to be opened again and could not.
    pub fn session(&self) -> Result<Arc<Session>, OpenElmError> {
        guard(|| Ok(Session::new(self.loader.clone(), self.loader.session(None)?, None)))
    }

    /// An empty session of the model as the adapter at `path` changes it: a folder of PEFT's, or a file of CoreNet's.
    ///
    /// # Errors
    /// If the adapter cannot be read or is none of this model.
    pub fn session_with(&self, adapter: String) -> Result<Arc<Session>, OpenElmError> {
        guard(|| Ok(Session::new(self.loader.clone(), self.loader.session(Some(&adapter))?, Some(adapter))))
    }

    /// Gives back what the system may want: caches of sessions that are not generating, and packed weights. Sessions keep
    /// their tokens; whatever is used again is read and computed again.
    pub fn release_memory(&self) {
        let sessions: Vec<_> = lock(&self.loader.sessions).iter().filter_map(Weak::upgrade).collect();
        sessions.iter().for_each(|slot| slot.make_dormant());
        let model = lock(&self.loader.loaded).take();
        // A pool of threads ends here, unless a generation still runs on it: outside the lock.
        drop(model);
    }
}

impl Model {
    /// The model below, opened again if need be: for what this surface does not have.
    ///
    /// # Errors
    /// If it had to be opened again and could not.
    pub fn inner(&self) -> Result<openelm::Model, OpenElmError> {
        guard(|| self.loader.model())
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.loader.tokenizer
    }
}

fn describe(model: &openelm::Model) -> Description {
    let (config, tokenizer) = (model.config(), model.tokenizer());
    Description {
        name: model.name().map(str::to_owned),
        format: model.format().to_string(),
        parameters: config.parameters() as u64,
        weight_bytes: model.engine().model().weight_bytes() as u64,
        layers: config.layers.len() as u32,
        width: config.model_dim as u32,
        vocabulary: config.vocab_size as u32,
        context: model.context() as u32,
        begin: tokenizer.bos_id(),
        ends: tokenizer.eos_ids().to_vec(),
    }
}

//! A model in the memory of a worker.

use std::cell::RefCell;
use std::rc::Rc;

use openelm::LoadOptions;
use openelm_ffi::{CacheType, OpenElmError};
use wasm_bindgen::prelude::*;

use crate::contents::Contents;
use crate::error::Failure;
use crate::session::Session;
use crate::threads::threads;

/// A model that is ready to run.
#[wasm_bindgen]
pub struct Model {
    model: openelm::Model,
}

#[wasm_bindgen]
impl Model {
    /// Opens the `.gguf` file whose bytes are `contents`; `name` stands for it in messages. `cache` is `f32`, `f16` or `int8`;
    /// `context` the most tokens of a session, `None` what the model was trained for; `memory` the bytes that this module may
    /// have in all.
    ///
    /// # Errors
    /// If it is damaged, of a kind that cannot be read, or would not fit into memory.
    pub fn open(
        contents: Contents,
        name: &str,
        cache: &str,
        context: Option<usize>,
        memory: f64,
    ) -> Result<Model, Failure> {
        let cache = match cache {
            "f32" => CacheType::F32,
            "f16" => CacheType::F16,
            "int8" => CacheType::Int8,
            other => {
                let sentence =
                    format!("there is no cache of the type {other:?}; there are \"f32\", \"f16\" and \"int8\"");
                return Err(OpenElmError::Input(sentence).into());
            }
        };
        let memory = (memory as u64).saturating_sub(contents.length() as u64);
        let options = LoadOptions { cache: cache.into(), context, memory: Some(memory), ..LoadOptions::default() };
        let model = openelm::Model::from_gguf(contents.into_bytes(), name, &options, threads())?;
        Ok(Self { model })
    }

    /// An empty session.
    pub fn session(&self) -> Session {
        Session::new(Rc::new(RefCell::new(self.model.session())), self.model.conversations().clone())
    }

    /// The name of the released model that has this geometry.
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> Option<String> {
        self.model.name().map(str::to_owned)
    }

    /// Numbers of all weights.
    #[wasm_bindgen(getter)]
    pub fn parameters(&self) -> f64 {
        self.model.config().parameters() as f64
    }

    /// Bytes of the weights in memory.
    #[wasm_bindgen(getter, js_name = weightBytes)]
    pub fn weight_bytes(&self) -> f64 {
        self.model.engine().model().weight_bytes() as f64
    }

    /// Most tokens of a session.
    #[wasm_bindgen(getter)]
    pub fn context(&self) -> usize {
        self.model.context()
    }

    /// Entries of the vocabulary.
    #[wasm_bindgen(getter)]
    pub fn vocabulary(&self) -> usize {
        self.model.config().vocab_size
    }

    /// Threads that compute.
    #[wasm_bindgen(getter)]
    pub fn threads(&self) -> usize {
        self.model.engine().threads().count()
    }

    /// The ids of a text, as a prompt begins with it.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.model.tokenizer().encode_prompt(text)
    }
}

//! Opening a model, asking what it is, looking inside.

use std::path::PathBuf;
use std::sync::Arc;

use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods};
use openelm_ffi::{self as ffi, OpenElmError};
use openelm_model::{EngineError, Feed, Logits, Rows};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::{Failure, detached};
use crate::session::Session;
use crate::tokenizer::Tokenizer;

/// The version of the library.
#[pyfunction]
pub fn version() -> String {
    ffi::version()
}

/// Bytes that this process can still have; `None` where the system does not say.
#[pyfunction]
pub fn available_memory() -> Option<u64> {
    ffi::free_memory()
}

fn options(
    py: Python<'_>,
    threads: u32,
    cache: &str,
    context: Option<u32>,
    memory: Option<u64>,
    tokenizer: Option<PathBuf>,
) -> PyResult<ffi::LoadOptions> {
    let cache = cache_type(cache).map_err(|failure| failure.raised(py))?;
    let tokenizer = tokenizer.map(|path| path.display().to_string());
    Ok(ffi::LoadOptions { threads, cache, context, memory, tokenizer, chat_template: None })
}

/// How keys and values are stored, by its name.
pub fn cache_type(name: &str) -> Result<ffi::CacheType, Failure> {
    match name {
        "f32" => Ok(ffi::CacheType::F32),
        "f16" => Ok(ffi::CacheType::F16),
        "int8" => Ok(ffi::CacheType::Int8),
        _ => Err(Failure::input(format!("the cache is {name:?}; it must be f32, f16 or int8"))),
    }
}

/// Reads all of the bundle at `path` and compares it with its hashes, as one does once behind a download.
#[pyfunction]
pub fn verify_bundle(py: Python<'_>, path: PathBuf) -> PyResult<()> {
    detached(py, || ffi::verify_bundle(path.display().to_string()))
}

/// Bytes that the model at `path` and one session of it would take, item by item; nothing is loaded.
#[pyfunction]
#[pyo3(signature = (path, *, threads=0, cache="f32", context=None, memory=None, tokenizer=None))]
#[allow(clippy::too_many_arguments)] // Keywords, as Python has them.
pub fn footprint<'py>(
    py: Python<'py>,
    path: PathBuf,
    threads: u32,
    cache: &str,
    context: Option<u32>,
    memory: Option<u64>,
    tokenizer: Option<PathBuf>,
) -> PyResult<Bound<'py, PyDict>> {
    let options = options(py, threads, cache, context, memory, tokenizer)?;
    let ffi::Footprint { weights, cache, buffers, total } =
        detached(py, || ffi::footprint(path.display().to_string(), options))?;
    let items = PyDict::new(py);
    for (name, bytes) in [("weights", weights), ("cache", cache), ("buffers", buffers), ("total", total)] {
        items.set_item(name, bytes)?;
    }
    Ok(items)
}

/// A model with its tokenizer, ready to run. Sessions and threads share it.
#[pyclass(frozen, module = "openelm", subclass)]
pub struct Model {
    inner: Arc<ffi::Model>,
    /// Where it is.
    pub path: PathBuf,
    /// Its tokenizer's file, if one was given.
    pub tokenizer: Option<PathBuf>,
}

#[pymethods]
impl Model {
    #[new]
    #[pyo3(signature = (
        path="builtin".into(), *, threads=0, cache="f32", context=None, memory=None, tokenizer=None, chat_template=None
    ))]
    #[allow(clippy::too_many_arguments)] // Keywords, as Python has them.
    fn new(
        py: Python<'_>,
        path: PathBuf,
        threads: u32,
        cache: &str,
        context: Option<u32>,
        memory: Option<u64>,
        tokenizer: Option<PathBuf>,
        chat_template: Option<String>,
    ) -> PyResult<Self> {
        let options = options(py, threads, cache, context, memory, tokenizer.clone())?;
        let options = ffi::LoadOptions { chat_template, ..options };
        let inner = detached(py, || ffi::Model::open(path.display().to_string(), options))?;
        // The folder that Python works in may change before the files are opened again.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let path = if path.as_os_str() == openelm::BUILTIN { path } else { absolute(path) };
        Ok(Self { inner, path, tokenizer: tokenizer.map(absolute) })
    }

    /// What the model is: name, format, sizes.
    fn describe<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let ffi::Description { name, format, parameters, weight_bytes, layers, width, vocabulary, context, .. } =
            self.inner.describe();
        let items = PyDict::new(py);
        items.set_item("name", name)?;
        items.set_item("format", format)?;
        for (name, number) in [("parameters", parameters), ("weight_bytes", weight_bytes)] {
            items.set_item(name, number)?;
        }
        for (name, number) in [("layers", layers), ("width", width), ("vocabulary", vocabulary), ("context", context)] {
            items.set_item(name, number)?;
        }
        Ok(items)
    }

    /// The tokenizer.
    #[getter]
    fn tokenizer(&self) -> Tokenizer {
        Tokenizer { inner: self.inner.tokenizer().clone() }
    }

    /// An empty session; of the model as an adapter changes it, a folder of PEFT's or a file of CoreNet's, if one is given.
    #[pyo3(signature = (adapter=None))]
    fn session(&self, py: Python<'_>, adapter: Option<PathBuf>) -> PyResult<Session> {
        let inner = detached(py, || match adapter {
            Some(path) => self.inner.session_with(path.display().to_string()),
            None => self.inner.session(),
        })?;
        Ok(Session { inner })
    }

    /// The logits behind the last of `tokens`, `[vocabulary]`. The array owns the memory they were computed in.
    fn next_logits<'py>(&self, py: Python<'py>, tokens: Vec<u32>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let values = detached(py, || self.logits_of(&tokens, Rows::Last))?;
        Ok(PyArray1::from_vec(py, values))
    }

    /// The logits behind each of `tokens`, `[tokens, vocabulary]`. The array owns the memory they were computed in.
    fn logits<'py>(&self, py: Python<'py>, tokens: Vec<u32>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let values = detached(py, || self.logits_of(&tokens, Rows::All))?;
        let vocabulary = values.len() / tokens.len().max(1);
        PyArray1::from_vec(py, values).reshape([tokens.len(), vocabulary])
    }

    /// The residual stream, `[layers + 1, tokens, width]`, as transformers counts it: the embeddings, then what each block leaves,
    /// the last normalised. The array owns the memory they were computed in.
    fn hidden_states<'py>(&self, py: Python<'py>, tokens: Vec<u32>) -> PyResult<Bound<'py, PyArray3<f32>>> {
        let values = detached(py, || self.inner.inner()?.engine().hidden_states(&tokens).map_err(refused))?;
        let ffi::Description { layers, width, .. } = self.inner.describe();
        PyArray1::from_vec(py, values).reshape([layers as usize + 1, tokens.len(), width as usize])
    }

    /// Gives back what the system may want: caches of sessions that are not generating, and packed weights. They come back when
    /// they are used.
    fn release_memory(&self, py: Python<'_>) {
        py.detach(|| self.inner.release_memory());
    }
}

impl Model {
    fn logits_of(&self, tokens: &[u32], rows: Rows<'_>) -> Result<Vec<f32>, OpenElmError> {
        let model = self.inner.inner()?;
        let engine = model.engine();
        let (mut sequence, mut logits) = (engine.sequence(tokens.len()), Logits::default());
        if tokens.is_empty() {
            return Err(refused(EngineError::Empty));
        }
        engine.step(&mut [Feed { sequence: &mut sequence, tokens, logits: rows }], &mut logits).map_err(refused)?;
        Ok(logits.into_values())
    }
}

fn refused(error: EngineError) -> OpenElmError {
    OpenElmError::Input(error.to_string())
}

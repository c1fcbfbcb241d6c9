//! A model in another format.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Mutex;

use openelm_formats::Target;
use openelm_formats::gguf::Quantisation;
use openelm_model::DType;
use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::{AffineFormat, BlockFormat};
use pyo3::prelude::*;

use crate::error::Failure;

/// Writes the model at `source` to `target` in another format: `"hf"`, `"corenet"`, `"mlx"` or `"gguf"`. Returns warnings.
///
/// `dtype` (`"float32"`, `"float16"`, `"bfloat16"`) is for floats; `bits` and `group_size` are for mlx, `quantisation` (`"q4_0"` to
/// `"q6_K"`) is for gguf.
#[pyfunction]
#[pyo3(signature = (source, target, to, *, dtype=None, bits=None, group_size=64, quantisation=None, tokenizer=None))]
#[allow(clippy::too_many_arguments)] // Keywords, as Python has them.
pub fn convert(
    py: Python<'_>,
    source: PathBuf,
    target: PathBuf,
    to: &str,
    dtype: Option<&str>,
    bits: Option<usize>,
    group_size: usize,
    quantisation: Option<&str>,
    tokenizer: Option<PathBuf>,
) -> PyResult<Vec<String>> {
    let interrupted = Mutex::new(None);
    let go_on = |_| match Python::attach(|py| py.check_signals()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            *interrupted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
            ControlFlow::Break(())
        }
    };
    let work = || -> Result<Vec<String>, Failure> {
        let model = openelm::stored(&source, tokenizer.as_deref())?;
        let dtype = dtype.map_or(Ok(model.natural_dtype()), float)?;
        let form = form(to, dtype, bits, group_size, quantisation)?;
        let mut warnings = model.notes.clone();
        warnings.extend(form.warnings(&model.config, model.main_encoding()));
        warnings.extend(openelm_formats::convert(&model, &target, form, &Threads::new(0), &go_on)?);
        Ok(warnings)
    };
    let done = py.detach(work);
    if let Some(error) = interrupted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
        return Err(error);
    }
    done.map_err(|failure| failure.raised(py))
}

fn form(
    to: &str,
    dtype: DType,
    bits: Option<usize>,
    group_size: usize,
    quantisation: Option<&str>,
) -> Result<Target, Failure> {
    let refuse = |sentence: String| Err(Failure::input(sentence));
    match (to, bits, quantisation) {
        ("hf", None, None) => Ok(Target::HuggingFace(dtype)),
        ("corenet", None, None) => Ok(Target::CoreNet(dtype)),
        ("mlx", None, None) => Ok(Target::Mlx(dtype, None)),
        ("mlx", Some(bits), None) => match AffineFormat::new(bits, group_size) {
            Some(format) => Ok(Target::Mlx(dtype, Some(format))),
            None => refuse(format!(
                "MLX has no {bits} bits in groups of {group_size}: there are 2, 3, 4, 5, 6 and 8 in 32, 64 and 128"
            )),
        },
        ("gguf", None, None) => Ok(Target::Gguf(Quantisation::Float(dtype))),
        ("gguf", None, Some(name)) => Ok(Target::Gguf(Quantisation::Blocks(blocks(name)?))),
        ("hf" | "corenet" | "mlx" | "gguf", ..) => {
            refuse("bits are for mlx and quantisation is for gguf; the other formats hold floats only".to_owned())
        }
        _ => refuse(format!("{to:?} is no format; there are hf, corenet, mlx and gguf")),
    }
}

fn float(name: &str) -> Result<DType, Failure> {
    match name {
        "float32" => Ok(DType::F32),
        "float16" => Ok(DType::F16),
        "bfloat16" => Ok(DType::BF16),
        _ => Err(Failure::input(format!("{name:?} is no dtype; there are float32, float16 and bfloat16"))),
    }
}

fn blocks(name: &str) -> Result<BlockFormat, Failure> {
    match name.to_ascii_lowercase().as_str() {
        "q4_0" => Ok(BlockFormat::Q4_0),
        "q4_1" => Ok(BlockFormat::Q4_1),
        "q5_0" => Ok(BlockFormat::Q5_0),
        "q5_1" => Ok(BlockFormat::Q5_1),
        "q8_0" => Ok(BlockFormat::Q8_0),
        "q4_k" => Ok(BlockFormat::Q4_K),
        "q5_k" => Ok(BlockFormat::Q5_K),
        "q6_k" => Ok(BlockFormat::Q6_K),
        _ => Err(Failure::input(format!(
            "{name:?} is no quantisation; there are q4_0, q4_1, q5_0, q5_1, q8_0, q4_K, q5_K and q6_K"
        ))),
    }
}

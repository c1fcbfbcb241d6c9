//! From any format to any other, tensor by tensor.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;

use openelm_model::kernels::Threads;
use openelm_model::kernels::quant::AffineFormat;
use openelm_model::{DType, Encoding, ModelConfig, Tensor, TensorSpec};

use crate::bundle::{BundleOptions, BundleWeights};
use crate::gguf::Quantisation;
use crate::huggingface::WriteOptions;
use crate::{FormatError, StoredModel, atomic, bundle, corenet, finite, gguf, huggingface, mlx};

/// What a model becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A Hugging Face folder.
    HuggingFace(DType),
    /// A CoreNet folder.
    CoreNet(DType),
    /// A folder for mlx-lm, with matrices in affine groups if a format is given.
    Mlx(DType, Option<AffineFormat>),
    /// A file for llama.cpp.
    Gguf(Quantisation),
    /// A folder for a device.
    Bundle(BundleOptions),
}

/// Apple's Hugging Face folders and mlx-lm's are cut into files of this size.
const SHARD_BYTES: usize = 5 << 30;

impl Target {
    /// What may go wrong with a model of this geometry whose weights are mostly `stored` so, in sentences.
    pub fn warnings(self, config: &ModelConfig, stored: Encoding) -> Vec<String> {
        let main = match self {
            Target::HuggingFace(dtype) | Target::CoreNet(dtype) | Target::Mlx(dtype, None) => Encoding::Float(dtype),
            Target::Mlx(dtype, Some(format)) => Encoding::Affine(format, dtype),
            Target::Gguf(quantisation) => quantisation.main(),
            Target::Bundle(BundleOptions { weights: BundleWeights::Quantised(quantisation), .. }) => {
                quantisation.main()
            }
            Target::Bundle(BundleOptions { weights: BundleWeights::Kept, .. }) => stored,
        };
        let dtype = match main {
            Encoding::Float(dtype) | Encoding::Affine(_, dtype) => Some(dtype),
            Encoding::Blocks(_) => None,
        };
        let mut warnings: Vec<String> =
            dtype.and_then(|dtype| half_precision_warning(config, dtype)).into_iter().collect();
        if main.dtype().is_none() && stored.dtype().is_none() && main != stored {
            warnings.push(format!(
                "the weights are quantised already ({stored}), and {main} adds its own error: start from floats if you can"
            ));
        }
        warnings
    }
}

/// What Apple says of its largest model: its activations overflow in half precision.
pub(crate) fn half_precision_warning(config: &ModelConfig, dtype: DType) -> Option<String> {
    let is_3b = corenet::model_name(config) == Some("OpenELM-3B");
    (is_3b && dtype == DType::F16).then(|| {
        "OpenELM-3B must not run in float16, where its activations overflow: use bfloat16 or float32".to_owned()
    })
}

/// Writes `model` as the new folder or file `output`, with its tokenizer. One tensor at a time is in memory, in its old and
/// its new form. `progress` is told the elements of each tensor before it is made, and may stop the work. Gives a warning for
/// each tensor that holds infinity or NaN; floats stay what they are, quantising refuses those.
///
/// # Errors
/// If `output` exists, the target cannot express the model, a value does not fit, GGUF would lack a tokenizer, `progress`
/// stops it, or the system cannot write; then nothing is left of it.
pub fn convert(
    model: &StoredModel,
    output: &Path,
    target: Target,
    threads: &Threads,
    progress: &dyn Fn(usize) -> ControlFlow<()>,
) -> Result<Vec<String>, FormatError> {
    if output.exists() {
        return Err(FormatError::Exists { path: output.to_owned() });
    }
    let warnings = Mutex::new(Vec::new());
    let tensor = |spec: &TensorSpec| {
        model.release();
        if progress(spec.len()).is_break() {
            return Err(FormatError::Stopped);
        }
        let tensor = model.tensor(&spec.name)?;
        if let (Some(warning), Ok(mut warnings)) = (finite::warning(&tensor, &spec.name, threads), warnings.lock())
            && !warnings.contains(&warning)
        {
            warnings.push(warning);
        }
        Ok(tensor)
    };
    write(model, output, target, &tensor, threads)?;
    Ok(warnings.into_inner().unwrap_or_default())
}

fn write(
    model: &StoredModel,
    output: &Path,
    target: Target,
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    threads: &Threads,
) -> Result<(), FormatError> {
    if let Some(parent) = output.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(FormatError::io(parent))?;
    }
    let Target::Gguf(quantisation) = target else {
        let fill =
            |folder: &Path| write_folder(model, folder, target, tensor, threads).map_err(|e| e.renamed(folder, output));
        return atomic::write_folder(output, fill, |e| FormatError::io(output)(e));
    };
    let Some(tokenizer) = &model.tokenizer else {
        return Err(FormatError::NoTokenizer { path: model.path.clone(), what: " to put into the file" });
    };
    let name = model.released_name().map(str::to_owned);
    let name = name.or_else(|| Some(model.path.file_stem()?.to_string_lossy().into_owned()));
    let name = name.as_deref().unwrap_or("OpenELM");
    gguf::write(output, name, &model.config, tokenizer, tensor, quantisation, threads)
}

fn write_folder(
    model: &StoredModel,
    folder: &Path,
    target: Target,
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    threads: &Threads,
) -> Result<(), FormatError> {
    let config = &model.config;
    match target {
        Target::HuggingFace(dtype) => {
            let options = WriteOptions { dtype, shard_bytes: SHARD_BYTES };
            huggingface::write_like(folder, model, tensor, options, threads)
        }
        Target::CoreNet(dtype) => {
            corenet::write(folder, config, tensor, dtype, threads)?;
            model.tokenizer.as_ref().map_or(Ok(()), |tokenizer| tokenizer.copy_into(folder))
        }
        Target::Mlx(dtype, quantised) => {
            let json = model.config_to_carry(dtype);
            mlx::write(folder, config, Some(&json), tensor, dtype, quantised, threads)?;
            model.carry_along(folder)
        }
        Target::Bundle(options) => {
            if model.tokenizer.is_none() {
                return Err(FormatError::NoTokenizer { path: model.path.clone(), what: " to put into the bundle" });
            }
            bundle::write(model, folder, options, tensor, threads)
        }
        Target::Gguf(_) => unreachable!("a file, not a folder"),
    }
}

impl StoredModel {
    /// The dtype that a conversion keeps: that of most elements, or of the scales of affine groups; half precision for
    /// GGUF's blocks, whose scales are of it.
    pub fn natural_dtype(&self) -> DType {
        match self.main_encoding() {
            Encoding::Float(dtype) | Encoding::Affine(_, dtype) => dtype,
            Encoding::Blocks(_) => DType::F16,
        }
    }
}

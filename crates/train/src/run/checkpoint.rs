//! The whole state of a run in a folder that is also a model in the Hugging Face layout, or has what is trained of one.
//!
//! ```text
//! step-00001000/  config.json  model.safetensors  tokenizer.model     the model
//!                 config.json  trained.safetensors  tokenizer.model   instead, where other tensors are not trained
//!                 config.json  adapter_config.json  adapter_model.safetensors   instead, where an adapter is trained: PEFT's
//!                                                                     files, or CoreNet's where PEFT cannot express it
//!                 optimizer.safetensors                               first and second moments
//!                 state.json                                          counters and the position in the corpus
//!                 checksums.json                                      SHA-256 of each file; written last
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use openelm_formats::{FormatError, adapter, atomic, huggingface};
use openelm_kernels::{MappedFile, Threads};
use openelm_model::{
    Adapter, AdapterError, DType, Family, LayerConfig, ModelConfig, Multipliers, QkNorm, Tensor, TensorSpec,
};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::CheckpointError;
use super::spike::SpikeDetector;
use super::tokenizer::{RunTokenizer, sha256_hex};
use crate::parameters::Parameters;
use crate::trainable::TrainableModel;
use crate::trainer::Trainer;

const CONFIG: &str = "config.json";
const TRAINED: &str = "trained.safetensors";
const CHECKSUMS: &str = "checksums.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// Counters of a run, and its position in the data, which is the business of whoever reads them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RunState<P> {
    /// Updates made.
    pub step: u64,
    /// Tokens learnt from.
    pub tokens: u64,
    /// SHA-256 of the tokenizer's file.
    pub tokenizer: String,
    /// What the losses were like so far.
    #[serde(default)]
    pub losses: SpikeDetector,
    /// Position in the data.
    #[serde(rename = "stream")]
    pub position: P,
}

/// Everything that a checkpoint holds, borrowed from a trainer or copied, so that it can be written while training goes on.
pub(super) struct Snapshot<'t, P> {
    config: ModelConfig,
    /// Whether the weights are all of the model's.
    is_whole: bool,
    /// The adapter, where the weights are one's.
    adapter: Option<Result<Adapter, AdapterError>>,
    weights: Cow<'t, Parameters>,
    /// First and second moments, in the order of the weights.
    moments: [Cow<'t, [f32]>; 2],
    state: RunState<P>,
    tokenizer: RunTokenizer,
}

impl<'t, P> Snapshot<'t, P> {
    /// The weights of `trainer` as they are, and the `moments` of all ranks.
    pub fn new(
        trainer: &'t Trainer,
        moments: [Cow<'t, [f32]>; 2],
        state: RunState<P>,
        tokenizer: &RunTokenizer,
    ) -> Self {
        Self {
            config: trainer.config().clone(),
            is_whole: trainer.model().is_whole(),
            adapter: trainer.model().adapter(),
            weights: Cow::Borrowed(trainer.parameters()),
            moments,
            state,
            tokenizer: tokenizer.clone(),
        }
    }

    /// Copies what is borrowed.
    pub fn into_owned(self) -> Snapshot<'static, P> {
        let Self { config, is_whole, adapter, weights, moments, state, tokenizer } = self;
        Snapshot {
            is_whole,
            adapter,
            weights: Cow::Owned(weights.into_owned()),
            moments: moments.map(|moments| Cow::Owned(moments.into_owned())),
            config,
            state,
            tokenizer,
        }
    }

    /// Updates made when it was taken.
    fn step(&self) -> u64 {
        self.state.step
    }
}

/// Which checkpoints stay when a new one was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retention {
    /// The newest so many; 0 keeps all.
    pub newest: usize,
    /// Those of every so many updates as well; 0 is none.
    pub every: u64,
}

/// The checkpoints of a run.
#[derive(Debug, Clone)]
pub(super) struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Those in `folder`, which is made if need be.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(folder: PathBuf) -> Result<Self, CheckpointError> {
        std::fs::create_dir_all(&folder).map_err(at(&folder))?;
        Ok(Self { folder })
    }

    /// Removes what a killed process left unfinished, of writing or of removing. Call it only while nothing else writes to
    /// the folder.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn tidy(&self) -> Result<(), CheckpointError> {
        atomic::tidy(&self.folder).map_err(at(&self.folder))
    }

    /// All complete checkpoints, the oldest first.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn list(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(at(&self.folder))? {
            let path = entry.map_err(at(&self.folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("step-") && path.join(CHECKSUMS).exists() {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Where `snapshot` belongs.
    pub fn target<P>(&self, snapshot: &Snapshot<'_, P>) -> PathBuf {
        self.folder.join(format!("step-{:08}", snapshot.step()))
    }

    /// Writes `snapshot`; it is there whole or not at all.
    ///
    /// # Errors
    /// If the system cannot write it; the checkpoints before stand.
    pub fn save<P: Serialize>(&self, snapshot: &Snapshot<'_, P>) -> Result<PathBuf, CheckpointError> {
        let target = self.target(snapshot);
        if target.join(CHECKSUMS).exists() {
            return Ok(target);
        }
        let cannot = |source| CheckpointError::Write { path: target.clone(), source };
        let fill = |folder: &Path| {
            write_all(folder, snapshot).map_err(|e| match e {
                // The temporary name means nothing to the reader.
                CheckpointError::Io { source, .. } | CheckpointError::Format(FormatError::Io { source, .. }) => {
                    cannot(source)
                }
                other => other,
            })
        };
        atomic::write_folder(&target, fill, cannot)?;
        Ok(target)
    }

    /// Removes the checkpoints that `retention` lets go.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn prune(&self, retention: Retention) -> Result<(), CheckpointError> {
        let all = self.list()?;
        let old = if retention.newest == 0 { 0 } else { all.len().saturating_sub(retention.newest) };
        let stays = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let step = name.strip_prefix("step-").and_then(|step| step.parse::<u64>().ok());
            retention.every > 0 && step.is_some_and(|step| step.is_multiple_of(retention.every))
        };
        for path in all[..old].iter().filter(|path| !stays(path)) {
            atomic::remove_folder(path).map_err(at(path))?;
        }
        Ok(())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path, source }
}

fn write_all<P: Serialize>(folder: &Path, snapshot: &Snapshot<'_, P>) -> Result<(), CheckpointError> {
    let Snapshot { config, is_whole, adapter, weights, moments, state, tokenizer } = snapshot;
    if *is_whole {
        let by_name: HashMap<&str, &[f32]> =
            weights.tensors().map(|(spec, values)| (spec.name.as_str(), values)).collect();
        let options = huggingface::WriteOptions { dtype: DType::F32, shard_bytes: 0 };
        let tensor =
            |spec: &TensorSpec| Ok(Tensor::from_f32(spec.shape.clone(), by_name[spec.name.as_str()].to_vec())?);
        huggingface::write(folder, config, None, &tensor, options, &Threads::single())?;
    } else {
        let path = folder.join(CONFIG);
        let config = huggingface::config_to_json(config, DType::F32);
        atomic::write_file(&path, |file| Ok(serde_json::to_writer_pretty(file, &config)?)).map_err(at(&path))?;
        match adapter {
            Some(adapter) => write_adapter(folder, adapter.as_ref().map_err(AdapterError::clone)?)?,
            None => write_tensors(&folder.join(TRAINED), &[("", weights.specs(), weights.values())])?,
        }
    }
    let [first, second] = moments.each_ref().map(|moments| &moments[..]);
    let specs = weights.specs();
    write_tensors(&folder.join(OPTIMIZER), &[("first.", specs, first), ("second.", specs, second)])?;
    let path = folder.join(STATE);
    atomic::write_file(&path, |file| Ok(serde_json::to_writer(file, state)?)).map_err(at(&path))?;
    for (name, bytes) in tokenizer.files() {
        let path = folder.join(name);
        atomic::write_file(&path, |file| file.write_all(bytes)).map_err(at(&path))?;
    }

    let checksums = checksums(folder)?;
    let path = folder.join(CHECKSUMS);
    atomic::write_file(&path, |file| Ok(serde_json::to_writer_pretty(file, &checksums)?)).map_err(at(&path))
}

/// Writes `adapter` as PEFT does, or as CoreNet does what PEFT cannot express.
fn write_adapter(folder: &Path, adapter: &Adapter) -> Result<(), CheckpointError> {
    match adapter::peft::write(folder, adapter) {
        Err(FormatError::Inexpressible { .. }) => Ok(adapter::corenet::write(folder, adapter)?),
        written => Ok(written?),
    }
}

/// Writes tensors of `f32` to the file at `path`: of each group a prefix of the names, the tensors, and the values, tensor
/// after tensor.
fn write_tensors(path: &Path, groups: &[(&str, &[TensorSpec], &[f32])]) -> Result<(), CheckpointError> {
    let mut views = Vec::new();
    for &(prefix, specs, mut rest) in groups {
        for spec in specs {
            let (values, tail) = rest.split_at(spec.len());
            rest = tail;
            let view = TensorView::new(Dtype::F32, spec.shape.clone(), bytemuck::cast_slice(values));
            views.push((format!("{prefix}{}", spec.name), view.map_err(|e| at(path)(io::Error::other(e)))?));
        }
    }
    let write = |path: &Path| safetensors::serialize_to_file(views, None, path).map_err(io::Error::other);
    atomic::write_path(path, write).map_err(at(path))
}

/// SHA-256 of every file in `folder`, in hexadecimal.
fn checksums(folder: &Path) -> Result<BTreeMap<String, String>, CheckpointError> {
    let mut sums = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name != CHECKSUMS {
            let map = MappedFile::open(&path).map_err(at(&path))?;
            sums.insert(name.to_owned(), sha256_hex(map.as_ref()));
        }
    }
    Ok(sums)
}

/// Reads the checkpoint at `path` into `trainer`, after every file was checked, and gives the run's state.
///
/// # Errors
/// If a file is damaged, or the checkpoint is of another model or tokenizer.
pub(super) fn load<P: DeserializeOwned>(
    path: &Path,
    trainer: &mut Trainer,
    tokenizer: &RunTokenizer,
) -> Result<RunState<P>, CheckpointError> {
    let damaged = |reason: String| CheckpointError::Damaged { path: path.to_owned(), reason };
    let read = |name: &str| std::fs::read(path.join(name)).map_err(at(&path.join(name)));
    let expected: BTreeMap<String, String> =
        serde_json::from_slice(&read(CHECKSUMS)?).map_err(|e| damaged(format!("{CHECKSUMS}: {e}")))?;
    let found = checksums(path)?;
    if let Some((name, _)) = expected.iter().find(|(name, sum)| found.get(*name) != Some(sum)) {
        return Err(damaged(format!("{name} is missing or not as it was written")));
    }
    if let Some(name) = found.keys().find(|name| !expected.contains_key(*name)) {
        return Err(damaged(format!("{name} is not in {CHECKSUMS}")));
    }
    let other = |what: String| CheckpointError::Other { path: path.to_owned(), what };
    // It is as it was written.
    let state: RunState<P> =
        serde_json::from_slice(&read(STATE)?).map_err(|_| other("kind of training, or version".to_owned()))?;
    let is_adapter = adapter::is_in(path);
    let is_part = is_adapter || path.join(TRAINED).exists();
    if is_part == trainer.model().is_whole() || is_adapter != trainer.model().is_adapted() {
        return Err(other("choice of what is trained".to_owned()));
    }
    let config = huggingface::config_from_json(&read(CONFIG)?, &path.join(CONFIG))?;
    if !same_model(&config, trainer.config()) {
        return Err(other(format!("model: {}", differences(&config, trainer.config()))));
    }
    if state.tokenizer != tokenizer.sha256 {
        let (was, is) = (&state.tokenizer, &tokenizer.sha256);
        return Err(other(format!("tokenizer: the SHA-256 of its file was {was:.12}… and is {is:.12}… now")));
    }
    load_weights(path, trainer.restore(state.step))?;
    let file = path.join(OPTIMIZER);
    let map = MappedFile::open(&file).map_err(at(&file))?;
    let wrong = |e| damaged(format!("{OPTIMIZER}: {e}"));
    let moments = SafeTensors::deserialize(map.as_ref()).map_err(|e| wrong(e.to_string()))?;
    let mut start = 0;
    for spec in trainer.parameters().specs().to_vec() {
        let moment = |kind: &str| tensor(&moments, &format!("{kind}.{}", spec.name), &spec).map_err(wrong);
        trainer.restore_moments(start, &moment("first")?, &moment("second")?);
        start += spec.len();
    }
    Ok(state)
}

/// Reads the weights of the checkpoint at `path` into `model`.
fn load_weights(path: &Path, model: &mut TrainableModel) -> Result<(), CheckpointError> {
    if model.is_whole() {
        let stored = huggingface::read(path)?;
        for (spec, values) in model.parameters_mut().tensors_mut() {
            values.copy_from_slice(&stored.tensor(&spec.name)?.to_f32());
        }
        return Ok(());
    }
    if model.is_adapted() {
        let adapter = adapter::open(path, model.config())?;
        return match model.set_adapter(&adapter) {
            true => Ok(()),
            false => Err(CheckpointError::Other { path: path.to_owned(), what: "adapter".to_owned() }),
        };
    }
    let damaged = |reason| CheckpointError::Damaged { path: path.to_owned(), reason: format!("{TRAINED}: {reason}") };
    let file = path.join(TRAINED);
    let map = MappedFile::open(&file).map_err(at(&file))?;
    let trained = SafeTensors::deserialize(map.as_ref()).map_err(|e| damaged(e.to_string()))?;
    let known = model.parameters().specs();
    if trained.len() != known.len() || known.iter().any(|spec| trained.tensor(&spec.name).is_err()) {
        return Err(CheckpointError::Other { path: path.to_owned(), what: "choice of what is trained".to_owned() });
    }
    for (spec, values) in model.parameters_mut().tensors_mut() {
        values.copy_from_slice(&tensor(&trained, &spec.name, spec).map_err(damaged)?);
    }
    Ok(())
}

/// The values of the tensor `name` of `file`, which has the shape of `spec`.
fn tensor(file: &SafeTensors<'_>, name: &str, spec: &TensorSpec) -> Result<Vec<f32>, String> {
    let view = file.tensor(name).map_err(|e| format!("{name}: {e}"))?;
    if view.dtype() != Dtype::F32 || view.shape() != spec.shape {
        return Err(format!("{name} has another shape than the weights"));
    }
    Ok(bytemuck::pod_collect_to_vec(view.data()))
}

/// What is different in two geometries.
fn differences(was: &ModelConfig, is: &ModelConfig) -> String {
    let values = |config: &ModelConfig| {
        let activation = format!("{:?}", config.activation).to_lowercase();
        [
            ("family", config.family.name().to_owned()),
            ("layers", config.layers.len().to_string()),
            ("dim", config.model_dim.to_string()),
            ("head_dim", config.head_dim.to_string()),
            ("gqa_groups", config.gqa_groups.to_string()),
            ("ffn_divisor", config.ffn_divisor.to_string()),
            ("ffn_glu", config.ffn_glu.to_string()),
            ("activation", activation),
            ("qk_norm", (config.qk_norm != QkNorm::None).to_string()),
            ("norm_eps", config.norms.eps.to_string()),
            ("tied_embeddings", config.tied_embeddings.to_string()),
            ("rope_theta", config.rope_theta.to_string()),
            ("rope_max_length", config.rope_max_length.to_string()),
            ("context_length", config.context_length.to_string()),
            ("the vocabulary", config.vocab_size.to_string()),
        ]
    };
    let pairs = values(was).into_iter().zip(values(is));
    let changed = pairs.filter(|(was, is)| was != is);
    let mut found: Vec<String> =
        changed.map(|((name, was), (_, is))| format!("{name} was {was} and is {is} now")).collect();
    let layers = was.layers.iter().zip(&is.layers).enumerate().find(|(_, (was, is))| was != is);
    if let Some((index, (was, is))) = layers {
        let widths = |layer: &LayerConfig| format!("{}, {} and {}", layer.query_heads, layer.kv_heads, layer.ffn_dim);
        found.push(format!(
            "layer {index} had query heads, key/value heads and feed-forward columns of {} and has {} now",
            widths(was),
            widths(is)
        ));
    }
    found.join(", ")
}

/// Whether two geometries have the same tensors and arithmetic.
fn same_model(a: &ModelConfig, b: &ModelConfig) -> bool {
    let known = |config: &ModelConfig| {
        // How the heads were described does not matter once they are known; nor, where no file says it, the networks.
        let mut config = ModelConfig { qkv_multipliers: Multipliers::Uniform(1.0), ..config.clone() };
        if config.family != Family::OpenElm {
            (config.ffn_divisor, config.rope_max_length) = (1, 0);
            config.layers.iter_mut().for_each(|layer| layer.ffn_multiplier = 1.0);
        }
        config
    };
    known(a) == known(b)
}

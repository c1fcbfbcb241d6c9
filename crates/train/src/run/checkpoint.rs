//! The whole state of a run in a folder that is also a model in the Hugging Face layout.
//!
//! ```text
//! step-00001000/  config.json  model.safetensors  tokenizer.model     the model
//!                 optimizer.safetensors                               first and second moments
//!                 state.json                                          counters and the position in the corpus
//!                 checksums.json                                      SHA-256 of each file; written last
//! ```

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use openelm_formats::{FormatError, atomic, huggingface};
use openelm_kernels::{MappedFile, Threads};
use openelm_model::{DType, ModelConfig, Tensor, TensorSpec};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::CheckpointError;
use super::spike::SpikeDetector;
use super::tokenizer::{RunTokenizer, sha256_hex};
use crate::parameters::Parameters;
use crate::trainer::Trainer;

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
        let (config, weights) = (trainer.config().clone(), Cow::Borrowed(trainer.parameters()));
        Self { config, weights, moments, state, tokenizer: tokenizer.clone() }
    }

    /// Copies what is borrowed.
    pub fn into_owned(self) -> Snapshot<'static, P> {
        let Self { config, weights, moments, state, tokenizer } = self;
        Snapshot {
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
pub(super) struct Keep {
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

    /// Removes what a process that was killed left half written or half removed. Nobody else may be writing.
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

    /// Removes the checkpoints that `keep` does not keep.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn prune(&self, keep: Keep) -> Result<(), CheckpointError> {
        let all = self.list()?;
        let old = if keep.newest == 0 { 0 } else { all.len().saturating_sub(keep.newest) };
        let stays = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let step = name.strip_prefix("step-").and_then(|step| step.parse::<u64>().ok());
            keep.every > 0 && step.is_some_and(|step| step.is_multiple_of(keep.every))
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
    let Snapshot { config, weights, moments, state, tokenizer } = snapshot;
    let by_name: HashMap<&str, &[f32]> = weights.tensors().map(|(spec, values)| (spec.name.as_str(), values)).collect();
    let options = huggingface::WriteOptions { dtype: DType::F32, shard_bytes: 0 };
    let tensor = |spec: &TensorSpec| Ok(Tensor::from_f32(spec.shape.clone(), by_name[spec.name.as_str()].to_vec())?);
    huggingface::write(folder, config, None, &tensor, options, &Threads::single())?;

    let mut views = Vec::new();
    for (name, moments) in ["first", "second"].into_iter().zip(moments) {
        let mut rest = &moments[..];
        for (spec, _) in weights.tensors() {
            let (values, tail) = rest.split_at(spec.len());
            rest = tail;
            let view = TensorView::new(Dtype::F32, spec.shape.clone(), bytemuck::cast_slice(values));
            let view = view.map_err(|e| at(&folder.join(OPTIMIZER))(io::Error::other(e)))?;
            views.push((format!("{name}.{}", spec.name), view));
        }
    }
    let path = folder.join(OPTIMIZER);
    let written =
        atomic::write_path(&path, |path| safetensors::serialize_to_file(views, None, path).map_err(io::Error::other));
    written.map_err(at(&path))?;
    let path = folder.join(STATE);
    atomic::write_file(&path, |file| Ok(serde_json::to_writer(file, state)?)).map_err(at(&path))?;
    let path = folder.join(&tokenizer.file_name);
    atomic::write_file(&path, |file| file.write_all(&tokenizer.bytes)).map_err(at(&path))?;

    let checksums = checksums(folder)?;
    let path = folder.join(CHECKSUMS);
    atomic::write_file(&path, |file| Ok(serde_json::to_writer_pretty(file, &checksums)?)).map_err(at(&path))
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
    let state: RunState<P> = serde_json::from_slice(&read(STATE)?).map_err(|e| damaged(format!("{STATE}: {e}")))?;
    let loaded = huggingface::read(path)?;
    if !same_model(&loaded.config, trainer.config()) {
        return Err(CheckpointError::Other { path: path.to_owned(), what: "model" });
    }
    if state.tokenizer != tokenizer.sha256 {
        return Err(CheckpointError::Other { path: path.to_owned(), what: "tokenizer" });
    }
    let map = MappedFile::open(&path.join(OPTIMIZER)).map_err(at(&path.join(OPTIMIZER)))?;
    let moments = SafeTensors::deserialize(map.as_ref()).map_err(|e| damaged(format!("{OPTIMIZER}: {e}")))?;
    let weights = trainer.restore(state.step);
    let (mut places, mut start) = (Vec::new(), 0);
    for (spec, values) in weights.tensors_mut() {
        values.copy_from_slice(&loaded.tensor(&spec.name)?.to_f32());
        places.push((spec.clone(), start));
        start += values.len();
    }
    let moment = |kind: &str, spec: &TensorSpec| -> Result<Vec<f32>, CheckpointError> {
        let name = format!("{kind}.{}", spec.name);
        let view = moments.tensor(&name).map_err(|e| damaged(format!("{OPTIMIZER}: {name}: {e}")))?;
        if view.dtype() != Dtype::F32 || view.shape() != spec.shape {
            return Err(damaged(format!("{OPTIMIZER}: {name} has another shape than the weights")));
        }
        Ok(bytemuck::pod_collect_to_vec(view.data()))
    };
    for (spec, start) in places {
        trainer.restore_moments(start, &moment("first", &spec)?, &moment("second", &spec)?);
    }
    Ok(state)
}

/// Whether two geometries have the same tensors and arithmetic.
fn same_model(a: &ModelConfig, b: &ModelConfig) -> bool {
    // How the heads were described does not matter once they are known.
    ModelConfig { qkv_multipliers: b.qkv_multipliers.clone(), ..a.clone() } == *b
}

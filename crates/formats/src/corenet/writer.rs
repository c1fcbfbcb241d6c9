//! Writing `.pt` files that `torch.load` reads, with `weights_only` too: a stored (uncompressed) zip archive with a pickle of
//! the tensors' names and shapes and one entry per storage.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use openelm_model::kernels::Threads;
use openelm_model::{DType, Encoding, Family, ModelConfig, Tensor, TensorSpec, tensor_specs};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::config::{GeneralGpt, model_name};
use crate::encode::encode;
use crate::{FormatError, atomic, huggingface, shards};

/// The name that `torch.save` gives the folder inside the archive.
const ROOT: &str = "checkpoint_average";

/// Writes `checkpoint_average.pt` and `config.yaml` into `folder`, and `gpt_config.json` for an architecture that CoreNet's
/// table does not have. Tensors are asked for one at a time.
///
/// # Errors
/// If the model is no OpenELM, a value does not fit the dtype, a model is there already, or the system cannot write.
pub fn write(
    folder: &Path,
    config: &ModelConfig,
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    dtype: DType,
    threads: &Threads,
) -> Result<(), FormatError> {
    if config.family != Family::OpenElm {
        let reason =
            format!("CoreNet's format knows OpenELM alone, not {}; write hf, mlx or gguf instead", config.family);
        return Err(FormatError::Inexpressible { reason });
    }
    std::fs::create_dir_all(folder).map_err(FormatError::io(folder))?;
    let (weights, yaml) = (folder.join("checkpoint_average.pt"), folder.join("config.yaml"));
    for path in [&weights, &yaml] {
        if path.exists() {
            return Err(FormatError::Exists { path: path.clone() });
        }
    }
    let known = model_name(config);
    let described = GeneralGpt {
        model_name: known.unwrap_or("custom").to_owned(),
        vocab_size: config.vocab_size,
        max_context_length: config.context_length,
        padding_index: None,
    };
    let inexpressible = |reason| FormatError::Inexpressible { reason };
    let text = described.to_yaml().map_err(inexpressible)?;
    let tensors: Vec<_> = tensor_specs(config).into_iter().map(|spec| (spec, dtype)).collect();
    write_state_dict(&weights, ROOT, &tensors, tensor, threads)?;
    if known.is_none() {
        let resolved = huggingface::config_to_json(config, dtype);
        shards::write_json(&folder.join("gpt_config.json"), &resolved)?;
    }
    atomic::write_file(&yaml, |file| file.write_all(text.as_bytes())).map_err(FormatError::io(&yaml))
}

enum ArchiveError {
    Io(io::Error),
    Tensor(FormatError),
}

impl<E: Into<io::Error>> From<E> for ArchiveError {
    fn from(e: E) -> Self {
        ArchiveError::Io(e.into())
    }
}

/// Writes a state dict of the tensors given, each in its dtype; `root` is the folder inside the archive.
pub(crate) fn write_state_dict(
    target: &Path,
    root: &str,
    tensors: &[(TensorSpec, DType)],
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    threads: &Threads,
) -> Result<(), FormatError> {
    let mut failure = None;
    let written = atomic::write_path(target, |path| {
        let result = write_archive(path, root, tensors, tensor, threads);
        result.map_err(|e| match e {
            ArchiveError::Io(e) => e,
            ArchiveError::Tensor(e) => {
                failure = Some(e);
                io::Error::other("a tensor could not be made")
            }
        })
    });
    match failure {
        Some(failure) => Err(failure),
        None => written.map_err(FormatError::io(target)),
    }
}

fn write_archive(
    path: &Path,
    root: &str,
    tensors: &[(TensorSpec, DType)],
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    threads: &Threads,
) -> Result<(), ArchiveError> {
    let mut archive = ZipWriter::new(Quiet { file: File::create(path)?, at: 0, failed: false });
    // PyTorch maps storages where they lie on 64 bytes.
    let plain = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(64);
    archive.start_file(format!("{root}/data.pkl"), plain)?;
    archive.write_all(&pickle(tensors))?;
    archive.start_file(format!("{root}/byteorder"), plain)?;
    archive.write_all(b"little")?;
    for (i, (spec, dtype)) in tensors.iter().enumerate() {
        let encode = |tensor: Tensor| encode(&tensor, Encoding::Float(*dtype), &spec.name, threads);
        let encoded = tensor(spec).and_then(encode).map_err(ArchiveError::Tensor)?;
        let large = encoded.size() >= u32::MAX as usize;
        archive.start_file(format!("{root}/data/{i}"), plain.large_file(large))?;
        archive.write_all(encoded.bytes())?;
    }
    archive.start_file(format!("{root}/version"), plain)?;
    archive.write_all(b"3\n")?;
    archive.finish()?;
    Ok(())
}

/// A file that takes note when it fails, and from then on only seems to be written: an archive that is given up tries to finish
/// itself, and would complain on standard error of what was reported already.
struct Quiet {
    file: File,
    at: u64,
    failed: bool,
}

impl Quiet {
    /// What `attempt` gives, or `instead` once something failed; then the file seems to be at the place that is given besides.
    fn unless_failed<T>(
        &mut self,
        (instead, place): (T, u64),
        attempt: impl FnOnce(&mut File) -> io::Result<(T, u64)>,
    ) -> io::Result<T> {
        let result = if self.failed { Ok((instead, place)) } else { attempt(&mut self.file) };
        self.failed |= result.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::Interrupted);
        let (value, place) = result?;
        self.at = place;
        Ok(value)
    }
}

impl Write for Quiet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (at, length) = (self.at, bytes.len());
        self.unless_failed((length, at + length as u64), |file| {
            let written = file.write(bytes)?;
            Ok((written, at + written as u64))
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let at = self.at;
        self.unless_failed(((), at), |file| Ok((file.flush()?, at)))
    }
}

impl Seek for Quiet {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let place = match to {
            SeekFrom::Start(place) => place,
            SeekFrom::Current(step) | SeekFrom::End(step) => self.at.saturating_add_signed(step),
        };
        self.unless_failed((place, place), |file| {
            let place = file.seek(to)?;
            Ok((place, place))
        })
    }
}

/// The pickle (protocol 2) of an `OrderedDict` from names to `torch._utils._rebuild_tensor_v2(storage, …)`.
fn pickle(tensors: &[(TensorSpec, DType)]) -> Vec<u8> {
    let mut out = Pickle(vec![0x80, 2]);
    out.ordered_dict();
    out.mark();
    for (i, (spec, dtype)) in tensors.iter().enumerate() {
        let storage = match dtype {
            DType::F32 => "FloatStorage",
            DType::F16 => "HalfStorage",
            DType::BF16 => "BFloat16Storage",
        };
        out.text(&spec.name);
        out.global("torch._utils", "_rebuild_tensor_v2");
        out.mark();
        out.mark();
        out.text("storage");
        out.global("torch", storage);
        out.text(&i.to_string());
        out.text("cpu");
        out.integer(spec.len());
        out.tuple();
        out.0.push(b'Q');
        out.integer(0);
        out.integers(&spec.shape);
        let strides: Vec<usize> = (1..=spec.shape.len()).map(|axis| spec.shape[axis..].iter().product()).collect();
        out.integers(&strides);
        out.0.push(0x89);
        out.ordered_dict();
        out.tuple();
        out.0.push(b'R');
    }
    out.0.extend(b"u.");
    out.0
}

/// The few opcodes that a state dict takes.
struct Pickle(Vec<u8>);

impl Pickle {
    fn mark(&mut self) {
        self.0.push(b'(');
    }

    fn tuple(&mut self) {
        self.0.push(b't');
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend(format!("c{module}\n{name}\n").bytes());
    }

    fn ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.0.extend(b")R");
    }

    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.bytes());
    }

    fn integer(&mut self, value: usize) {
        match i32::try_from(value) {
            Ok(value) => {
                self.0.push(b'J');
                self.0.extend(value.to_le_bytes());
            }
            Err(_) => {
                self.0.extend([0x8a, 9]);
                self.0.extend((value as u64).to_le_bytes());
                self.0.push(0);
            }
        }
    }

    fn integers(&mut self, values: &[usize]) {
        self.mark();
        values.iter().for_each(|&value| self.integer(value));
        self.tuple();
    }
}

//! The model that is measured, as a file that anyone can open: ours and the peer's.

use std::path::{Path, PathBuf};

use openelm_formats::{EmbeddedTokenizer, Format, FormatError, StoredModel, gguf, mlx};
use openelm_model::kernels::Threads;
use openelm_model::sentencepiece::{ModelProto, ModelType, NormalizerSpec, SentencePiece, TrainerSpec, Type};
use openelm_model::{DType, Encoding, ModelConfig, Tensor, TensorSpec, tensor_specs};
use prost::Message;
use tempfile::TempDir;

use crate::{BenchError, RandomModel, WeightFormat};

/// Opens a model, as often as it is loaded.
pub type Opener<'a> = Box<dyn Fn() -> Result<StoredModel, FormatError> + 'a>;

/// Which weights are measured.
pub enum Source<'a> {
    /// Those of a model on disk, as they are stored.
    Stored(Opener<'a>),
    /// Those of a model on disk, in another format.
    Encoded(Opener<'a>, WeightFormat),
    /// Random ones.
    Random(ModelConfig, WeightFormat),
}

impl Source<'_> {
    /// The geometry and the bytes of the weights.
    ///
    /// # Errors
    /// If the model cannot be opened.
    pub fn size(&self) -> Result<(ModelConfig, usize), FormatError> {
        let (config, format) = match self {
            Source::Stored(open) => {
                let stored = open()?;
                let size = stored.size();
                return Ok((stored.config, size));
            }
            Source::Encoded(open, format) => (open()?.config, format),
            Source::Random(config, format) => (config.clone(), format),
        };
        let size = |spec: &TensorSpec| format.encoding_of(spec, config.layers.len()).bytes_of(&spec.shape);
        let size = tensor_specs(&config).iter().filter_map(size).sum();
        Ok((config, size))
    }
}

/// A model in one weight format, ready to be opened.
pub struct Subject<'a> {
    /// The weight format: that of most matrices where they differ.
    pub format: WeightFormat,
    /// Opens the model.
    pub open: Opener<'a>,
    /// The file for llama.cpp, and the format it is in; `None` if it was not asked for or ggml has nothing of that kind.
    pub peer: Option<(PathBuf, WeightFormat)>,
    /// What was written for the benchmark; it goes with the subject.
    _folder: TempDir,
}

impl<'a> Subject<'a> {
    /// Writes into a folder of its own in `scratch` what is not on disk yet: the model in its format, and the file for
    /// llama.cpp if that is asked for.
    ///
    /// # Errors
    /// If the model cannot be opened, or cannot be written in the format.
    pub fn prepare(
        source: &'a Source<'a>,
        scratch: &Path,
        for_peer: bool,
        threads: &Threads,
    ) -> Result<Self, BenchError> {
        let in_scratch = |source| BenchError::Scratch { path: scratch.to_owned(), source };
        let folder = tempfile::Builder::new().prefix("model-").tempdir_in(scratch).map_err(in_scratch)?;
        let (origin, wanted) = match source {
            Source::Stored(open) => (Origin::Stored(Box::new(open()?)), None),
            Source::Encoded(open, format) => (Origin::Stored(Box::new(open()?)), Some(*format)),
            Source::Random(config, format) => (Origin::Random(config), Some(*format)),
        };
        let written = match wanted {
            Some(format) => Some(origin.write(&folder.path().join("model"), format, threads)?),
            None => None,
        };
        let format = wanted.unwrap_or_else(|| origin.format());
        let peer = match format.in_gguf().filter(|_| for_peer).map(WeightFormat::Gguf) {
            Some(gguf) => {
                let there = written.clone().or_else(|| origin.gguf_file()).filter(|_| gguf == format);
                let write = || origin.write(&folder.path().join("peer"), gguf, threads);
                Some((there.map_or_else(write, Ok)?, gguf))
            }
            None => None,
        };
        let open: Opener<'a> = match (written, source) {
            (None, Source::Stored(open)) => Box::new(open),
            (written, _) => {
                let path = written.unwrap_or_default();
                Box::new(move || openelm_formats::open(&path))
            }
        };
        Ok(Self { format, open, peer, _folder: folder })
    }
}

/// What tensors are made from.
enum Origin<'a> {
    Stored(Box<StoredModel>),
    Random(&'a ModelConfig),
}

impl Origin<'_> {
    /// The format of the feed-forward network, where most of the weights are.
    fn format(&self) -> WeightFormat {
        let encoding = match self {
            Origin::Stored(stored) => stored.encoding("layers.0.ffn.proj_1.weight"),
            Origin::Random(_) => None,
        };
        WeightFormat::of(encoding.unwrap_or(Encoding::Float(DType::F32)))
    }

    /// The file, where the model is one that llama.cpp reads.
    fn gguf_file(&self) -> Option<PathBuf> {
        match self {
            Origin::Stored(stored) if stored.format == Format::Gguf => Some(stored.path.clone()),
            _ => None,
        }
    }

    /// Writes the model in `format` to `path`, a new file or folder, and gives the path back.
    fn write(&self, path: &Path, format: WeightFormat, threads: &Threads) -> Result<PathBuf, FormatError> {
        match self {
            Origin::Stored(stored) => {
                write(path, &stored.config, &|spec| stored.tensor(&spec.name), format, threads)?;
            }
            Origin::Random(config) => {
                let random = RandomModel::new(config, format, threads)?;
                write(path, config, &|spec| random.tensor(spec), format, threads)?;
            }
        }
        Ok(path.to_owned())
    }
}

fn write(
    path: &Path,
    config: &ModelConfig,
    tensor: &dyn Fn(&TensorSpec) -> Result<Tensor, FormatError>,
    format: WeightFormat,
    threads: &Threads,
) -> Result<(), FormatError> {
    match format {
        WeightFormat::Gguf(quantisation) => {
            gguf::write(path, "benchmark", config, &tokenizer(config.vocab_size).into(), tensor, quantisation, threads)
        }
        WeightFormat::Mlx(affine) => mlx::write(path, config, None, tensor, DType::F16, Some(affine), threads),
    }
}

/// A SentencePiece model of bytes alone: a GGUF file has to have a tokenizer, but a benchmark puts ids in.
fn tokenizer(rows: usize) -> EmbeddedTokenizer {
    let piece =
        |text: String, kind: Type| SentencePiece { piece: Some(text), score: Some(0.0), r#type: Some(kind as i32) };
    let mut pieces = vec![
        piece("<unk>".to_owned(), Type::Unknown),
        piece("<s>".to_owned(), Type::Control),
        piece("</s>".to_owned(), Type::Control),
    ];
    pieces.extend((0..=255u8).map(|byte| piece(format!("<0x{byte:02X}>"), Type::Byte)));
    pieces.truncate(rows);
    let trainer_spec = TrainerSpec {
        model_type: Some(ModelType::Bpe as i32),
        vocab_size: Some(pieces.len() as i32),
        byte_fallback: Some(true),
        ..TrainerSpec::default()
    };
    let normalizer_spec = NormalizerSpec { remove_extra_whitespaces: Some(false), ..NormalizerSpec::default() };
    let (trainer_spec, normalizer_spec) = (Some(trainer_spec), Some(normalizer_spec));
    let model = ModelProto { pieces, trainer_spec, normalizer_spec, ..ModelProto::default() }.encode_to_vec();
    EmbeddedTokenizer { model: model.into(), adds_bos: true, ends: Vec::new(), chat_template: None }
}

#[cfg(test)]
mod tests {
    use openelm_model::Geometry;
    use openelm_testing::golden;

    use super::*;

    fn prepared<'a>(source: &'a Source<'a>, scratch: &Path) -> Subject<'a> {
        Subject::prepare(source, scratch, true, &Threads::new(2)).unwrap()
    }

    #[test]
    fn random_weights_are_written_for_both_and_removed_again() {
        let scratch = tempfile::tempdir().unwrap();
        let config = Geometry { layers: 2, dim: 256, ..Geometry::default() }.build(300).unwrap();
        for (name, of_peer) in [("q4_k", Some("q4_k")), ("bf16", Some("bf16")), ("mlx4", Some("q4_0")), ("mlx3", None)]
        {
            let source = Source::Random(config.clone(), name.parse().unwrap());
            let subject = prepared(&source, scratch.path());
            assert_eq!(subject.format.to_string(), name);
            let stored = (subject.open)().unwrap();
            assert_eq!(source.size().unwrap().1, stored.size(), "{name}");
            assert_eq!(stored.config.parameters(), config.parameters());
            let peer = subject.peer.as_ref().map(|(path, format)| {
                assert_eq!(openelm_formats::open(path).unwrap().format, Format::Gguf);
                format.to_string()
            });
            assert_eq!(peer.as_deref(), of_peer);
            drop(subject);
            assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "something is left over");
        }
    }

    #[test]
    fn a_stored_model_is_measured_where_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        let open = || openelm_formats::open(&golden("tiny/hf"));
        let source = Source::Stored(Box::new(open));
        let subject = prepared(&source, scratch.path());
        assert_eq!(subject.format.to_string(), "f32");
        assert_eq!((subject.open)().unwrap().path, golden("tiny/hf"));
        let (file, format) = subject.peer.as_ref().unwrap();
        assert_eq!(format.to_string(), "f32");
        let (ours, theirs) = (open().unwrap(), openelm_formats::open(file).unwrap());
        for spec in ours.specs() {
            let values = |stored: &StoredModel| stored.tensor(&spec.name).unwrap().to_f32();
            assert_eq!(values(&ours), values(&theirs), "{}", spec.name);
        }
    }

    #[test]
    fn a_stored_model_is_encoded_where_a_format_is_asked_for() {
        let scratch = tempfile::tempdir().unwrap();
        let source = Source::Encoded(Box::new(|| openelm_formats::open(&golden("tiny/hf"))), "bf16".parse().unwrap());
        let subject = prepared(&source, scratch.path());
        let stored = (subject.open)().unwrap();
        assert_eq!(stored.encoding("layers.0.ffn.proj_1.weight").map(WeightFormat::of), Some(subject.format));
        assert_eq!(stored.size(), source.size().unwrap().1);
        assert_eq!(subject.peer.as_ref().map(|(path, _)| path), Some(&stored.path), "one file serves both");
    }
}

//! What can be wrong with a model on disk.

use std::path::{Path, PathBuf};

use openelm_model::{ConfigError, Encoding, NotFinite};

/// A model that cannot be read or written; the message names the file and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The system could not do what was asked.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The folder has no model in it.
    #[error("{} holds no model: {missing} is missing", path.display())]
    NoModel {
        /// The folder.
        path: PathBuf,
        /// The file that ought to be there.
        missing: String,
    },
    /// A configuration that is not what it should be.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong and what is expected.
        reason: String,
    },
    /// A configuration whose sizes make no model.
    #[error("{}: {source}", path.display())]
    Geometry {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A file that is broken as a whole: truncated, empty, or of another kind.
    #[error("{} is not a sound {kind} file: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the file should be.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// What Git LFS leaves in place of a file that it did not fetch.
    #[error("{} is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository, or download the file", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A tensor that is not what the geometry asks for.
    #[error("tensor {name} in {}: {reason}", path.display())]
    Tensor {
        /// Name in the file.
        name: String,
        /// The file, or the folder if no file holds the tensor.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A value too large for the dtype that was asked for.
    #[error("tensor {name} does not fit {encoding}: it holds {value}; choose bfloat16 or float32")]
    Overflow {
        /// CoreNet's name of the tensor.
        name: String,
        /// The encoding asked for.
        encoding: Encoding,
        /// A value that does not fit.
        value: f32,
    },
    /// A value that is no number, which cannot be quantised.
    #[error("tensor {name} cannot become {encoding}: it holds {value}; the model is damaged")]
    NotFinite {
        /// CoreNet's name of the tensor.
        name: String,
        /// The encoding asked for.
        encoding: Encoding,
        /// Infinity or NaN.
        value: f32,
    },
    /// A model that says nothing, so that it cannot be compared.
    #[error("{}, token {token} of the text: {source}", path.display())]
    Logits {
        /// The model.
        path: PathBuf,
        /// The token of the text behind which it is so, from 1.
        token: usize,
        /// Which logit.
        source: NotFinite,
    },
    /// A model that needs a tokenizer and has none.
    #[error("{} has no tokenizer{what}; give one with --tokenizer", path.display())]
    NoTokenizer {
        /// The model.
        path: PathBuf,
        /// What the tokenizer would have to be, with a space before; or nothing.
        what: &'static str,
    },
    /// A tokenizer of another model.
    #[error("{}: the tokenizer has {pieces} pieces but the model only {rows}; they do not belong together", path.display())]
    Vocabulary {
        /// The model.
        path: PathBuf,
        /// Pieces of the tokenizer.
        pieces: usize,
        /// Rows of the embedding table.
        rows: usize,
    },
    /// A chat template that is none.
    #[error("{}: {source}", path.display())]
    ChatTemplate {
        /// The model, or the file.
        path: PathBuf,
        /// What is wrong with it.
        source: openelm_model::ChatError,
    },
    /// The caller asked to stop.
    #[error("stopped; nothing was written")]
    Stopped,
    /// Something that the format asked for cannot express.
    #[error("{reason}")]
    Inexpressible {
        /// What, and what can be done.
        reason: String,
    },
    /// A path that is no model of a known kind.
    #[error("{} is no model that can be read; known are folders of Hugging Face, MLX and CoreNet, bundles, and .gguf, .pt and .safetensors files", path.display())]
    Unknown {
        /// The path.
        path: PathBuf,
    },
    /// An adapter that does not fit, or makes no sense.
    #[error(transparent)]
    Adapter(#[from] openelm_model::AdapterError),
    /// Tensors that do not make the model they should.
    #[error(transparent)]
    Model(#[from] openelm_model::ModelError),
    /// Bytes that are not the tensor they should be.
    #[error(transparent)]
    Bytes(#[from] openelm_model::TensorError),
    /// A tokenizer that cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] openelm_model::TokenizerError),
    /// Something is there already.
    #[error("{} exists already; choose another name or remove it", path.display())]
    Exists {
        /// The file that would be overwritten.
        path: PathBuf,
    },
}

impl FormatError {
    /// Says which file an error of the system concerns.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| FormatError::Io { path, source }
    }

    /// Says `target` where the system complains of the `temporary` folder that becomes it.
    #[must_use]
    pub fn renamed(self, temporary: &Path, target: &Path) -> Self {
        match self {
            Self::Io { path, source } => {
                let path = path.strip_prefix(temporary).map(|rest| target.join(rest)).unwrap_or(path);
                Self::Io { path, source }
            }
            other => other,
        }
    }
}

//! A first recipe: numbers that suit some texts and this machine, with a tokenizer learnt from the texts.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use openelm_formats::atomic;
use openelm_kernels::{Threads, limits};
use openelm_model::{ConfigError, Tokenizer, TokenizerError, available_memory};

use crate::data::{CorpusConfig, DataError, Shards, Source, documents};
use crate::{Recipe, RecipeError, TokenizerTrainingError, TrainingFootprint, train_tokenizer};

/// Text that the tokenizer learns from, at most, in bytes: more changes little.
const SAMPLE: usize = 64 << 20;
/// Text that tells how many bytes a token has.
const PROBE: usize = 1 << 20;
/// Most times that the texts are read: beyond, a model learns them by heart.
const EPOCHS: f64 = 20.0;
/// Tokens per parameter beyond which a model of its size learns little more.
const TOKENS_PER_PARAMETER: f64 = 20.0;
/// Tokens per parameter below which a smaller model learns more from the same texts.
const LEAST_TOKENS_PER_PARAMETER: f64 = 4.0;
/// How long a first run may take.
const SECONDS: f64 = 30.0 * 60.0;
/// What training reaches of the machine's f32 peak, about.
const SHARE_OF_PEAK: f64 = 0.4;
/// Words that samples begin with.
const PROMPT: usize = 4;
/// Sequences of an update.
const BATCH: usize = 16;

/// Why there is no first recipe.
#[derive(Debug, thiserror::Error)]
pub enum StarterError {
    /// The system could not do what was asked.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A recipe or a tokenizer is there.
    #[error("{} is there already; choose another folder, or remove it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The run would write into what it learns from.
    #[error("{} lies in {texts}, so that the run would learn from what it writes; choose a folder elsewhere", path.display())]
    Within {
        /// The folder.
        path: PathBuf,
        /// The source.
        texts: String,
    },
    /// A path that TOML cannot hold.
    #[error("{}: the name is not UTF-8; choose another folder", path.display())]
    Name {
        /// The folder.
        path: PathBuf,
    },
    /// The texts cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// There is not enough to learn from.
    #[error("these texts are too short to learn from: {bytes} bytes; bring some ten thousand at least")]
    TooShort {
        /// Bytes in them.
        bytes: u64,
    },
    /// The tokenizer could not be learnt.
    #[error(transparent)]
    Training(#[from] TokenizerTrainingError<DataError>),
    /// The tokenizer that was learnt cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The geometry makes no model.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What was written.
#[derive(Debug)]
pub struct Starter {
    /// The recipe.
    pub recipe: PathBuf,
    /// Parameters of the model.
    pub parameters: usize,
    /// Pieces of the tokenizer.
    pub pieces: usize,
    /// Tokens in the texts, about.
    pub tokens: u64,
    /// Updates of the run.
    pub steps: u64,
    /// How long the run takes on this machine, about, in seconds.
    pub seconds: f64,
}

/// A model that a first run may be of.
struct Size {
    layers: usize,
    dim: usize,
    head_dim: usize,
    sequence_length: usize,
    max_lr: f64,
}

/// From the smallest to the largest; the second is the model that is compiled into the command.
const SIZES: [Size; 4] = [
    Size { layers: 6, dim: 128, head_dim: 32, sequence_length: 128, max_lr: 3e-3 },
    Size { layers: 9, dim: 192, head_dim: 32, sequence_length: 256, max_lr: 3e-3 },
    Size { layers: 12, dim: 384, head_dim: 64, sequence_length: 256, max_lr: 2e-3 },
    Size { layers: 16, dim: 640, head_dim: 64, sequence_length: 512, max_lr: 1e-3 },
];

/// The texts, looked at.
struct Texts {
    sources: Vec<Source>,
    /// What samples begin with.
    prompt: String,
    tokenizer: Vec<u8>,
    pieces: usize,
    bytes: f64,
    tokens: f64,
}

/// Learns a tokenizer from `sources` and writes `recipe.toml` and `tokenizer.model` into `folder`; nothing is written if anything
/// fails. `watch` hears how many documents were read.
///
/// # Errors
/// If a recipe or a tokenizer is there, the texts cannot be read or are too short, or a file cannot be written.
pub fn write_starter(
    folder: &Path,
    sources: Vec<Source>,
    threads: &Threads,
    watch: &mut dyn FnMut(u64),
) -> Result<Starter, StarterError> {
    let name = folder.to_str().ok_or_else(|| StarterError::Name { path: folder.to_owned() })?;
    let (recipe, tokenizer) = (folder.join("recipe.toml"), folder.join("tokenizer.model"));
    if let Some(path) = [&recipe, &tokenizer, &folder.join("run")].into_iter().find(|path| path.exists()) {
        return Err(StarterError::Exists { path: path.clone() });
    }
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let within = |source: &&Source| {
        let texts = Path::new(&source.path);
        texts.is_dir() && absolute(folder).starts_with(absolute(texts))
    };
    if let Some(source) = sources.iter().find(within) {
        return Err(StarterError::Within { path: folder.to_owned(), texts: source.path.clone() });
    }
    let texts = Texts::look_at(sources, watch)?;
    let (text, starter) = choose(name, &recipe, &texts, limits::f32_peak(threads))?;

    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| StarterError::Io { path, source }
    };
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    atomic::write_file(&tokenizer, |file| file.write_all(&texts.tokenizer)).map_err(at(&tokenizer))?;
    atomic::write_file(&recipe, |file| file.write_all(text.as_bytes())).map_err(at(&recipe))?;
    Ok(starter)
}

impl Texts {
    fn look_at(sources: Vec<Source>, watch: &mut dyn FnMut(u64)) -> Result<Self, StarterError> {
        let corpus = CorpusConfig::new(sources);
        let stored = Shards::find(&corpus)?.bytes();
        let (mut sample, mut bytes) = (Vec::new(), 0);
        let mut whole = true;
        for document in documents(&corpus)? {
            let document = document?;
            bytes += document.len();
            sample.push(document);
            watch(sample.len() as u64);
            if bytes >= SAMPLE {
                whole = false;
                break;
            }
        }
        // What is compressed is more than this.
        let all = if whole { bytes as f64 } else { (stored as f64).max(bytes as f64) };
        let tokenizer = learn(&sample, vocabulary(all))?;
        let opened = Tokenizer::from_sentencepiece(&tokenizer)?;
        let (mut probed, mut ids) = (0, 0);
        for document in &sample {
            if probed >= PROBE {
                break;
            }
            probed += document.len();
            ids += opened.encode_with(document, true, true).len();
        }
        let tokens = all * ids as f64 / probed.max(1) as f64;
        let prompt = sample.first().map_or_else(String::new, |document| beginning(document));
        Ok(Self { sources: corpus.sources, prompt, tokenizer, pieces: opened.vocab_size(), bytes: all, tokens })
    }
}

/// Pieces that suit so many bytes of text: each should occur often enough to be learnt.
fn vocabulary(bytes: f64) -> usize {
    match bytes {
        ..1e6 => 1024,
        1e6..1e7 => 2048,
        1e7..1e8 => 4096,
        1e8..1e9 => 8192,
        _ => 16384,
    }
}

/// A tokenizer of `vocab_size` pieces, or as many as the texts yield.
fn learn(sample: &[String], vocab_size: usize) -> Result<Vec<u8>, StarterError> {
    let mut vocab_size = vocab_size;
    loop {
        let texts = sample.iter().map(|text| Ok::<_, DataError>(text.clone()));
        match train_tokenizer(texts, vocab_size) {
            Err(TokenizerTrainingError::VocabularyTooSmall { .. } | TokenizerTrainingError::Empty) => {
                return Err(StarterError::TooShort { bytes: sample.iter().map(|text| text.len() as u64).sum() });
            }
            // Fewer pieces leave room for fewer characters, so that even fewer may be found.
            Err(TokenizerTrainingError::CorpusTooSmall { found, .. }) if found < vocab_size => vocab_size = found,
            learnt => return Ok(learnt?),
        }
    }
}

/// The first words of a text's first line that has enough of them, without what only marks them up.
fn beginning(text: &str) -> String {
    let words = |line: &str| -> Vec<String> {
        let words = line.split_whitespace().filter(|word| word.chars().any(char::is_alphabetic));
        words.take(PROMPT).map(str::to_owned).collect()
    };
    let line = text.lines().find(|line| words(line).len() == PROMPT).unwrap_or(text);
    words(line).join(" ")
}

/// The largest size that the texts feed, memory holds and the machine trains in time; otherwise the smallest.
fn choose(folder: &str, path: &Path, texts: &Texts, peak: f64) -> Result<(String, Starter), StarterError> {
    let mut chosen = None;
    for size in &SIZES {
        // A row is one token longer than a sequence.
        if texts.tokens < (2 * size.sequence_length) as f64 {
            break;
        }
        let batch_tokens = (BATCH * size.sequence_length) as f64;
        let write = |steps: u64| -> Result<(String, Recipe, usize), StarterError> {
            let text = recipe(folder, size, texts, steps.max(1));
            let recipe = Recipe::parse(&text, path)?;
            let parameters = recipe.model_config(texts.pieces)?.parameters();
            Ok((text, recipe, parameters))
        };
        let parameters = write(1)?.2 as f64;
        let seconds_per_token = 6.0 * parameters / (SHARE_OF_PEAK * peak);
        let tokens = (TOKENS_PER_PARAMETER * parameters).min(EPOCHS * texts.tokens).min(SECONDS / seconds_per_token);
        let steps = ((tokens / batch_tokens) as u64).max(20);
        let (text, recipe, parameters) = write(steps)?;
        let fits = available_memory().is_none_or(|available| {
            recipe
                .model_config(texts.pieces)
                .is_ok_and(|config| TrainingFootprint::new(&config, &recipe, 1).total() <= available / 2)
        });
        let is_fed = tokens >= LEAST_TOKENS_PER_PARAMETER * parameters as f64;
        if chosen.is_some() && !(fits && is_fed) {
            break;
        }
        let seconds = steps as f64 * batch_tokens * seconds_per_token;
        let (recipe, pieces) = (path.to_owned(), texts.pieces);
        chosen = Some((text, Starter { recipe, parameters, pieces, tokens: texts.tokens as u64, steps, seconds }));
    }
    chosen.ok_or(StarterError::TooShort { bytes: texts.bytes as u64 })
}

/// The recipe, with what one may want to know about its numbers.
fn recipe(folder: &str, size: &Size, texts: &Texts, steps: u64) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let mut sources = String::new();
    for source in &texts.sources {
        let key = if source.text_key == "text" {
            String::new()
        } else {
            format!(", text_key = {}", quoted(&source.text_key))
        };
        // Writing to a text cannot fail.
        let _ = writeln!(sources, "    {{ path = {}{key} }},", quoted(&source.path));
    }
    let inside = |name: &str| quoted(&Path::new(folder).join(name).to_string_lossy());
    let (output, tokenizer) = (inside("run"), inside("tokenizer.model"));
    let Size { layers, dim, head_dim, sequence_length, max_lr } = size;
    let (pieces, tokens, prompt) = (texts.pieces, texts.tokens, quoted(&texts.prompt));
    let warmup = (steps / 15).clamp(1, 200);
    let often = (steps / 50).clamp(1, 20);
    let seldom = (steps / 5).max(1);
    format!(
        r#"# A first training run. Every key there is: docs/recipes.md.
#
#   openelm pretrain {folder}/recipe.toml          trains; the same command again goes on where it stopped
#   openelm plan --train {folder}/recipe.toml      what it takes in memory
#   openelm generate "..." --model {folder}/run/checkpoints/step-...

# Checkpoints and logs.
output = {output}

# Layer-wise scaling: the first layers are thin, the last ones wide. `openelm plan` draws a geometry.
[model]
layers = {layers}
dim = {dim}
head_dim = {head_dim}
gqa_groups = 2                  # query heads that share keys and values
ffn_multipliers = [0.5, 4.0]    # of the first and the last layer
qkv_multipliers = [0.5, 1.0]
ffn_divisor = 16
context_length = {sequence_length}

# Learnt from the texts below: {pieces} pieces.
[tokenizer]
path = {tokenizer}

# About {tokens:.0} tokens.
[data]
sources = [
{sources}]

# Measure progress on texts that are not among those above:
# [validation]
# sources = [{{ path = "held-out/*.txt" }}]

[train]
sequence_length = {sequence_length}
batch_size = {BATCH}                 # sequences of an update
steps = {steps}
precision = "auto"               # of products: bf16 where this processor is faster at it than at f32

[schedule]
max_lr = {max_lr:?}
warmup_steps = {warmup}

[log]
every = {often}
sample_every = {seldom}              # what the model writes by then
prompts = [{prompt}]

[checkpoint]
every = {seldom}
keep = 2
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(folder: &Path, sentences: usize) -> Vec<Source> {
        let nouns = ["cat", "hat", "house", "mouse", "river", "little bear", "lantern", "garden", "story"];
        let sentence = |i: usize| {
            let (a, b) = (nouns[i % 9], nouns[i * 7 % 8]);
            format!("The {a} saw the {b}, and in {} it \"was\" afraid of Été {}.\n\n", 1700 + i % 200, i * i % 1009)
        };
        let path = folder.join("a \"story\".txt");
        std::fs::write(&path, (0..sentences).map(sentence).collect::<String>()).unwrap();
        vec![Source::new(path.to_str().unwrap())]
    }

    #[test]
    fn a_starter_is_a_recipe_that_fits_texts_and_machine() {
        let folder = tempfile::tempdir().unwrap();
        let (at, threads) = (folder.path().join("new/first"), Threads::new(1));
        let starter = write_starter(&at, texts(folder.path(), 3000), &threads, &mut |_| ()).unwrap();
        let recipe = Recipe::load(&starter.recipe, &[]).unwrap();
        assert_eq!(recipe.output, at.join("run"));
        let tokenizer = Tokenizer::open(&recipe.tokenizer.path).unwrap();
        assert_eq!(tokenizer.vocab_size(), starter.pieces);
        assert_eq!(recipe.model_config(starter.pieces).unwrap().parameters(), starter.parameters);
        let learnt = recipe.train.steps * (recipe.train.batch_size * recipe.train.sequence_length) as u64;
        assert!(learnt <= 21 * starter.tokens.max(2000) || recipe.train.steps == 20, "{learnt} of {}", starter.tokens);
        assert_eq!(recipe.log.prompts, ["The cat saw the"]);
        assert_eq!(documents(&recipe.data).unwrap().count(), 13, "the texts are those that were given");

        let before = std::fs::read(&starter.recipe).unwrap();
        let again = write_starter(&at, texts(folder.path(), 3000), &threads, &mut |_| ()).unwrap_err().to_string();
        assert!(again.contains("recipe.toml is there already"), "{again}");
        assert_eq!(std::fs::read(&starter.recipe).unwrap(), before);
    }

    #[test]
    fn nothing_is_left_of_a_starter_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("new/first");
        let fails = |sources| write_starter(&at, sources, &Threads::new(1), &mut |_| ()).unwrap_err().to_string();
        assert!(fails(vec![Source::new("nowhere/*.txt")]).contains("no file matches"));
        let short = fails(texts(folder.path(), 1));
        assert!(short.contains("these texts are too short to learn from: 60 bytes"), "{short}");
        assert!(!folder.path().join("new").exists());
    }
}

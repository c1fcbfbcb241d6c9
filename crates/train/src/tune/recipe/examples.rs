//! What a recipe says of what is learnt from.

use serde::{Deserialize, Serialize};

use crate::data::{CorpusConfig, Format, OnError, Source};
use crate::recipe::RecipeError;
use crate::recipe::checks::{at_least_one, require};
use crate::tune::template::TemplateChoice;

/// What is learnt from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExamplesRecipe {
    /// Where the examples are.
    pub sources: Vec<RowSource>,
    /// Examples that progress is measured on, and nothing is learnt from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub validation: Vec<RowSource>,
    /// Share of the examples of `sources` that are held out in their place.
    #[serde(default)]
    pub held_out: f64,
    /// How an example becomes text; by what kind of example it is where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateChoice>,
    /// Which tokens are learnt.
    #[serde(default)]
    pub learn: Learn,
    /// Most tokens of an example; the model's context where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_length: Option<usize>,
    /// Of pairs that are too long, the most tokens of a prompt, whose end is kept; half of `max_length` where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_prompt_length: Option<usize>,
    /// What is done with an example that is too long.
    #[serde(default)]
    pub too_long: TooLong,
    /// Whether examples share a row, without seeing each other.
    #[serde(default = "yes")]
    pub packing: bool,
    /// What is done with a row that is no example.
    #[serde(default)]
    pub on_error: OnError,
}

fn yes() -> bool {
    true
}

impl ExamplesRecipe {
    /// Examples of `sources`, everything else by default.
    pub fn new(sources: Vec<RowSource>) -> Self {
        Self {
            sources,
            validation: Vec::new(),
            held_out: 0.0,
            template: None,
            learn: Learn::default(),
            max_length: None,
            max_prompt_length: None,
            too_long: TooLong::default(),
            packing: true,
            on_error: OnError::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), RecipeError> {
        require(!self.sources.is_empty(), "data.sources", "empty", "a run needs something to learn from")?;
        let share = (0.0..1.0).contains(&self.held_out);
        require(share, "data.held_out", self.held_out, "it must be at least 0 and below 1")?;
        let one = self.held_out == 0.0 || self.validation.is_empty();
        require(one, "data.held_out", self.held_out, "name data.validation or hold out a share, not both")?;
        let length = self.max_length.unwrap_or(2);
        require(length >= 2, "data.max_length", length, "it must be at least 2")?;
        let prompt = self.max_prompt_length.unwrap_or(1);
        at_least_one("data.max_prompt_length", prompt as u64)?;
        let fits = self.max_length.is_none_or(|length| prompt < length);
        require(fits, "data.max_prompt_length", prompt, "it must be less than data.max_length")
    }
}

/// Files of rows: JSONL, JSON lists or Parquet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowSource {
    /// A file, a pattern or a folder, as for a corpus.
    pub path: String,
    /// What the files are, where their names do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

impl RowSource {
    /// As a corpus has it.
    pub(crate) fn corpus(sources: &[Self]) -> CorpusConfig {
        let source = |source: &Self| Source { format: source.format, ..Source::new(&source.path) };
        CorpusConfig::new(sources.iter().map(source).collect())
    }
}

/// Which tokens are learnt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Learn {
    /// Those of the answers, with the token that ends each.
    #[default]
    Answers,
    /// All.
    All,
}

/// What is done with an example that is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// The run is refused.
    #[default]
    Refuse,
    /// Its end is cut off; of pairs the beginning of the prompt first.
    Cut,
    /// It is left out.
    Drop,
}

//! What a recipe says of the template.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::named::TemplateName;

/// The template of a recipe, one word in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum TemplateChoice {
    /// One that is built in.
    Named(TemplateName),
    /// The model's own: the chat template that comes with it, or the one that OpenELM's were tuned with.
    Model,
    /// A chat template in Jinja.
    File(PathBuf),
}

/// The word for the model's own template.
const MODEL: &str = "model";

impl From<String> for TemplateChoice {
    fn from(word: String) -> Self {
        let Ok(choice) = word.parse();
        choice
    }
}

impl FromStr for TemplateChoice {
    type Err = Infallible;

    /// Any word that is no name is a path.
    fn from_str(word: &str) -> Result<Self, Infallible> {
        let named = TemplateName::ALL.into_iter().find(|name| name.word() == word);
        Ok(match named {
            Some(name) => Self::Named(name),
            None if word == MODEL => Self::Model,
            None => Self::File(word.into()),
        })
    }
}

impl From<TemplateChoice> for String {
    fn from(choice: TemplateChoice) -> Self {
        match choice {
            TemplateChoice::Named(name) => name.word().to_owned(),
            TemplateChoice::Model => MODEL.to_owned(),
            TemplateChoice::File(path) => path.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_choice_and_comes_back() {
        for word in ["openelm-instruct", "alpaca", "corenet-commonsense", "plain", "model", "mine.jinja"] {
            let choice = TemplateChoice::from(word.to_owned());
            assert_eq!(matches!(choice, TemplateChoice::File(_)), word.contains('.'));
            assert_eq!(String::from(choice), word);
        }
    }
}

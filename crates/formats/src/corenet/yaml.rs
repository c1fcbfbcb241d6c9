//! CoreNet's configuration as the YAML file that it is.

use std::path::{Path, PathBuf};

use openelm_model::ModelConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::GeneralGpt;
use crate::huggingface::geometry_from_json;
use crate::{FormatError, text};

#[derive(Serialize, Deserialize)]
struct Yaml {
    model: Model,
}

#[derive(Serialize, Deserialize)]
struct Model {
    language_modeling: LanguageModeling,
}

#[derive(Serialize, Deserialize)]
struct LanguageModeling {
    name: String,
    general_gpt: GeneralGpt,
}

impl GeneralGpt {
    /// The YAML file at `path`; `None` if it configures something else.
    pub fn from_yaml(path: &Path) -> Result<Option<Self>, FormatError> {
        let yaml: Option<Yaml> = part_of_yaml(path, "general_gpt:")?;
        Ok(yaml.map(|yaml| yaml.model.language_modeling.general_gpt))
    }

    /// As the YAML that CoreNet reads.
    pub fn to_yaml(&self) -> Result<String, String> {
        let general_gpt = self.clone();
        let language_modeling = LanguageModeling { name: "general_gpt".to_owned(), general_gpt };
        serde_saphyr::to_string(&Yaml { model: Model { language_modeling } }).map_err(|e| e.to_string())
    }

    /// The architecture, if it is one that CoreNet's table has, or is described by a JSON file in `folder`.
    pub fn architecture(&self, folder: &Path) -> Result<Option<ModelConfig>, FormatError> {
        match self.architecture_in_table() {
            Some(known) => Ok(Some(known)),
            None => Ok(described(folder)?.map(|described| self.sized(described))),
        }
    }
}

/// The resolved `GPTConfig` (or `config.json`) in `folder`: it has all the keys that the table would have.
fn described(folder: &Path) -> Result<Option<ModelConfig>, FormatError> {
    for name in ["gpt_config.json", "config.json"] {
        let path = folder.join(name);
        if path.exists() {
            let text = text::read(&path)?;
            return geometry_from_json(&text, &path).map(Some);
        }
    }
    Ok(None)
}

/// The configuration in `folder`: `config.yaml`, or the first YAML file that configures a language model.
pub(crate) fn general_gpt(folder: &Path) -> Result<Option<GeneralGpt>, FormatError> {
    for path in yaml_files(folder)? {
        if let Some(found) = GeneralGpt::from_yaml(&path)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What a YAML file says of what `T` asks for. A file that does not speak of `key` may be anything: it says nothing.
pub(crate) fn part_of_yaml<T: DeserializeOwned>(path: &Path, key: &str) -> Result<Option<T>, FormatError> {
    let wrong = |reason: String| FormatError::Config { path: path.to_owned(), reason };
    let text = String::from_utf8(text::read(path)?).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
    // Configurations repeat numbers by aliases, not whole trees: a hundredth of the library's own limits is plenty.
    let budget = serde_saphyr::budget! { max_events: 100_000, max_recorded_anchor_events: 10_000 };
    let options = serde_saphyr::options! { budget: budget, with_snippet: false };
    match serde_saphyr::from_str_with_options(&text, options) {
        Ok(found) => Ok(Some(found)),
        Err(e) if text.contains(key) => Err(wrong(e.to_string())),
        Err(_) => Ok(None),
    }
}

/// The YAML files in `folder`, `config.yaml` first.
pub(crate) fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, FormatError> {
    let entries = std::fs::read_dir(folder).map_err(FormatError::io(folder))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    files.sort_by_key(|path| (!path.ends_with("config.yaml"), path.clone()));
    Ok(files)
}

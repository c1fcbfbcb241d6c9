//! OpenELM's tokenizer: LLaMA's, which none of Apple's repositories holds.

use std::path::Path;

use crate::HubError;
use crate::client::Client;
use crate::event::OnEvent;
use crate::name::Repository;
use crate::repository::{Entry, entry};
use crate::settings::Settings;

/// Which tokenizer a pulled model gets.
#[derive(Debug, Clone, Default)]
pub enum TokenizerChoice {
    /// LLaMA's for an OpenELM that comes without one.
    #[default]
    Llama,
    /// That of a repository.
    Of(Repository),
    /// None but its own.
    None,
}

/// The file of LLaMA 1 and 2 that OpenELM was trained with: 32000 pieces.
const LLAMA_SHA256: &str = "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347";
const LLAMA_BYTES: u64 = 499_723;

/// Public repositories under open licences (Apache 2.0, MIT) that hold this very file, in the order they are asked.
const LLAMA_REPOSITORIES: [&str; 2] = ["TinyLlama/TinyLlama-1.1B-Chat-v1.0", "microsoft/Phi-3-mini-4k-instruct"];

/// The file's name beside a model.
const SENTENCEPIECE: &str = "tokenizer.model";
const TOKENIZER_JSON: &str = "tokenizer.json";

/// Whether `folder` holds a tokenizer.
pub(crate) fn is_in(folder: &Path) -> bool {
    folder.join(SENTENCEPIECE).exists() || folder.join(TOKENIZER_JSON).exists()
}

/// Whether `folder` holds an OpenELM by its configuration: only for that one LLaMA's tokenizer is known to be right.
pub(crate) fn is_of_openelm(folder: &Path) -> bool {
    let config = std::fs::read(folder.join("config.json")).ok();
    let config: Option<serde_json::Value> = config.and_then(|text| serde_json::from_slice(&text).ok());
    config.is_some_and(|config| config["model_type"] == "openelm")
}

/// Fetches from the first of `entries` that gives the file; another one's turn comes if it is not there or not the file.
pub(crate) fn first_of(
    entries: &[Entry],
    mut fetch: impl FnMut(&Entry) -> Result<(), HubError>,
) -> Result<Option<&Entry>, HubError> {
    let mut refusal = None;
    for entry in entries {
        match fetch(entry) {
            Ok(()) => return Ok(Some(entry)),
            Err(
                e @ (HubError::NotFound { .. }
                | HubError::Refused { .. }
                | HubError::Length { .. }
                | HubError::Hash { .. }
                | HubError::Damaged { .. }),
            ) => refusal = Some(e),
            Err(e) => return Err(e),
        }
    }
    refusal.map_or(Ok(None), Err)
}

/// Where the chosen tokenizer can be had, in the order to try.
pub(crate) fn entries(
    client: &Client,
    settings: &Settings,
    choice: &TokenizerChoice,
    on_event: &mut OnEvent,
) -> Result<Vec<Entry>, HubError> {
    match choice {
        TokenizerChoice::None => Ok(Vec::new()),
        TokenizerChoice::Of(Repository { id, revision }) => {
            let found = match entry(client, settings, id, revision, SENTENCEPIECE, on_event) {
                Err(HubError::NotFound { .. }) => entry(client, settings, id, revision, TOKENIZER_JSON, on_event),
                found => found,
            };
            Ok(vec![found?])
        }
        TokenizerChoice::Llama => {
            let entry = |id| Entry {
                file: SENTENCEPIECE.to_owned(),
                url: format!("{}/{id}/resolve/main/{SENTENCEPIECE}", settings.endpoint),
                etag: LLAMA_SHA256.to_owned(),
                size: Some(LLAMA_BYTES),
            };
            Ok(LLAMA_REPOSITORIES.map(entry).into())
        }
    }
}

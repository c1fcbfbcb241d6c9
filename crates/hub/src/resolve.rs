//! From what a user calls a model to where it is. Nothing is fetched.

use std::path::PathBuf;

use crate::HubError;
use crate::name::Name;
use crate::pull::here;
use crate::settings::Settings;

/// The folder of the model that was pulled by `name`.
///
/// # Errors
/// [`HubError::NotHere`] if there is none; it says how to pull it.
pub fn resolve(name: &str, settings: &Settings) -> Result<PathBuf, HubError> {
    let parsed = Name::parse(name).ok();
    if let Some(folder) = parsed.as_ref().and_then(|name| here(name, settings)) {
        return Ok(folder);
    }
    let advice = match parsed {
        Some(name) => format!("`openelm pull {name}` fetches it"),
        None => "`openelm pull --list` shows what can be pulled".to_owned(),
    };
    Err(HubError::NotHere { name: name.to_owned(), advice })
}

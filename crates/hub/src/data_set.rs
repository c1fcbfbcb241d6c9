//! Data sets of the hub, split by split, as it keeps all of them in Parquet.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::HubError;
use crate::cache::CachedRepository;
use crate::client::Client;
use crate::download::fetch;
use crate::event::{Event, OnEvent};
use crate::name::Repository;
use crate::repository::{entry, list};
use crate::settings::Settings;

/// Splits that a message lists, at most.
const NAMES: usize = 12;

/// Fetches what is not here yet of a split of the data set `name`, `owner/name`, and gives its Parquet files in order.
///
/// # Errors
/// See [`HubError`].
pub fn pull_split(
    name: &str,
    config: &str,
    split: &str,
    settings: &Settings,
    on_event: &mut OnEvent,
) -> Result<Vec<PathBuf>, HubError> {
    let repository = Repository::of_data_set(name)?;
    let cache = CachedRepository::new(settings, &repository);
    // A revision that is here does not change: the hub is not asked each time.
    let files = |folder: PathBuf| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder.join(config).join(split)).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files
    };
    let here = cache.snapshot().map(files).unwrap_or_default();
    if !here.is_empty() && here.iter().all(|file| file.exists()) {
        return Ok(here);
    }
    if settings.offline {
        return Err(HubError::Offline { name: name.to_owned() });
    }
    let client = Client::new(settings)?;
    let listing = list(&client, settings, &repository, on_event)?;
    let begins = format!("{config}/{split}/");
    let wanted: Vec<&String> = listing.files.iter().filter(|file| file.starts_with(&begins)).collect();
    if wanted.is_empty() {
        let folders = listing.files.iter().filter_map(|file| file.rsplit_once('/'));
        let there: BTreeSet<&str> = folders.map(|(folder, _)| folder).collect();
        let mut names: Vec<&str> = there.iter().copied().take(NAMES).collect();
        names.extend((there.len() > NAMES).then_some("others"));
        let (name, config, split) = (name.to_owned(), config.to_owned(), split.to_owned());
        return Err(HubError::NoSplit { name, config, split, there: names.join(", ") });
    }
    cache.prepare()?;
    let mut entries = Vec::new();
    for file in wanted {
        entries.push(entry(&client, settings, &repository.id, &listing.commit, file, on_event)?);
    }
    let size = entries.iter().map(|entry| entry.size).sum();
    let is_here = |entry: &&crate::repository::Entry| cache.wanted(entry, &cache.blob(&entry.etag)).is_here();
    on_event(Event::Planned { files: entries.len(), size, here: entries.iter().filter(is_here).count() });
    for entry in &entries {
        let blob = cache.blob(&entry.etag);
        fetch(&client, cache.wanted(entry, &blob), false, on_event)?;
    }
    let folder = cache.link(&listing.commit, &entries)?;
    cache.refer(&listing.commit)?;
    Ok(files(folder))
}

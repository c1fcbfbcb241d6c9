//! From a name to a folder with a model.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use glob::Pattern;
use openelm_formats::atomic;

use crate::HubError;
use crate::cache::CachedRepository;
use crate::client::Client;
use crate::corenet::{CONFIG, CoreNetModel, file_name};
use crate::download::{Wanted, fetch};
use crate::event::{Event, OnEvent};
use crate::name::{Name, Repository};
use crate::repository::{Entry, entry, list};
use crate::select::select;
use crate::settings::Settings;
use crate::tokenizer::{self, TokenizerChoice};

/// How to pull a model.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Which of a repository's weights to pull, if not all.
    pub files: Vec<Pattern>,
    /// Which tokenizer to put beside the model.
    pub tokenizer: TokenizerChoice,
    /// Whether to fetch again what is here.
    pub force: bool,
}

/// Fetches what is not here yet of a model and its tokenizer, and gives the folder that holds it. What was fetched before an
/// error stays: the next call goes on from there.
///
/// # Errors
/// See [`HubError`].
pub fn pull(
    name: &Name,
    options: &PullOptions,
    settings: &Settings,
    on_event: &mut OnEvent,
) -> Result<PathBuf, HubError> {
    if settings.offline {
        return here(name, settings).ok_or_else(|| HubError::Offline { name: name.to_string() });
    }
    let client = Client::new(settings)?;
    match name {
        Name::Repository(repository) => pull_repository(repository, options, &client, settings, on_event),
        Name::CoreNet(model) => pull_corenet(model, options, &client, settings, on_event),
    }
}

/// The folder of a model that was pulled.
pub(crate) fn here(name: &Name, settings: &Settings) -> Option<PathBuf> {
    match name {
        Name::Repository(repository) => CachedRepository::new(settings, repository).snapshot(),
        Name::CoreNet(model) => model.is_here(settings).then(|| model.folder(settings)),
    }
}

fn pull_repository(
    repository: &Repository,
    options: &PullOptions,
    client: &Client,
    settings: &Settings,
    on_event: &mut OnEvent,
) -> Result<PathBuf, HubError> {
    let listing = list(client, settings, repository, on_event)?;
    let mut entries = Vec::new();
    for file in select(&repository.to_string(), &listing.files, &options.files)? {
        entries.push(entry(client, settings, &repository.id, &listing.commit, &file, on_event)?);
    }
    let cache = CachedRepository::new(settings, repository);
    cache.prepare()?;
    let is_here = |entry: &&Entry| !options.force && cache.wanted(entry, &cache.blob(&entry.etag)).is_here();
    let here = entries.iter().filter(is_here).count();
    let size = entries.iter().map(|entry| entry.size).sum();
    on_event(Event::Planned { files: entries.len(), size, here });
    let fetch_entry = |entry: &Entry, on_event: &mut OnEvent| {
        let blob = cache.blob(&entry.etag);
        fetch(client, cache.wanted(entry, &blob), options.force, on_event)
    };
    for entry in &entries {
        fetch_entry(entry, on_event)?;
    }
    // Only now: whoever finds the folder finds the whole model.
    let folder = cache.link(&listing.commit, &entries)?;
    cache.refer(&listing.commit)?;

    let wanted = match options.tokenizer {
        TokenizerChoice::Llama => !tokenizer::is_in(&folder) && tokenizer::is_of_openelm(&folder),
        TokenizerChoice::Of(_) => true,
        TokenizerChoice::None => false,
    };
    if wanted {
        let entries = tokenizer::entries(client, settings, &options.tokenizer, on_event).map_err(without_tokenizer)?;
        let found = tokenizer::first_of(&entries, |entry| fetch_entry(entry, on_event)).map_err(without_tokenizer)?;
        cache.link(&listing.commit, found.map(std::slice::from_ref).unwrap_or_default())?;
    }
    Ok(folder)
}

fn pull_corenet(
    model: &CoreNetModel,
    options: &PullOptions,
    client: &Client,
    settings: &Settings,
    on_event: &mut OnEvent,
) -> Result<PathBuf, HubError> {
    let PullOptions { tokenizer: choice, force, .. } = options;
    let folder = model.folder(settings);
    fs::create_dir_all(&folder).map_err(HubError::io(&folder))?;
    let files = model.files();
    let is_here = |file: &&String| {
        let target = folder.join(file_name(file));
        !force && wanted_in(&folder, file_name(file), "", &target).is_here()
    };
    on_event(Event::Planned { files: files.len(), size: None, here: files.iter().filter(is_here).count() });
    for file in &files {
        let url = format!("{}/{file}", settings.corenet_endpoint);
        let target = folder.join(file_name(file));
        fetch(client, wanted_in(&folder, file_name(file), &url, &target), *force, on_event)?;
    }
    let path = folder.join(CONFIG);
    if let Some(yaml) = model.yaml().filter(|yaml| fs::read(&path).ok().as_deref() != Some(yaml.as_bytes())) {
        atomic::write_file(&path, |file| file.write_all(yaml.as_bytes())).map_err(HubError::io(&path))?;
    }
    if model.is_model() && (!tokenizer::is_in(&folder) || matches!(choice, TokenizerChoice::Of(_))) {
        let entries = tokenizer::entries(client, settings, choice, on_event).map_err(without_tokenizer)?;
        let fetched = tokenizer::first_of(&entries, |entry| {
            let target = folder.join(&entry.file);
            let plain = wanted_in(&folder, &entry.file, &entry.url, &target);
            fetch(client, Wanted { size: entry.size, hash: entry.hash(), ..plain }, *force, on_event)
        });
        fetched.map_err(without_tokenizer)?;
    }
    Ok(folder)
}

/// A file that is fetched to a folder of its own, of which nothing is known.
fn wanted_in<'a>(folder: &Path, file: &'a str, url: &'a str, target: &'a Path) -> Wanted<'a> {
    let (part, lock) = (folder.join(format!("{file}.part")), folder.join(".lock"));
    Wanted { file, url, size: None, hash: None, target, part, lock }
}

fn without_tokenizer(error: HubError) -> HubError {
    HubError::Tokenizer { error: Box::new(error) }
}

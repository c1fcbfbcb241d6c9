//! What the hub says of a repository and its files.

use serde::Deserialize;

use crate::HubError;
use crate::check::KnownHash;
use crate::client::{Client, patiently};
use crate::event::OnEvent;
use crate::name::{Repository, is_sound};
use crate::settings::Settings;

/// The longest list of files that is read, in bytes.
const LIST_BYTES: u64 = 16 << 20;

/// A repository as it is at a commit.
pub(crate) struct Listing {
    /// The commit: 40 hexadecimal digits.
    pub commit: String,
    /// Names of all files in the top folder; of a data set, of all files.
    pub files: Vec<String>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name.
    pub file: String,
    /// Its address.
    pub url: String,
    /// What the cache calls its content.
    pub etag: String,
    /// Its bytes.
    pub size: Option<u64>,
}

impl Entry {
    /// What the hub tells of the content: its SHA-256 for the large files that it keeps apart from git, git's own hash for the
    /// others.
    pub(crate) fn hash(&self) -> Option<KnownHash<'_>> {
        match self.etag.as_str() {
            etag if is_hexadecimal(etag, 64) => Some(KnownHash::Sha256(etag)),
            etag if is_hexadecimal(etag, 40) => Some(KnownHash::Git(etag)),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// What is in a repository.
pub(crate) fn list(
    client: &Client,
    settings: &Settings,
    repository: &Repository,
    on_event: &mut OnEvent,
) -> Result<Listing, HubError> {
    let (endpoint, id) = (&settings.endpoint, &repository.id);
    let kind = if repository.is_data_set() { "" } else { "models/" };
    let url = format!("{endpoint}/api/{kind}{id}/revision/{}", repository.revision.replace('/', "%2F"));
    let wrong = |reason: String| HubError::Answer { url: url.clone(), reason };
    let result = patiently(settings.patience, on_event, || {
        let mut response = client.get(&url, &[])?;
        if !response.status().is_success() {
            return Err(client.refusal(&url, &response));
        }
        let text = response.body_mut().with_config().limit(LIST_BYTES).read_to_vec();
        let text = text.map_err(|e| HubError::Connection { url: url.clone(), reason: e.to_string() })?;
        serde_json::from_slice::<Info>(&text).map_err(|e| wrong(format!("no list of files: {e}")))
    });
    let info = match result {
        Err(HubError::NotFound { .. }) => {
            return Err(HubError::NoRepository { endpoint: endpoint.clone(), name: repository.to_string() });
        }
        result => result?,
    };
    if !is_hexadecimal(&info.sha, 40) {
        return Err(wrong(format!("{:?} is no commit", info.sha)));
    }
    // Files in folders are other models, or the same in formats of other tools; those of a data set are its splits.
    let wanted = |file: &String| match repository.is_data_set() {
        true => file.split('/').all(is_sound),
        false => is_sound(file),
    };
    let files = info.siblings.into_iter().map(|sibling| sibling.rfilename).filter(wanted);
    Ok(Listing { commit: info.sha, files: files.collect() })
}

/// What the hub says of a file at a commit or another revision.
pub(crate) fn entry(
    client: &Client,
    settings: &Settings,
    id: &str,
    revision: &str,
    file: &str,
    on_event: &mut OnEvent,
) -> Result<Entry, HubError> {
    let url = format!("{}/{id}/resolve/{}/{file}", settings.endpoint, revision.replace('/', "%2F"));
    let headers = patiently(settings.patience, on_event, || client.head(&url))?;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let etag = text("x-linked-etag").or_else(|| text("etag")).unwrap_or_default();
    let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
    if !is_sound(&etag) {
        return Err(HubError::Answer { url, reason: format!("{etag:?} is no ETag") });
    }
    // Behind a redirect the length is that of the redirect.
    let length = if headers.contains_key("location") { None } else { text("content-length") };
    let size = text("x-linked-size").or(length).and_then(|size| size.parse().ok());
    Ok(Entry { file: file.to_owned(), url, etag, size })
}

fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

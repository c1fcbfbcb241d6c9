//! One file from one address: streamed, resumed, checked, and then given its name.

use std::io::Read;
use std::path::{Path, PathBuf};

use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode};

use crate::HubError;
use crate::check::{KnownHash, check, same_hash};
use crate::client::{Attempts, Client};
use crate::event::{Event, OnEvent};
use crate::lock::lock;
use crate::part::Part;

/// An attempt that brought as much as this counts as none that failed.
const HEADWAY: u64 = 1 << 20;

/// A file to fetch.
pub(crate) struct Wanted<'a> {
    /// What to call it before the user.
    pub file: &'a str,
    /// Its address.
    pub url: &'a str,
    /// Its bytes, if they are known beforehand.
    pub size: Option<u64>,
    /// Its hash, if one is known beforehand.
    pub hash: Option<KnownHash<'a>>,
    /// Where to put it.
    pub target: &'a Path,
    /// Where it is until it is whole.
    pub part: PathBuf,
    /// The file to lock meanwhile.
    pub lock: PathBuf,
}

impl Wanted<'_> {
    /// Whether the file is here: it has its name, and is whole as far as that can be told without reading weights.
    pub(crate) fn is_here(&self) -> bool {
        let Ok(found) = self.target.metadata() else { return false };
        self.size.is_none_or(|size| size == found.len())
            && match self.hash {
                Some(KnownHash::Sha256(_)) => true,
                hash => check(self.file, self.target, hash).is_ok(),
            }
    }
}

/// Fetches a file, unless it is here or `anew` asks for it all the same. What came before an error stays in the part: a second call goes on from there if the
/// server still has the same file, which its hash or the server's `ETag` or `Last-Modified` tells.
///
/// # Errors
/// See [`HubError`]. The target is whole and checked, or it is not there.
pub(crate) fn fetch(client: &Client, wanted: Wanted, anew: bool, on_event: &mut OnEvent) -> Result<(), HubError> {
    // Before the lock, for which the folder has to be written to.
    if !anew && wanted.is_here() {
        return Ok(());
    }
    let _lock = lock(&wanted.lock, wanted.file)?;
    if !anew && wanted.is_here() {
        return Ok(());
    }
    let mut part = Part::open(wanted.part.clone())?;
    if anew {
        part.restart(None)?;
    }
    let mut attempts = Attempts::new(client.patience());
    loop {
        let before = part.length();
        match attempt(client, &wanted, &mut part, on_event) {
            Ok(()) => break,
            Err(error) => {
                if part.length() >= before + HEADWAY {
                    attempts = Attempts::new(client.patience());
                }
                attempts.again(error, on_event)?;
            }
        }
    }
    let (size, sha256) = (part.length(), part.sha256());
    let checked = match wanted.hash {
        Some(KnownHash::Sha256(expected)) => same_hash(wanted.file, "SHA-256", expected, &sha256),
        hash => check(wanted.file, part.path(), hash),
    };
    if let Err(error) = checked {
        part.discard()?;
        return Err(error);
    }
    part.finish(wanted.target)?;
    on_event(Event::Finished { file: wanted.file, size, sha256: &sha256, checked: wanted.hash.is_some() });
    Ok(())
}

/// One request: after it all bytes are in the part, or an error says why not.
fn attempt(client: &Client, wanted: &Wanted, part: &mut Part, on_event: &mut OnEvent) -> Result<(), HubError> {
    let tag = part.tag();
    // Bytes of a file that can be another one by now are of no use.
    let resumable = wanted.hash.is_some() || tag.is_some();
    if !resumable || wanted.size.is_some_and(|size| part.length() > size) {
        part.restart(None)?;
    }
    let from = part.length();
    if from > 0 && wanted.size == Some(from) {
        return Ok(());
    }
    let range = format!("bytes={from}-");
    let mut headers = Vec::new();
    if from > 0 {
        headers.push(("range", range.as_str()));
        // A hash tells at the end, whichever of its machines the server answers from.
        headers.extend(tag.as_deref().filter(|_| wanted.hash.is_none()).map(|tag| ("if-range", tag)));
    }
    let response = client.get(wanted.url, &headers)?;
    let answer = |reason: &str| HubError::Answer { url: wanted.url.to_owned(), reason: reason.to_owned() };
    let total = match response.status() {
        StatusCode::OK => response.body().content_length(),
        StatusCode::PARTIAL_CONTENT if from > 0 => match content_range(response.headers()) {
            Some((start, total)) if start == from && same_state(&response, wanted, tag.as_deref()) => total,
            // Another piece than the one asked for, or one of another file.
            _ => return from_the_beginning(client, wanted, part, on_event),
        },
        StatusCode::PARTIAL_CONTENT => return Err(answer("a piece of the file, where all of it was asked for")),
        StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => return from_the_beginning(client, wanted, part, on_event),
        _ => return Err(client.refusal(wanted.url, &response)),
    };
    if let (Some(expected), Some(found)) = (wanted.size, total)
        && expected != found
    {
        let (file, url) = (wanted.file.to_owned(), wanted.url.to_owned());
        return Err(HubError::Length { file, url, expected, found });
    }
    if response.status() == StatusCode::OK {
        part.restart(state(response.headers()).as_deref())?;
    }
    let size = total.or(wanted.size);
    on_event(Event::Started { file: wanted.file, size, from: part.length() });
    receive(response, wanted, size, part, on_event)
}

fn receive(
    response: Response<Body>,
    wanted: &Wanted,
    size: Option<u64>,
    part: &mut Part,
    on_event: &mut OnEvent,
) -> Result<(), HubError> {
    let kept = wanted.hash.is_some() || part.tag().is_some();
    let broke_off = |part: &Part, reason: String| HubError::BrokeOff {
        file: wanted.file.to_owned(),
        received: part.length(),
        size,
        reason,
        kept,
    };
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 17];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) => return Err(broke_off(part, e.to_string())),
        };
        if size.is_some_and(|size| part.length() + count as u64 > size) {
            let reason = "more bytes than it announced".to_owned();
            return Err(HubError::Answer { url: wanted.url.to_owned(), reason });
        }
        part.append(&buffer[..count])?;
        on_event(Event::Progress { received: part.length() });
    }
    match size {
        Some(size) if part.length() < size => Err(broke_off(part, "the server hung up".to_owned())),
        _ => Ok(()),
    }
}

/// The same with nothing in the part.
fn from_the_beginning(
    client: &Client,
    wanted: &Wanted,
    part: &mut Part,
    on_event: &mut OnEvent,
) -> Result<(), HubError> {
    part.restart(None)?;
    attempt(client, wanted, part, on_event)
}

/// What tells one state of a file from the next: a strong `ETag`, or `Last-Modified`.
fn state(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text("etag").filter(|etag| etag.starts_with('"')).or_else(|| text("last-modified")).map(str::to_owned)
}

/// Whether a piece is of the file that the bytes before it are of.
fn same_state(response: &Response<Body>, wanted: &Wanted, tag: Option<&str>) -> bool {
    wanted.hash.is_some() || state(response.headers()).is_none_or(|state| Some(state.as_str()) == tag)
}

/// First byte and length of the whole, of `bytes 7-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get("content-range")?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.parse().ok()?, total))
}

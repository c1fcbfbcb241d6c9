//! One file from one address: streamed, resumed, checked, and then given its name.

use std::io::Read;
use std::path::{Path, PathBuf};

use ureq::Body;
use ureq::http::{HeaderMap, Response, StatusCode};

use crate::HubError;
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
    /// Its SHA-256 in hexadecimal, if it is known beforehand.
    pub sha256: Option<&'a str>,
    /// Where to put it.
    pub target: &'a Path,
    /// Where it is until it is whole.
    pub part: PathBuf,
    /// The file to lock meanwhile.
    pub lock: PathBuf,
}

/// Fetches a file, unless it is here. What came before an error stays in the part: a second call goes on from there if the
/// server still has the same file, which its hash or the server's `ETag` or `Last-Modified` tells.
///
/// # Errors
/// See [`HubError`]. The target is whole and checked, or it is not there.
pub(crate) fn fetch(client: &Client, wanted: Wanted, on_event: &mut OnEvent) -> Result<(), HubError> {
    let _lock = lock(&wanted.lock, wanted.file)?;
    if wanted.target.exists() {
        return Ok(());
    }
    let mut part = Part::open(wanted.part.clone())?;
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
    let (size, found) = (part.length(), part.sha256());
    if let Some(expected) = wanted.sha256.filter(|expected| !expected.eq_ignore_ascii_case(&found)) {
        part.discard()?;
        return Err(HubError::Hash { file: wanted.file.to_owned(), expected: expected.to_owned(), found });
    }
    part.finish(wanted.target)?;
    on_event(Event::Finished { file: wanted.file, size, sha256: &found, checked: wanted.sha256.is_some() });
    Ok(())
}

/// One request: after it all bytes are in the part, or an error says why not.
fn attempt(client: &Client, wanted: &Wanted, part: &mut Part, on_event: &mut OnEvent) -> Result<(), HubError> {
    let tag = part.tag();
    // Bytes of a file that can be another one by now are of no use.
    let resumable = wanted.sha256.is_some() || tag.is_some();
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
        headers.extend(tag.as_deref().filter(|_| wanted.sha256.is_none()).map(|tag| ("if-range", tag)));
    }
    let response = client.get(wanted.url, &headers)?;
    let answer = |reason: &str| HubError::Answer { url: wanted.url.to_owned(), reason: reason.to_owned() };
    let total = match response.status() {
        StatusCode::OK => response.body().content_length(),
        StatusCode::PARTIAL_CONTENT if from > 0 => match content_range(response.headers()) {
            Some((start, total)) if start == from && same_state(&response, wanted, tag.as_deref()) => total,
            // Another piece than the one asked for, or one of another file.
            _ => return anew(client, wanted, part, on_event),
        },
        StatusCode::PARTIAL_CONTENT => return Err(answer("a piece of the file, where all of it was asked for")),
        StatusCode::RANGE_NOT_SATISFIABLE if from > 0 => return anew(client, wanted, part, on_event),
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
    let kept = wanted.sha256.is_some() || part.tag().is_some();
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
fn anew(client: &Client, wanted: &Wanted, part: &mut Part, on_event: &mut OnEvent) -> Result<(), HubError> {
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
    wanted.sha256.is_some() || state(response.headers()).is_none_or(|state| Some(state.as_str()) == tag)
}

/// First byte and length of the whole, of `bytes 7-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get("content-range")?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.parse().ok()?, total))
}

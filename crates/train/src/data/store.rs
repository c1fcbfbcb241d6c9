//! Shards that are objects of a store: S3, Google Cloud Storage and plain HTTP.
//!
//! The only file with an asynchronous runtime; each store has one of its own, on the thread of whoever reads.

use std::error::Error;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Key;
use object_store::{ClientOptions, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::runtime::{Builder, Runtime};

use super::DataError;
use super::content::{Content, Mark, Place, ReadAt};

/// Bytes asked for at once. An opened object keeps as many: a connection is never held open while the trainer computes.
const WINDOW: u64 = 4 << 20;
/// How long one request is tried before it is made anew; its signature does not live for ever.
const REQUEST: Duration = Duration::from_secs(60);
/// The pauses between tries within a body, from the shortest to the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(15)];

/// A bucket, or what a web server has.
#[derive(Debug)]
pub(super) struct Store {
    /// What stands before the key in a URL, with the slash.
    root: String,
    is_bucket: bool,
    client: Box<dyn ObjectStore>,
    runtime: Runtime,
    patience: Duration,
}

impl Store {
    /// The store that `url` lies in, with credentials from the environment. One that does not answer is asked again for
    /// as long as `patience`.
    pub fn open(url: &str, patience: Duration) -> Result<Self, DataError> {
        let wrong = |reason: String| DataError::Store { url: url.to_owned(), reason };
        let root = root(url).ok_or_else(|| wrong("no URL of an object".to_owned()))?;
        let (scheme, host) = root.split_once("://").unwrap_or_default();
        let host = host.trim_end_matches('/');
        // The first provider stays: another part of the program may have chosen one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry =
            RetryConfig { max_retries: usize::MAX, retry_timeout: patience.min(REQUEST), ..RetryConfig::default() };
        let client = match scheme {
            "s3" => {
                let builder = AmazonS3Builder::from_env().with_bucket_name(host).with_retry(retry);
                builder.build().map(|client| Box::new(client) as Box<dyn ObjectStore>)
            }
            "gs" => {
                let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(host).with_retry(retry);
                builder.build().map(|client| Box::new(client) as _)
            }
            "http" | "https" => {
                let options = ClientOptions::new().with_allow_http(scheme == "http");
                let builder = HttpBuilder::new().with_url(root).with_client_options(options).with_retry(retry);
                builder.build().map(|client| Box::new(client) as _)
            }
            _ => return Err(wrong(format!("{scheme} is not known; there are s3, gs, https and http"))),
        };
        let client = client.map_err(|e| wrong(reason(&e)))?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| wrong(e.to_string()))?;
        Ok(Self { root: root.to_owned(), is_bucket: !scheme.starts_with("http"), client, runtime, patience })
    }

    /// Whether `url` lies in this store.
    pub fn holds(&self, url: &str) -> bool {
        root(url) == Some(&self.root)
    }

    fn key(&self, url: &str) -> Result<Key, DataError> {
        let key = url.strip_prefix(&self.root).unwrap_or(url);
        let key = if self.is_bucket { Key::parse(key) } else { Key::from_url_path(key) };
        key.map_err(|e| DataError::Store { url: url.to_owned(), reason: e.to_string() })
    }

    /// The objects below the folder of `pattern` that match it.
    fn list(&self, pattern: &str, folder: &str) -> Result<Vec<Mark>, DataError> {
        let matcher = glob::Pattern::new(pattern)
            .map_err(|e| DataError::Pattern { pattern: pattern.to_owned(), reason: e.to_string() })?;
        // A star does not match a slash, as in a folder.
        let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
        let key = self.key(folder)?;
        let objects =
            self.client.list(Some(&key)).map_ok(|object| (format!("{}{}", self.root, object.location), object));
        let matching = objects.try_filter(|(url, _)| std::future::ready(matcher.matches_with(url, options)));
        let marks = matching.map_ok(|(url, object)| mark(&url, &object)).try_collect::<Vec<Mark>>();
        let mut marks = self
            .runtime
            .block_on(marks)
            .map_err(|e| DataError::Store { url: pattern.to_owned(), reason: reason(&e) })?;
        marks.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(marks)
    }
}

impl Place for Store {
    fn find(&self, pattern: &str) -> Result<Vec<Mark>, DataError> {
        if let Some(wild) = pattern.find(['*', '?', '[']) {
            if !self.is_bucket {
                let reason =
                    "a web server does not list its files; name one, or use {file_id}, without * ? [".to_owned();
                return Err(DataError::Pattern { pattern: pattern.to_owned(), reason });
            }
            let folder = pattern[..wild].rfind('/').map_or(0, |slash| slash + 1);
            return self.list(pattern, &pattern[..folder]);
        }
        match self.runtime.block_on(self.client.head(&self.key(pattern)?)) {
            Ok(object) => Ok(vec![mark(pattern, &object)]),
            Err(object_store::Error::NotFound { .. }) => Ok(Vec::new()),
            Err(e) => Err(DataError::Store { url: pattern.to_owned(), reason: reason(&e) }),
        }
    }

    fn below(&self, name: &str) -> Result<Option<Vec<Mark>>, DataError> {
        match name.ends_with('/') && self.is_bucket && !name.contains(['*', '?', '[']) {
            true => self.list(&format!("{name}**/*"), name).map(Some),
            false => Ok(None),
        }
    }

    fn open(self: Arc<Self>, mark: &Mark) -> Result<Content, DataError> {
        let key = self.key(&mark.path.to_string_lossy())?;
        let object = Object { store: self, key, mark: mark.clone(), window: Mutex::default() };
        Ok(Content::new(mark, Arc::new(object)))
    }
}

/// Scheme and bucket or host of `url`, up to the slash behind them.
fn root(url: &str) -> Option<&str> {
    let host = url.find("://")? + 3;
    let slash = url[host..].find('/').filter(|&length| length > 0)?;
    Some(&url[..=host + slash])
}

/// An ETag tells a content; where there is none, the time of the last change must do.
fn mark(url: &str, object: &ObjectMeta) -> Mark {
    let etag = object.e_tag.as_deref().map(|etag| etag.trim_matches('"').to_owned());
    let modified = Some(object.last_modified.timestamp()).filter(|&seconds| seconds > 0);
    let version = etag.or_else(|| modified.map(|seconds| seconds.to_string()));
    Mark { path: Path::new(url).to_owned(), bytes: object.size, version }
}

/// What lies at the bottom of an error.
fn reason(error: &object_store::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let short: String = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            format!("the store refuses access; are the credentials in the environment? {short}")
        }
        object_store::Error::NotSupported { .. } => format!("the server gives no parts of files: {short}"),
        _ => short,
    }
}

/// An opened object.
struct Object {
    store: Arc<Store>,
    key: Key,
    mark: Mark,
    window: Mutex<Window>,
}

/// Bytes that were fetched last.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl ReadAt for Object {
    fn read_at(&self, start: u64, buffer: &mut [u8]) -> Result<usize, DataError> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if !(window.start..window.start + window.bytes.len() as u64).contains(&start) {
            let end = self.mark.bytes.min(start.saturating_add(WINDOW));
            *window = Window::default();
            *window = Window { start, bytes: self.fetch(start..end)? };
        }
        let rest = &window.bytes[(start - window.start) as usize..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

impl Object {
    /// The bytes of `range`, however often the connection breaks off, if some come within the store's patience.
    fn fetch(&self, range: Range<u64>) -> Result<Vec<u8>, DataError> {
        self.store.runtime.block_on(async {
            let (mut bytes, mut heard, mut pause) = (Vec::new(), Instant::now(), PAUSES[0]);
            let wanted = range.end.saturating_sub(range.start);
            while (bytes.len() as u64) < wanted {
                let before = bytes.len();
                let part = self.part(range.start + before as u64..range.end, &mut bytes).await?;
                if bytes.len() > before {
                    (heard, pause) = (Instant::now(), PAUSES[0]);
                }
                let Err(broken) = part else { continue };
                if heard.elapsed() >= self.store.patience {
                    let (reason, seconds) = (reason(&broken), self.store.patience.as_secs());
                    let hint = "the same command goes on when the store answers again";
                    return Err(self.wrong(format!("{reason}; asked for {seconds} s (data.retry_seconds), {hint}")));
                }
                tokio::time::sleep(pause).await;
                pause = PAUSES[1].min(2 * pause);
            }
            bytes.truncate(wanted as usize);
            Ok(bytes)
        })
    }

    /// Appends what comes of `range` to `bytes`. The inner error is one that may pass.
    async fn part(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<object_store::Result<()>, DataError> {
        let length = (range.end - range.start) as usize;
        let options = GetOptions { range: Some(range.into()), ..GetOptions::default() };
        let answer = match self.store.client.get_opts(&self.key, options).await {
            Err(e @ object_store::Error::Generic { .. }) => return Ok(Err(e)),
            answer => answer.map_err(|e| self.wrong(reason(&e)))?,
        };
        mark(&self.mark.path.to_string_lossy(), &answer.meta).check(&self.mark)?;
        let before = bytes.len();
        let mut body = answer.into_stream();
        while bytes.len() < before + length
            && let Some(part) = body.next().await
        {
            match part {
                Ok(part) => bytes.extend_from_slice(&part),
                Err(e) => return Ok(Err(e)),
            }
        }
        let nothing = || object_store::Error::Generic { store: "", source: "the answer was empty".into() };
        Ok(if bytes.len() > before { Ok(()) } else { Err(nothing()) })
    }

    fn wrong(&self, reason: String) -> DataError {
        DataError::Store { url: self.mark.path.display().to_string(), reason }
    }
}

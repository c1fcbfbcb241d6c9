//! A bucket as S3 and, in its XML interface, Google Cloud Storage show it.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::server::{Request, Step, file, reply};

/// Keys in one page of a listing.
const PAGE: usize = 2;

/// An honest answer about the bucket `name`, which holds `objects`: a page of its listing, or one of them.
pub fn bucket(request: &Request, name: &str, objects: &BTreeMap<String, Vec<u8>>) -> Vec<Step> {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let Some(key) = decoded(path).strip_prefix(&format!("/{name}")).map(|key| key.trim_start_matches('/').to_owned())
    else {
        return reply(404, &[], b"<Error><Code>NoSuchBucket</Code></Error>");
    };
    if key.is_empty() {
        return reply(200, &[("Content-Type", "application/xml")], listing(query, objects).as_bytes());
    }
    match objects.get(&key) {
        Some(content) => file(request, content, &tag(content)),
        None => reply(404, &[], b"<Error><Code>NoSuchKey</Code></Error>"),
    }
}

fn listing(query: &str, objects: &BTreeMap<String, Vec<u8>>) -> String {
    let parameter = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| decoded(&value.replace('+', " ")))
            .next()
            .unwrap_or_default()
    };
    let (prefix, token) = (parameter("prefix"), parameter("continuation-token"));
    let mut rest = objects.iter().filter(|(key, _)| key.starts_with(&prefix) && **key >= token).peekable();
    let mut xml = "<?xml version=\"1.0\"?><ListBucketResult>".to_owned();
    for (key, content) in rest.by_ref().take(PAGE) {
        let (tag, size) = (tag(content), content.len());
        xml += &format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>\
             <ETag>&quot;{tag}&quot;</ETag><Size>{size}</Size></Contents>"
        );
    }
    if let Some((key, _)) = rest.peek() {
        xml += &format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{key}</NextContinuationToken>");
    }
    xml + "</ListBucketResult>"
}

fn tag(content: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// `text` with its `%xx` read.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        bytes.extend(u8::from_str_radix(code, 16));
        bytes.extend(rest.bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

//! Whether the bytes that came are the file that was meant: by its hash where one is known, by what it looks like otherwise.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use openelm_formats::{FormatError, check_whole};
use sha1::{Digest, Sha1};

use crate::HubError;

/// A hash that is known of a file before it comes, in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KnownHash<'a> {
    /// SHA-256 of its bytes.
    Sha256(&'a str),
    /// What git calls it: SHA-1 of `blob`, its length and its bytes.
    Git(&'a str),
}

/// Checks the file at `path`, called `file` before the user, by git's hash or by its kind. A SHA-256 is reckoned on the way,
/// not here.
///
/// # Errors
/// [`HubError::Hash`], [`HubError::Damaged`], or what the system reports.
pub(crate) fn check(file: &str, path: &Path, hash: Option<KnownHash<'_>>) -> Result<(), HubError> {
    if let Some(KnownHash::Git(expected)) = hash {
        return same_hash(file, "git hash", expected, &git_hash(path).map_err(HubError::io(path))?);
    }
    let damaged = |reason: String| HubError::Damaged { file: file.to_owned(), reason };
    if is_web_page(path).map_err(HubError::io(path))? {
        return Err(damaged("the server sent a web page in its place".to_owned()));
    }
    check_whole(path, file).map_err(|e| match e {
        FormatError::Io { path, source } => HubError::Io { path, source },
        FormatError::Damaged { kind, reason, .. } => damaged(format!("it is no whole {kind} file: {reason}")),
        FormatError::Config { reason, .. } => damaged(reason),
        FormatError::LfsPointer { .. } => damaged("it is a Git LFS pointer".to_owned()),
        other => damaged(other.to_string()),
    })
}

/// # Errors
/// [`HubError::Hash`] if the hashes differ.
pub(crate) fn same_hash(file: &str, kind: &'static str, expected: &str, found: &str) -> Result<(), HubError> {
    if expected.eq_ignore_ascii_case(found) {
        return Ok(());
    }
    Err(HubError::Hash { file: file.to_owned(), kind, expected: expected.to_owned(), found: found.to_owned() })
}

fn git_hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", file.metadata()?.len()));
    io::copy(&mut file, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether a file begins as HTML does; nothing that is pulled begins so.
fn is_web_page(path: &Path) -> io::Result<bool> {
    let mut beginning = Vec::new();
    File::open(path)?.take(64).read_to_end(&mut beginning)?;
    let first = beginning.trim_ascii_start();
    Ok([&b"<!doctype"[..], b"<html", b"<?xml"]
        .iter()
        .any(|tag| first.get(..tag.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(tag))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        // By `git hash-object`.
        for (text, hash) in
            [("", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"), ("hello\n", "ce013625030ba8dba906f756967f9e9ca394464a")]
        {
            std::fs::write(&file, text).unwrap();
            assert_eq!(git_hash(&file).unwrap(), hash);
            assert!(check("a", &file, Some(KnownHash::Git(&hash.to_uppercase()))).is_ok());
        }
        let wrong = check("a", &file, Some(KnownHash::Git("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"))).unwrap_err();
        assert!(wrong.to_string().contains("its git hash is ce013625"), "{wrong}");
    }
}

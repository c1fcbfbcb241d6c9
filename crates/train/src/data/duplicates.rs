//! Which documents of a corpus occurred before.
//!
//! One pass over the corpus before the first row, in the order of the files, keeps the first of equal documents. The list
//! depends on nothing but the corpus: not on the shuffle, the epoch, the workers or where a run was interrupted, so that a
//! checkpoint holds none of it and a resumed run finds the same list again.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::{DataError, OnError, Shards};

/// The documents to leave out: 8 bytes for each. While they are sought, each different document costs 8 bytes of hash,
/// with the table's room 10 to 21, and up to 31 while the table is doubled: nothing else grows with the corpus.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    /// Of each file, the indices of its documents that occurred before, ascending.
    files: Vec<Vec<u64>>,
}

impl Duplicates {
    /// Reads the whole corpus. What is damaged does not count if `on_error` says skip.
    pub fn find(shards: &Shards, on_error: OnError) -> Result<Self, DataError> {
        // 64 bits of SHA-256: among 10^9 documents, 0.03 are expected to be taken for another by chance.
        let mut seen: HashSet<u64> = HashSet::new();
        let mut files = vec![Vec::new(); shards.len()];
        for (file, duplicates) in files.iter_mut().enumerate() {
            let mut search = || -> Result<(), DataError> {
                let mut document = 0;
                for text in shards.open(file)? {
                    match text {
                        Ok(Some(text)) => {
                            if !seen.insert(hash(&text)) {
                                duplicates.push(document);
                            }
                            document += 1;
                        }
                        Ok(None) => {}
                        Err(e) if on_error == OnError::Skip && e.is_one() => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(())
            };
            match search() {
                Err(e) if on_error == OnError::Stop || !e.is_damage() => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Self { files })
    }

    /// Whether the document at `document` of the file at `file` occurred before.
    pub fn contains(&self, file: usize, document: u64) -> bool {
        self.files.get(file).is_some_and(|documents| documents.binary_search(&document).is_ok())
    }
}

fn hash(text: &str) -> u64 {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).fold(0, |hash, &byte| (hash << 8) | u64::from(byte))
}

//! From a document to what rows are made of.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::filter::normalised_length;
use super::reader::{Body, Document, Position};
use super::{CorpusConfig, corenet};

/// Turns a document into token ids, BOS and EOS included.
pub type Encode = Arc<dyn Fn(&str) -> Vec<u32> + Send + Sync>;

/// What was read of a source so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Times the source was read to its end.
    pub epochs: u64,
    /// Documents that passed the filters; with CoreNet's pipeline, pieces of documents.
    pub documents: u64,
    /// Documents that a filter dropped; with CoreNet's pipeline, pieces of documents.
    pub dropped: u64,
    /// Documents left out because their text occurred before.
    pub duplicates: u64,
    /// Lines or rows without a text.
    #[serde(default)]
    pub nulls: u64,
    /// Lines or rows passed over because they were damaged.
    #[serde(default)]
    pub damaged_documents: u64,
    /// Times that a file's rest was passed over because it could not be read.
    pub damaged: u64,
    /// Token ids that went into rows, without padding.
    pub tokens: u64,
}

impl Counts {
    /// Adds what was read, epochs aside.
    pub(super) fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.dropped += other.dropped;
        self.duplicates += other.duplicates;
        self.nulls += other.nulls;
        self.damaged_documents += other.damaged_documents;
        self.damaged += other.damaged;
        self.tokens += other.tokens;
    }
}

/// A document as token ids.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The position behind the document.
    pub position: Position,
    /// Index of its file.
    pub file: usize,
    /// What it adds.
    pub counts: Counts,
    /// What passed the filters.
    pub pieces: Vec<Vec<u32>>,
}

/// Filters and encodes documents.
pub(super) struct Encoder {
    encode: Encode,
    min_characters: usize,
    min_tokens: usize,
    pieces: Option<Pieces>,
}

/// How CoreNet's pipeline divides documents.
pub(super) struct Pieces {
    /// Words of a piece, at most.
    pub words: usize,
    /// Ids of a row; what a piece has beyond is thrown away.
    pub length: usize,
}

impl Encoder {
    /// With the filters of `config`.
    pub fn new(config: &CorpusConfig, encode: Encode, pieces: Option<Pieces>) -> Self {
        let CorpusConfig { min_characters, min_tokens, .. } = *config;
        Self { encode, min_characters, min_tokens, pieces }
    }

    pub fn encode(&self, document: Document) -> Encoded {
        let Document { position, file, body } = document;
        let mut encoded = Encoded { position, file, counts: Counts::default(), pieces: Vec::new() };
        match body {
            Body::Text(text) => match &self.pieces {
                Some(Pieces { words, .. }) => {
                    corenet::pieces(&text, *words).for_each(|piece| self.add(&piece, &mut encoded));
                }
                None => self.add(&text, &mut encoded),
            },
            Body::Duplicate => encoded.counts.duplicates = 1,
            Body::Null => encoded.counts.nulls = 1,
            Body::Damaged => encoded.counts.damaged_documents = 1,
            Body::DamagedRest => encoded.counts.damaged = 1,
        }
        encoded
    }

    fn add(&self, text: &str, encoded: &mut Encoded) {
        let Encoded { counts, pieces, .. } = encoded;
        let long_enough = self.min_characters == 0 || normalised_length(text) >= self.min_characters;
        match long_enough.then(|| (self.encode)(text)).filter(|ids| ids.len() >= self.min_tokens) {
            Some(mut ids) => {
                ids.truncate(self.pieces.as_ref().map_or(usize::MAX, |pieces| pieces.length));
                counts.documents += 1;
                counts.tokens += ids.len() as u64;
                pieces.push(ids);
            }
            None => counts.dropped += 1,
        }
    }
}

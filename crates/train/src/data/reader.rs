//! The documents of some of a corpus's files, one after the other, epoch after epoch.

use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::content::{Documents, Found};
use super::duplicates::Duplicates;
use super::{CorpusConfig, DataError, OnError, Shards, corenet};

/// Where reading goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub epoch: u64,
    /// Place in the epoch's order of files.
    pub file: usize,
    /// Documents of that file that were read.
    pub document: u64,
    /// Lines or rows of that file that gave no document: damaged ones, and those without a text.
    #[serde(default)]
    pub passed: u64,
}

/// In which order an epoch takes the files.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// As they were found, once.
    Once,
    /// Another one in each epoch.
    Shuffled { seed: u64, lane: u64 },
    /// As CoreNet's.
    CoreNet,
}

/// Files that are read as one, and how.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    /// The paths of its sources.
    pub name: String,
    pub shards: Arc<Shards>,
    /// Indices of the files.
    pub files: Vec<usize>,
    pub order: Order,
    pub on_error: OnError,
    pub duplicates: Arc<Duplicates>,
}

impl Lane {
    fn files_of(&self, epoch: u64) -> Vec<usize> {
        let mut files = self.files.clone();
        match self.order {
            Order::Once => {}
            Order::Shuffled { seed, lane } => {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream((lane << 40) + epoch + 1);
                files.shuffle(&mut random);
            }
            Order::CoreNet => return corenet::file_order(&files, epoch),
        }
        files
    }
}

/// What was found at a place.
#[derive(Debug)]
pub(super) enum Body {
    Text(String),
    /// The text occurred before.
    Duplicate,
    /// Nothing: the row or the line says so.
    Null,
    /// Something else than a text.
    Damaged,
    /// The rest of a file that cannot be read.
    DamagedRest,
}

/// A document and the position behind it.
#[derive(Debug)]
pub(super) struct Document {
    pub position: Position,
    /// Index of the file.
    pub file: usize,
    pub body: Body,
}

/// Reads a lane from a position on; ends after an error.
pub(super) struct Reader {
    lane: Lane,
    position: Position,
    order: Vec<usize>,
    open: Option<Documents>,
    /// Whether this epoch had a document: an endless lane without any would be read for ever.
    found: bool,
    done: bool,
}

impl Reader {
    pub fn new(lane: Lane, position: Position) -> Self {
        let (order, found) = (lane.files_of(position.epoch), position.file > 0 || position.document > 0);
        Self { lane, position, order, open: None, found, done: false }
    }

    fn read(&mut self) -> Result<Option<Document>, DataError> {
        loop {
            let Some(&file) = self.order.get(self.position.file) else {
                if matches!(self.lane.order, Order::Once) {
                    return Ok(None);
                }
                if !std::mem::take(&mut self.found) {
                    return Err(DataError::NoDocuments { sources: self.lane.name.clone() });
                }
                self.position = Position { epoch: self.position.epoch + 1, ..Position::default() };
                self.order = self.lane.files_of(self.position.epoch);
                continue;
            };
            let skips = self.lane.on_error == OnError::Skip;
            let body = match self.next_document(file) {
                Some(Ok(Some(text))) => {
                    let is_duplicate = self.lane.duplicates.contains(file, self.position.document);
                    self.position.document += 1;
                    self.found = true;
                    if is_duplicate { Body::Duplicate } else { Body::Text(text) }
                }
                Some(Ok(None)) => {
                    self.position.passed += 1;
                    Body::Null
                }
                None => {
                    self.next_file();
                    continue;
                }
                Some(Err(e)) if skips && e.is_one() => {
                    self.position.passed += 1;
                    Body::Damaged
                }
                Some(Err(e)) if skips && e.is_damage() => {
                    self.next_file();
                    Body::DamagedRest
                }
                Some(Err(e)) => return Err(e),
            };
            return Ok(Some(Document { position: self.position, file, body }));
        }
    }

    /// What comes next in the file at `file`, which is opened at the position if need be.
    fn next_document(&mut self, file: usize) -> Option<Found> {
        if self.open.is_none() {
            let known = self.position;
            let mut documents = match self.lane.shards.open(file) {
                Ok(documents) => documents,
                Err(e) => return Some(Err(e)),
            };
            // Checkpoints of before what gives no document was counted say that none was passed.
            let (mut read, mut passed) = (0, 0);
            while read < known.document || passed < known.passed {
                match documents.next()? {
                    Ok(Some(_)) => read += 1,
                    Ok(None) => passed += 1,
                    Err(e) if e.is_one() => passed += 1,
                    Err(e) => return Some(Err(e)),
                }
            }
            self.position.passed = passed;
            self.open = Some(documents);
        }
        self.open.as_mut()?.next()
    }

    fn next_file(&mut self) {
        self.open = None;
        self.position = Position { epoch: self.position.epoch, file: self.position.file + 1, ..Position::default() };
    }
}

impl Iterator for Reader {
    type Item = Result<Document, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let document = self.read().transpose();
        self.done = !matches!(document, Some(Ok(_)));
        document
    }
}

/// All documents of a corpus, file after file, duplicates too.
///
/// # Errors
/// See [`DataError`]; the documents end with the first error. There is one if there are none.
pub fn documents(
    config: &CorpusConfig,
) -> Result<impl Iterator<Item = Result<String, DataError>> + Send + use<>, DataError> {
    let shards = Arc::new(Shards::find(config)?);
    let lane = Lane {
        name: config.sources.iter().map(|source| source.path.as_str()).collect::<Vec<_>>().join(", "),
        files: (0..shards.len()).collect(),
        shards,
        order: Order::Once,
        on_error: config.on_error,
        duplicates: Arc::default(),
    };
    let mut nothing = Some(DataError::NoDocuments { sources: lane.name.clone() });
    let mut documents = Reader::new(lane, Position::default());
    Ok(std::iter::from_fn(move || {
        for document in &mut documents {
            let text = match document.map(|document| document.body) {
                Ok(Body::Text(text)) => Ok(text),
                Ok(_) => continue,
                Err(e) => Err(e),
            };
            nothing = None;
            return Some(text);
        }
        nothing.take().map(Err)
    }))
}

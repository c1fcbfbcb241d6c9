//! Rows of token ids from a corpus, without end or once.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::filter::normalised_length;
use super::shards::{Documents, Mark};
use super::{CorpusConfig, DataError, Shards};

/// Turns a document into token ids, BOS and EOS included.
pub type Encode = Box<dyn Fn(&str) -> Vec<u32> + Send>;

/// What was read so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents that passed the filters.
    pub documents: u64,
    /// Documents that a filter dropped.
    pub dropped: u64,
    /// Token ids of the documents that passed.
    pub tokens: u64,
}

/// The exact position in a corpus, to be kept in a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamState {
    files: Vec<Mark>,
    epoch: u64,
    /// Place in the epoch's order of files.
    file: usize,
    /// Documents of that file that were read.
    document: u64,
    /// Ids that are not in a row yet.
    carry: Vec<u32>,
    buffer: Vec<Vec<u32>>,
    random: ChaCha8Rng,
    counts: Counts,
}

/// Packed rows: documents follow each other without gaps, and each row begins with the last id of the one before, so
/// that every id is predicted once.
pub struct RowStream {
    shards: Shards,
    config: CorpusConfig,
    encode: Encode,
    length: usize,
    seed: u64,
    endless: bool,
    order: Vec<usize>,
    open: Option<Documents>,
    state: StreamState,
}

impl RowStream {
    /// Rows of `length` ids from the corpus `config`. An `endless` stream begins anew at the end, with the files in
    /// another order that `seed` and the number of the epoch decide; otherwise the files come once, in order.
    ///
    /// # Errors
    /// If the files cannot be found.
    pub fn new(
        config: CorpusConfig,
        encode: Encode,
        length: usize,
        seed: u64,
        endless: bool,
    ) -> Result<Self, DataError> {
        let shards = Shards::find(&config)?;
        let mut stream = Self {
            state: StreamState {
                files: shards.marks(),
                epoch: 0,
                file: 0,
                document: 0,
                carry: Vec::new(),
                buffer: Vec::new(),
                random: ChaCha8Rng::seed_from_u64(seed),
                counts: Counts::default(),
            },
            order: Vec::new(),
            open: None,
            shards,
            config,
            encode,
            length,
            seed,
            endless,
        };
        stream.shuffle_files();
        Ok(stream)
    }

    /// The position behind the row given out last.
    pub fn state(&self) -> &StreamState {
        &self.state
    }

    /// Epochs completed and documents read so far.
    pub fn progress(&self) -> (u64, Counts) {
        (self.state.epoch, self.state.counts)
    }

    /// Goes on from `state`.
    ///
    /// # Errors
    /// If the files are not those that the state was made with, or cannot be read.
    pub fn restore(&mut self, state: StreamState) -> Result<(), DataError> {
        let now = self.shards.marks();
        if let Some((was, is)) = state.files.iter().zip(&now).find(|(was, is)| was != is) {
            let (was, is, bytes) = (was.path.display(), is.path.display(), (was.bytes, is.bytes));
            let change = format!("{was} of {} bytes is now {is} of {} bytes", bytes.0, bytes.1);
            return Err(DataError::Changed { change });
        }
        if state.files.len() != now.len() {
            let change = format!("it had {} files and has {} now", state.files.len(), now.len());
            return Err(DataError::Changed { change });
        }
        if let Some(row) = state.buffer.iter().find(|row| row.len() != self.length) {
            let change = format!("its rows were of {} tokens and are of {} now", row.len(), self.length);
            return Err(DataError::Changed { change });
        }
        self.state = state;
        self.shuffle_files();
        self.open = None;
        if self.state.document > 0 {
            let mut documents = self.shards.open(self.order[self.state.file])?;
            for _ in 0..self.state.document {
                documents.next().transpose()?;
            }
            self.open = Some(documents);
        }
        Ok(())
    }

    /// The next row, or `None` at the end of a stream that ends.
    ///
    /// # Errors
    /// See [`DataError`].
    pub fn next_row(&mut self) -> Result<Option<Vec<u32>>, DataError> {
        while self.state.buffer.len() < self.config.shuffle_buffer {
            let Some(row) = self.next_in_order()? else { break };
            self.state.buffer.push(row);
        }
        if self.state.buffer.is_empty() {
            return self.next_in_order();
        }
        let slot = self.state.random.random_range(..self.state.buffer.len());
        Ok(Some(match self.next_in_order()? {
            Some(row) => std::mem::replace(&mut self.state.buffer[slot], row),
            None => self.state.buffer.swap_remove(slot),
        }))
    }

    fn next_in_order(&mut self) -> Result<Option<Vec<u32>>, DataError> {
        while self.state.carry.len() < self.length {
            match self.next_document()? {
                Some(ids) => self.state.carry.extend(ids),
                None => return Ok(None),
            }
        }
        let row = self.state.carry[..self.length].to_vec();
        self.state.carry.drain(..self.length - 1);
        Ok(Some(row))
    }

    /// Ids of the next document that passes the filters.
    fn next_document(&mut self) -> Result<Option<Vec<u32>>, DataError> {
        let before = self.state.counts.tokens;
        let mut files_opened = 0;
        loop {
            if self.state.file == self.order.len() {
                if !self.endless {
                    return Ok(None);
                }
                self.state.epoch += 1;
                self.state.file = 0;
                self.shuffle_files();
            }
            if self.open.is_none() {
                // A whole epoch without a document would go on for ever.
                files_opened += 1;
                if files_opened > 2 * self.order.len() && self.state.counts.tokens == before {
                    return Err(DataError::Empty { tokens: self.length });
                }
                self.open = Some(self.shards.open(self.order[self.state.file])?);
            }
            match self.open.as_mut().and_then(Iterator::next) {
                Some(document) => {
                    self.state.document += 1;
                    if let Some(ids) = self.filtered(&document?) {
                        return Ok(Some(ids));
                    }
                }
                None => {
                    self.open = None;
                    self.state.file += 1;
                    self.state.document = 0;
                }
            }
        }
    }

    fn filtered(&mut self, document: &str) -> Option<Vec<u32>> {
        let long_enough = self.config.min_characters == 0 || normalised_length(document) >= self.config.min_characters;
        let ids = long_enough.then(|| (self.encode)(document)).filter(|ids| ids.len() >= self.config.min_tokens);
        let counts = &mut self.state.counts;
        match &ids {
            Some(ids) => {
                counts.documents += 1;
                counts.tokens += ids.len() as u64;
            }
            None => counts.dropped += 1,
        }
        ids
    }

    fn shuffle_files(&mut self) {
        self.order = (0..self.shards.len()).collect();
        if self.endless {
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(self.state.epoch + 1);
            self.order.shuffle(&mut random);
        }
    }
}

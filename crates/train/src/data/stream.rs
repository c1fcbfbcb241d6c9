//! Rows of token ids from a corpus, without end or once.

use std::collections::VecDeque;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::content::Mark;
use super::duplicates::Duplicates;
use super::encoder::{Counts, Encode, Encoded, Encoder, Pieces};
use super::pipeline::Pipeline;
use super::reader::{Lane, Order, Position};
use super::{CorpusConfig, DataError, OnChange, Packing, Row, Shards, Source, corenet};

/// The exact position in a corpus, to be kept in a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamState {
    files: Vec<Mark>,
    lanes: Vec<Position>,
    /// Ids that are not in a row yet, less than a row.
    carry: Row,
    /// Rows in the order of the documents.
    ready: VecDeque<Row>,
    buffer: Vec<Row>,
    /// Rows that were drawn, but not given out because a later one could not be read.
    drawn: VecDeque<Row>,
    random: ChaCha8Rng,
    /// Of each source.
    counts: Vec<Counts>,
}

/// Rows of a corpus. Packed, documents follow each other without gaps, and each row begins with the last id of the one
/// before, so that every id is predicted once; with CoreNet's pipeline each piece of a document has a row of its own.
///
/// Sources with weights are mixed by tokens: the next document comes from the source that is furthest behind its share.
pub struct RowStream {
    config: CorpusConfig,
    encode: Encode,
    length: usize,
    /// What fills up a row of CoreNet's pipeline.
    pad: Option<u32>,
    /// Words of a piece in CoreNet's pipeline.
    words: usize,
    lanes: Vec<Lane>,
    /// The source of each file.
    sources: Vec<usize>,
    pipeline: Option<Pipeline>,
    state: StreamState,
}

impl RowStream {
    /// Rows of `length` ids from the corpus `config`. An `endless` stream begins anew at the end, with the files in
    /// another order that `seed` and the number of the epoch decide; otherwise the files come once, in order, whatever
    /// their weights. `pad` fills up the rows of CoreNet's pipeline and has no other use.
    ///
    /// # Errors
    /// If the files cannot be found, or the weights make no mix.
    pub fn new(
        config: CorpusConfig,
        encode: Encode,
        length: usize,
        pad: u32,
        seed: u64,
        endless: bool,
    ) -> Result<Self, DataError> {
        let shards = Arc::new(Shards::find(&config)?);
        let duplicates = match config.deduplicate {
            true => Duplicates::find(&shards, config.on_error)?,
            false => Duplicates::default(),
        };
        let duplicates = Arc::new(duplicates);
        let sources: Vec<usize> = shards.sources().collect();
        let lane = |lane: usize, files: Vec<usize>, read: &[Source]| Lane {
            name: read.iter().map(|source| source.path.as_str()).collect::<Vec<_>>().join(", "),
            shards: shards.clone(),
            files,
            order: match (endless, config.parity) {
                (false, _) => Order::Once,
                (true, Some(_)) => Order::CoreNet,
                (true, None) => Order::Shuffled { seed, lane: lane as u64 },
            },
            on_error: config.on_error,
            duplicates: duplicates.clone(),
        };
        let all = 0..shards.len();
        let lanes: Vec<Lane> = match config.is_weighted()? && endless {
            true => (0..config.sources.len())
                .map(|source| {
                    let files = all.clone().filter(|&file| sources[file] == source).collect();
                    lane(source, files, &config.sources[source..=source])
                })
                .collect(),
            false => vec![lane(0, all.collect(), &config.sources)],
        };
        let state = StreamState {
            files: shards.marks(),
            lanes: vec![Position::default(); lanes.len()],
            carry: Row { ids: Vec::new(), starts: (config.packing == Packing::Separate).then(Vec::new) },
            ready: VecDeque::new(),
            buffer: Vec::new(),
            drawn: VecDeque::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            counts: vec![Counts::default(); config.sources.len()],
        };
        let pad = config.parity.map(|_| pad);
        Ok(Self { config, encode, length, pad, words: corenet::WORDS, lanes, sources, pipeline: None, state })
    }

    /// With CoreNet's pipeline, pieces of at most `words` words instead of 2048.
    #[cfg(test)]
    pub(super) fn pieces_of(self, words: usize) -> Self {
        Self { words, ..self }
    }

    /// The position behind the row given out last. It does not depend on the number of workers.
    pub fn state(&self) -> &StreamState {
        &self.state
    }

    /// Times that all of the corpus was read.
    pub fn epochs(&self) -> u64 {
        self.state.lanes.iter().map(|lane| lane.epoch).min().unwrap_or_default()
    }

    /// What was read so far of each source, in the order of the recipe.
    pub fn counts(&self) -> Vec<Counts> {
        let epoch = |source: usize| self.state.lanes.get(source).unwrap_or(&self.state.lanes[0]).epoch;
        let counts = self.state.counts.iter().enumerate();
        counts.map(|(source, &counts)| Counts { epochs: epoch(source), ..counts }).collect()
    }

    /// Goes on from `state`.
    ///
    /// # Errors
    /// If the files are not those that the state was made with.
    pub fn restore(&mut self, state: StreamState) -> Result<(), DataError> {
        let now = &self.state.files;
        let other = |change: String| Err(DataError::Other { change });
        if state.files.len() != now.len() {
            let (before, now) = (state.files.len(), now.len());
            return other(format!("it had {before} file{} and has {now} now", if before == 1 { "" } else { "s" }));
        }
        if self.config.on_change == OnChange::Stop {
            now.iter().zip(&state.files).try_for_each(|(now, known)| now.check(known))?;
        }
        let mixed = |state: &StreamState| {
            let (sources, lanes) = (state.counts.len(), state.lanes.len());
            format!(
                "{sources} source{}{}",
                if sources == 1 { "" } else { "s" },
                if sources > 1 && lanes == sources { " mixed by weights" } else { "" }
            )
        };
        if mixed(&state) != mixed(&self.state) {
            return other(format!("it had {} and has {} now", mixed(&state), mixed(&self.state)));
        }
        let packing = |state: &StreamState| if state.carry.starts.is_some() { "separate" } else { "joined" };
        if packing(&state) != packing(&self.state) {
            return other(format!("data.packing was {} and is {} now", packing(&state), packing(&self.state)));
        }
        let mut rows = state.buffer.iter().chain(&state.ready).chain(&state.drawn);
        if let Some(row) = rows.find(|row| row.ids.len() != self.length) {
            return other(format!("its rows were of {} tokens and are of {} now", row.ids.len(), self.length));
        }
        let files = std::mem::take(&mut self.state.files);
        self.state = StreamState { files, ..state };
        self.pipeline = None;
        Ok(())
    }

    /// The next `count` rows, fewer at the end of a stream that ends.
    ///
    /// # Errors
    /// See [`DataError`]. No row is lost then: those before the error stay in the state.
    pub fn take(&mut self, count: usize) -> Result<Vec<Row>, DataError> {
        while self.state.drawn.len() < count {
            match self.draw()? {
                Some(row) => self.state.drawn.push_back(row),
                None => break,
            }
        }
        let count = count.min(self.state.drawn.len());
        Ok(self.state.drawn.drain(..count).collect())
    }

    /// A row from the shuffle buffer.
    fn draw(&mut self) -> Result<Option<Row>, DataError> {
        while self.state.buffer.len() < self.config.buffered_rows() {
            let Some(row) = self.next_in_order()? else { break };
            self.state.buffer.push(row);
        }
        let next = self.next_in_order()?;
        if self.state.buffer.is_empty() {
            return Ok(next);
        }
        let slot = self.state.random.random_range(..self.state.buffer.len());
        Ok(Some(match next {
            Some(row) => std::mem::replace(&mut self.state.buffer[slot], row),
            None => self.state.buffer.swap_remove(slot),
        }))
    }

    fn next_in_order(&mut self) -> Result<Option<Row>, DataError> {
        let (mut empty_since, mut tokens) = (None, 0);
        loop {
            if let Some(row) = self.state.ready.pop_front() {
                return Ok(Some(row));
            }
            let lane = self.lane_behind();
            let Some(encoded) = self.read(lane)? else { return Ok(None) };
            self.state.lanes[lane] = encoded.position;
            self.state.counts[self.sources[encoded.file]].add(&encoded.counts);
            // Whole epochs whose documents are all dropped would go on for ever.
            tokens += encoded.counts.tokens;
            let since = *empty_since.get_or_insert(encoded.position.epoch);
            if tokens == 0 && encoded.position.epoch > since + 1 {
                return Err(DataError::Empty { tokens: self.length });
            }
            for ids in encoded.pieces {
                self.add(ids);
            }
        }
    }

    /// The lane that has given the fewest tokens for its weight.
    fn lane_behind(&self) -> usize {
        let given = |lane: usize| {
            let weight = self.config.sources[lane].weight.unwrap_or(1.0);
            self.state.counts[lane].tokens as f64 / weight
        };
        (0..self.lanes.len()).min_by(|&a, &b| given(a).total_cmp(&given(b))).unwrap_or_default()
    }

    /// The next document of a lane. After an error reading begins anew where the state is.
    fn read(&mut self, lane: usize) -> Result<Option<Encoded>, DataError> {
        let mut pipeline = match self.pipeline.take() {
            Some(pipeline) => pipeline,
            None => {
                let pieces = self.config.parity.map(|_| Pieces { words: self.words, length: self.length });
                let encoder = Encoder::new(&self.config, self.encode.clone(), pieces);
                Pipeline::start(&self.lanes, &self.state.lanes, encoder, self.config.workers)?
            }
        };
        let document = pipeline.next(lane)?;
        self.pipeline = Some(pipeline);
        Ok(document)
    }

    /// Makes rows of a document's ids.
    fn add(&mut self, mut ids: Vec<u32>) {
        let StreamState { carry, ready, .. } = &mut self.state;
        if let Some(pad) = self.pad {
            ids.resize(self.length, pad);
            ready.push_back(ids.into());
            return;
        }
        if ids.is_empty() {
            return;
        }
        if let Some(starts) = &mut carry.starts {
            starts.push(carry.ids.len() as u32);
        }
        carry.ids.extend(ids);
        let step = self.length - 1;
        let mut begin = 0;
        while carry.ids.len() - begin >= self.length {
            ready.push_back(carry.cut(begin, self.length));
            begin += step;
        }
        *carry = carry.cut(begin, carry.ids.len() - begin);
    }
}

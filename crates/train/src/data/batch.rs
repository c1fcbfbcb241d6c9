//! What a training step takes in.

use serde::{Deserialize, Serialize};

/// Token ids of one sequence and the id behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Inputs, and one id more for the last target.
    pub ids: Vec<u32>,
    /// Indices of the ids at which a document begins, ascending; where attention must not leave a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts: Option<Vec<u32>>,
}

impl From<Vec<u32>> for Row {
    fn from(ids: Vec<u32>) -> Self {
        Self { ids, starts: None }
    }
}

impl Row {
    /// The `length` ids from `begin` on.
    pub(super) fn cut(&self, begin: usize, length: usize) -> Self {
        let places = begin as u32..(begin + length) as u32;
        let within = |starts: &Vec<u32>| {
            starts.iter().filter(|start| places.contains(start)).map(|start| start - places.start).collect()
        };
        Self { ids: self.ids[begin..begin + length].to_vec(), starts: self.starts.as_ref().map(within) }
    }

    /// For each of the first `time` ids, the index of the first id of its document in this row.
    fn document_starts(&self, time: usize) -> Option<impl Iterator<Item = u32>> {
        let (mut starts, mut current) = (self.starts.as_ref()?.iter().copied().peekable(), 0);
        Some((0..time as u32).map(move |place| {
            current = starts.next_if(|&start| start <= place).unwrap_or(current);
            current
        }))
    }
}

/// Token ids of several sequences of equal length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// `[sequences, time]`.
    pub inputs: Vec<u32>,
    /// The id that follows each input, `[sequences, time]`.
    pub targets: Vec<u32>,
    /// Where attention must not leave a document: for each input the index within its sequence of the first token of its
    /// document, `[sequences, time]`.
    pub document_starts: Option<Vec<u32>>,
    /// Number of sequences.
    pub sequences: usize,
    /// Tokens per sequence.
    pub time: usize,
}

impl Batch {
    /// Cuts each row of `time + 1` ids into inputs and targets.
    pub fn from_rows(rows: &[Row]) -> Self {
        let time = rows.first().map_or(0, |row| row.ids.len().saturating_sub(1));
        let starts: Option<Vec<_>> = rows.iter().map(|row| row.document_starts(time)).collect();
        Self {
            inputs: rows.iter().flat_map(|row| &row.ids[..time]).copied().collect(),
            targets: rows.iter().flat_map(|row| &row.ids[1..]).copied().collect(),
            document_starts: starts.map(|starts| starts.into_iter().flatten().collect()),
            sequences: rows.len(),
            time,
        }
    }
}

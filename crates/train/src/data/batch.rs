//! What a training step takes in.

/// Token ids of several sequences of equal length.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub fn from_rows(rows: &[Vec<u32>]) -> Self {
        let time = rows.first().map_or(0, |row| row.len().saturating_sub(1));
        Self {
            inputs: rows.iter().flat_map(|row| &row[..time]).copied().collect(),
            targets: rows.iter().flat_map(|row| &row[1..]).copied().collect(),
            document_starts: None,
            sequences: rows.len(),
            time,
        }
    }
}

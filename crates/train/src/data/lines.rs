//! Bytes of a shard, unpacked, line by line.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use super::DataError;
use super::content::Content;

/// Longest line that is taken for one: a document beyond that is a sign of a damaged or mislabelled file.
const MAX_LINE: u64 = 64 << 20;

/// The lines of a plain or compressed shard, with their numbers.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
    line: u64,
}

impl Lines {
    /// Reads `content`; the last extension of its name says whether it is compressed.
    pub fn open(content: &Content) -> Result<Self, DataError> {
        let path = content.path();
        let wrong = |e: std::io::Error| DataError::File { path: path.to_owned(), reason: e.to_string() };
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let expected: Option<(&str, &[u8])> = match extension {
            "gz" => Some(("gzip", b"\x1f\x8b")),
            "zst" => Some(("zstd", b"\x28\xb5\x2f\xfd")),
            _ => None,
        };
        if let Some((kind, magic)) = expected {
            let mut head = Vec::new();
            content.reader(0).take(magic.len() as u64).read_to_end(&mut head).map_err(wrong)?;
            if head != magic {
                let reason = format!("its name says {kind}, but it does not begin as {kind} does");
                return Err(DataError::File { path: path.to_owned(), reason });
            }
        }
        let bytes = content.reader(0);
        let reader: Box<dyn BufRead + Send> = match extension {
            "gz" => Box::new(BufReader::with_capacity(1 << 16, flate2::read::MultiGzDecoder::new(bytes))),
            "zst" => Box::new(BufReader::with_capacity(1 << 16, zstd::Decoder::new(bytes).map_err(wrong)?)),
            _ => Box::new(BufReader::with_capacity(1 << 16, bytes)),
        };
        Ok(Self { reader, path: path.to_owned(), line: 0 })
    }

    /// The next line with its line break, or `None` at the end.
    pub fn next(&mut self) -> Result<Option<String>, DataError> {
        let mut bytes = Vec::new();
        self.line += 1;
        let read = (&mut self.reader).take(MAX_LINE + 1).read_until(b'\n', &mut bytes);
        read.map_err(|e| self.wrong(format!("cannot be unpacked or read further: {e}")))?;
        if bytes.len() as u64 > MAX_LINE {
            return Err(
                self.wrong(format!("longer than {} MiB; is this the format that its name says?", MAX_LINE >> 20))
            );
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let text = String::from_utf8(bytes);
        let text = text.map_err(|e| self.wrong(format!("not UTF-8 from byte {} on", e.utf8_error().valid_up_to())))?;
        Ok(Some(text))
    }

    /// An error at the line read last.
    pub fn wrong(&self, reason: String) -> DataError {
        DataError::Line { path: self.path.clone(), line: self.line, reason }
    }
}

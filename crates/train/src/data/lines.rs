//! Text of a shard, line by line.

use std::io::{BufRead, Read};
use std::path::PathBuf;

use super::DataError;
use super::content::Content;
use super::unpack::unpacked;

/// Longest line that is taken for one: a document beyond that is a sign of a damaged or mislabelled file.
const MAX_LINE: u64 = 64 << 20;

/// The lines of a plain or compressed shard, with their numbers.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
    line: u64,
}

impl Lines {
    /// Reads `content`, unpacked.
    pub fn open(content: &Content) -> Result<Self, DataError> {
        Ok(Self { reader: unpacked(content)?, path: content.path().to_owned(), line: 0 })
    }

    /// The next line with its line break, or `None` at the end. Behind a line that is too long or not UTF-8 there may be others.
    pub fn next(&mut self) -> Result<Option<String>, DataError> {
        let mut bytes = Vec::new();
        self.line += 1;
        let line = self.line;
        let broken = |path: PathBuf| {
            move |e| DataError::File { path, reason: format!("line {line} cannot be unpacked or read: {e}") }
        };
        let read = (&mut self.reader).take(MAX_LINE + 1).read_until(b'\n', &mut bytes);
        read.map_err(broken(self.path.clone()))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if line == 1 {
            self.strip_byte_order_mark(&mut bytes)?;
        }
        if bytes.len() as u64 > MAX_LINE {
            if bytes.last() != Some(&b'\n') {
                self.reader.skip_until(b'\n').map_err(broken(self.path.clone()))?;
            }
            return Err(
                self.wrong(format!("longer than {} MiB; is this the format that its name says?", MAX_LINE >> 20))
            );
        }
        let text = String::from_utf8(bytes);
        let text = text.map_err(|e| self.wrong(format!("not UTF-8 from byte {} on", e.utf8_error().valid_up_to())))?;
        Ok(Some(text))
    }

    fn strip_byte_order_mark(&self, bytes: &mut Vec<u8>) -> Result<(), DataError> {
        if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
            let reason = "UTF-16; bring it into UTF-8, for example with iconv -f UTF-16 -t UTF-8".to_owned();
            return Err(DataError::File { path: self.path.clone(), reason });
        }
        if bytes.starts_with(b"\xef\xbb\xbf") {
            bytes.drain(..3);
        }
        Ok(())
    }

    /// An error at the line read last.
    pub fn wrong(&self, reason: String) -> DataError {
        DataError::Line { path: self.path.clone(), line: self.line, reason }
    }
}

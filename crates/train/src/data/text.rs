//! Plain text: documents are cut at blank lines.

use super::DataError;
use super::content::{Content, Found};
use super::lines::Lines;

/// A document ends at the first blank line behind this many bytes.
const DOCUMENT: usize = 16 << 10;
/// A document without blank lines ends with the line that passes this many bytes.
const LONGEST: usize = 1 << 20;

/// The documents of a text file, with line breaks of one character. A line that is damaged is left out.
pub(super) fn documents(content: &Content) -> Result<impl Iterator<Item = Found> + Send + use<>, DataError> {
    let mut lines = Lines::open(content)?;
    // A document, and how many bytes of the file it is.
    let (mut document, mut bytes) = (String::new(), 0);
    let mut done = false;
    Ok(std::iter::from_fn(move || {
        while !done {
            match lines.next() {
                Ok(Some(line)) => {
                    let blank = line.trim().is_empty();
                    // A document begins with its first line that is not blank, however many come before.
                    if blank && document.is_empty() {
                        continue;
                    }
                    bytes += line.len();
                    match line.strip_suffix("\r\n") {
                        Some(line) => document.extend([line, "\n"]),
                        None => document.push_str(&line),
                    }
                    if (blank && bytes >= DOCUMENT) || bytes >= LONGEST {
                        break;
                    }
                }
                Ok(None) => done = true,
                Err(e) => {
                    done = !e.is_one();
                    if done {
                        document.clear();
                    }
                    return Some(Err(e));
                }
            }
        }
        bytes = 0;
        let text = std::mem::take(&mut document);
        let text = text.trim();
        (!text.is_empty()).then(|| Ok(Some(text.to_owned())))
    }))
}

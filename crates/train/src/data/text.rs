//! Plain text: documents are cut at blank lines.

use super::DataError;
use super::content::Content;
use super::lines::Lines;

/// A document ends at the first blank line behind this many bytes.
const DOCUMENT: usize = 16 << 10;
/// A document without blank lines ends with the line that passes this many bytes.
const LONGEST: usize = 1 << 20;

/// The documents of a text file.
pub(super) fn documents(
    content: &Content,
) -> Result<impl Iterator<Item = Result<String, DataError>> + Send + use<>, DataError> {
    let mut lines = Lines::open(content)?;
    let mut done = false;
    Ok(std::iter::from_fn(move || {
        let mut document = String::new();
        while !done {
            match lines.next() {
                Ok(Some(line)) => {
                    let blank = line.trim().is_empty();
                    // A document begins with its first line that is not blank, however many come before.
                    if blank && document.is_empty() {
                        continue;
                    }
                    document.push_str(&line);
                    if (blank && document.len() >= DOCUMENT) || document.len() >= LONGEST {
                        break;
                    }
                }
                Ok(None) => done = true,
                Err(e) => {
                    done = true;
                    return Some(Err(e));
                }
            }
        }
        let document = document.trim();
        (!document.is_empty()).then(|| Ok(document.to_owned()))
    }))
}

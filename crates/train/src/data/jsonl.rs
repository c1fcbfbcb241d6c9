//! One JSON object per line.

use super::DataError;
use super::content::{Content, Found};
use super::json::{Field, field, names};
use super::lines::Lines;

/// The texts under `text_key` of a file's lines; blank lines are passed over. A line that is damaged does not end them.
pub(super) fn documents(
    content: &Content,
    text_key: &str,
) -> Result<impl Iterator<Item = Found> + Send + use<>, DataError> {
    let mut lines = Lines::open(content)?;
    let text_key = text_key.to_owned();
    let mut done = false;
    Ok(std::iter::from_fn(move || {
        while !done {
            let document = match lines.next() {
                // Files that were put behind each other have their byte order marks in the middle.
                Ok(Some(line)) => match line.trim_start_matches('\u{feff}') {
                    blank if blank.trim().is_empty() => continue,
                    object => text_of(object, &text_key).map_err(|reason| lines.wrong(reason)),
                },
                Ok(None) => return None,
                Err(e) => Err(e),
            };
            done = document.as_ref().is_err_and(|e| !e.is_one());
            return Some(document);
        }
        None
    }))
}

fn text_of(line: &str, text_key: &str) -> Result<Option<String>, String> {
    match field(line, text_key)? {
        Field::Text(text) => Ok(Some(text.into_owned())),
        Field::Null => Ok(None),
        Field::Other => Err(format!("the field {text_key:?} is not a text")),
        Field::Missing => Err(format!("no field {text_key:?}; there are {}; set text_key", names(line).join(", "))),
    }
}

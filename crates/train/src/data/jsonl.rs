//! One JSON object per line.

use serde_json::Value;

use super::DataError;
use super::content::Content;
use super::lines::Lines;

/// The texts under `text_key` of a file's lines; blank lines are passed over.
pub(super) fn documents(
    content: &Content,
    text_key: &str,
) -> Result<impl Iterator<Item = Result<String, DataError>> + Send + use<>, DataError> {
    let mut lines = Lines::open(content)?;
    let text_key = text_key.to_owned();
    let mut done = false;
    Ok(std::iter::from_fn(move || {
        while !done {
            let document = match lines.next() {
                Ok(Some(line)) if line.trim().is_empty() => continue,
                Ok(Some(line)) => text_of(&line, &text_key).map_err(|reason| lines.wrong(reason)),
                Ok(None) => return None,
                Err(e) => Err(e),
            };
            done = document.is_err();
            return Some(document);
        }
        None
    }))
}

fn text_of(line: &str, text_key: &str) -> Result<String, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| format!("not JSON: {e}"))?;
    let Value::Object(mut object) = value else { return Err("not a JSON object".to_owned()) };
    match object.remove(text_key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("the field {text_key:?} is not a text")),
        None => {
            let keys: Vec<&str> = object.keys().take(12).map(String::as_str).collect();
            Err(format!("no field {text_key:?}; there are {}; set text_key", keys.join(", ")))
        }
    }
}
